import type { Clock } from '../async/clock.ts';
import type { ProbeSpec } from '../config/schema/mesh-certificate.ts';
import type { KubeObject } from '../core/object.ts';
import type { RouteTarget } from '../gateway/gateway.ts';
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
  { certificate, gateway }: Joined,
  target: RouteTarget,
  upstream: UpstreamFinding,
  { kube, adapters, clock, connectTo, signal }: TrialOptions,
): Promise<ProbeResult> {
  const { namespace = '' } = certificate.metadata;
  const { spec } = certificate;
  const secret = (name: string) => kube.get({ apiVersion: 'v1', kind: 'Secret', namespace, name }, signal);
  const { onboarding } = gateway;
  const [trust, pair, used] = await Promise.all([
    secret(spec.caSecretName),
    secret(spec.secretName),
    onboarding.objectsFirst ? kube.get(target.object, signal) : undefined,
  ]);
  const objects = [trust, pair].filter((one): one is KubeObject => one !== undefined);
  const { identity, bundle } = readPublication(spec, objects);
  const { address } = upstream;
  if (!identity || (onboarding.objectsFirst && !used)) {
    const message = `no pair for ${address} is published yet`;
    return { code: 'ERR_PROBE_REFUSED', message, peer: [] };
  }
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  const uri = identity.chain[0]?.names.uris[0];
  const { sni, ...tls } = onboarding.client(spec.gateways[gateway.kind], used, target.id);
  const probeSpec: ProbeSpec = {
    address: connectTo.get(address) ?? address,
    sni,
    id: adapter?.expectedPeer?.({
      sni,
      accounts: upstream.accounts,
      trustDomain: parseSpiffeId(uri ?? '')?.trustDomain,
    }),
  };
  const result = await probe(probeSpec, identity, bundle, { clock, tls, signal });
  // Messages name the address in the route, even if another one was dialled.
  return { ...result, message: result.message.replaceAll(probeSpec.address, address) };
}
