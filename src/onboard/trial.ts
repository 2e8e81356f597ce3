import type { Clock } from '../async/clock.ts';
import type { ProbeSpec } from '../config/schema/mesh-certificate.ts';
import type { RouteDestination, RouteTarget } from '../gateway/gateway.ts';
import { readPublication } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { peerNameText } from '../mesh/targeting.ts';
import { parseSpiffeId } from '../pki/spiffe.ts';
import { type ProbeResult, probe } from '../probe/probe.ts';
import type { UpstreamFinding } from './discover/upstream.ts';
import type { Joined, MoveVerdict } from './plan/moves.ts';

export interface TrialOptions {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly clock: Clock;
  /** Maps `host:port` of the cluster to the address that reaches it from here, such as a port-forward. */
  readonly connectTo: ReadonlyMap<string, string>;
  readonly signal: AbortSignal;
}

/** Presents the published pair to all upstreams of a route; the first that does not accept it decides. */
export async function tryAll(
  joined: Joined,
  { target, to }: Extract<MoveVerdict['outcome'], { readonly kind: 'move' }>,
  upstream: UpstreamFinding,
  options: TrialOptions,
): Promise<ProbeResult> {
  if (!to) return tryUpstream(joined, target, upstream, options);
  const published = await publishedPair(joined, options);
  const results = await Promise.all(to.destinations.map((one) => tryDestination(one, joined, published, options)));
  const failed = results.find(({ code }) => code !== 'accepted');
  return failed ?? { code: 'accepted', message: '', peer: results.flatMap(({ peer }) => peer) };
}

async function publishedPair({ certificate: { metadata, spec } }: Joined, { kube, signal }: TrialOptions) {
  const { namespace = '' } = metadata;
  const secret = (name: string) => kube.get({ apiVersion: 'v1', kind: 'Secret', namespace, name }, signal);
  const found = await Promise.all([secret(spec.caSecretName), secret(spec.secretName)]);
  return readPublication(
    spec,
    found.filter((one) => one !== undefined),
  );
}

const unpublished = (address: string): ProbeResult => ({
  code: 'ERR_PROBE_REFUSED',
  message: `no pair for ${address} is published yet`,
  peer: [],
});

/** Checks what a gateway itself will check that verifies its upstreams. */
async function tryDestination(
  { address, sni, names = [] }: RouteDestination,
  { view: { tls } }: Joined,
  { identity, bundle }: Awaited<ReturnType<typeof publishedPair>>,
  { clock, connectTo, signal }: TrialOptions,
): Promise<ProbeResult> {
  if (!identity) return unpublished(address);
  const own = identity.chain[0]?.names.uris[0] ?? '';
  const dialled = connectTo.get(address) ?? address;
  const result = await probe({ address: dialled, sni }, identity, bundle, { clock, tls, signal });
  const expected = names.flatMap((name) => peerNameText(name, own) ?? []);
  const message = result.message.replaceAll(dialled, address);
  if (result.code !== 'accepted' || expected.some((one) => result.peer.includes(one))) return { ...result, message };
  const presents = `${address} presents ${result.peer.join(', ') || 'no name'}, not ${expected.join(' or ')}`;
  return { ...result, code: 'ERR_PROBE_UPSTREAM_ID', message: presents };
}

/**
 * Presents the published pair to the upstream as the gateway would, and checks the upstream's identity, which the
 * gateway cannot.
 */
async function tryUpstream(
  joined: Joined,
  target: RouteTarget,
  upstream: UpstreamFinding,
  options: TrialOptions,
): Promise<ProbeResult> {
  const { kube, adapters, clock, connectTo, signal } = options;
  const { certificate, gateway } = joined;
  const { spec } = certificate;
  const { onboarding } = gateway;
  const [{ identity, bundle }, used] = await Promise.all([
    publishedPair(joined, options),
    onboarding.objectsFirst ? kube.get(target.object, signal) : undefined,
  ]);
  const { address } = upstream;
  if (!identity || (onboarding.objectsFirst && !used)) return unpublished(address);
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
