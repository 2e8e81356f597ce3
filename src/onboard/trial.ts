import type { Clock } from '../async/clock.ts';
import type { ProbeSpec } from '../config/schema/mesh-certificate.ts';
import type { KubeObject } from '../core/object.ts';
import { contextSpec } from '../gateway/emissary/reading/kinds.ts';
import type { Target } from '../gateway/emissary/routes/target.ts';
import { readPublication } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { parseSpiffeId } from '../pki/spiffe.ts';
import { type ProbeResult, probe } from '../probe/probe.ts';
import type { UpstreamFinding } from './discover/upstream.ts';
import type { Joined } from './plan/moves.ts';

export interface TrialOptions {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly clock: Clock;
  /** Maps `host:port` of the cluster to the address that reaches it from here, such as a port-forward. */
  readonly connectTo: ReadonlyMap<string, string>;
  readonly signal: AbortSignal;
}

/**
 * Presents the published pair to the upstream as the gateway would, and checks the upstream's identity, which the
 * gateway cannot.
 */
export async function tryUpstream(
  { certificate }: Joined,
  target: Target,
  upstream: UpstreamFinding,
  { kube, adapters, clock, connectTo, signal }: TrialOptions,
): Promise<ProbeResult> {
  const { namespace = '' } = certificate.metadata;
  const { spec } = certificate;
  const secret = (name: string) => kube.get({ apiVersion: 'v1', kind: 'Secret', namespace, name }, signal);
  const context = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', namespace, name: target.contextName };
  const [trust, pair, tls] = await Promise.all([
    secret(spec.caSecretName),
    secret(spec.secretName),
    kube.get(context, signal),
  ]);
  const objects = [trust, pair].filter((one): one is KubeObject => one !== undefined);
  const { identity, bundle } = readPublication(spec, objects);
  const address = addressOf(upstream);
  if (!identity || !tls) {
    const message = `no pair for ${address} is published yet`;
    return { code: 'ERR_PROBE_REFUSED', message, peer: [] };
  }
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  const uri = identity.chain[0]?.names.uris[0];
  const probeSpec: ProbeSpec = {
    address: connectTo.get(address) ?? address,
    sni: target.sni,
    id: adapter?.expectedPeer?.({
      sni: target.sni,
      accounts: upstream.accounts,
      trustDomain: parseSpiffeId(uri ?? '')?.trustDomain,
    }),
  };
  const { alpnProtocols, minTlsVersion, maxTlsVersion } = contextSpec(tls);
  const result = await probe(probeSpec, identity, bundle, {
    clock,
    tls: { alpnProtocols, minTlsVersion, maxTlsVersion },
    signal,
  });
  // Messages name the address in the Mapping, even if another one was dialled.
  return { ...result, message: result.message.replaceAll(probeSpec.address, address) };
}

/** A fully qualified name, since a short one has another meaning outside of the Mapping's namespace. */
export function addressOf({ host, port, mapping }: UpstreamFinding): string {
  const { namespace } = mapping.metadata;
  return `${host.includes('.') || host.includes(':') ? host : `${host}.${namespace}`}:${port}`;
}
