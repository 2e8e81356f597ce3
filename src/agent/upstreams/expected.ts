import type { UpstreamsSpec } from '../../config/schema/mesh-certificate.ts';
import { codedProblem, type Problem } from '../../core/problem.ts';
import type { RouteDestination } from '../../gateway/gateway.ts';
import type { Kube } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import { KubeError } from '../../kube/transport/error.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Identity } from '../../mesh/identity.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { type PeerName, peerNameText, type Workload } from '../../mesh/targeting.ts';

interface ExpectedFrom {
  readonly kube: Kube;
  readonly adapter: Adapter;
  readonly spec: UpstreamsSpec;
}

/** The identities of which an upstream must present one, or why they are not known. */
export type ExpectedPeer = { readonly ids: readonly string[] } | Problem;

const LISTED = 'list it in spec.upstreams.identities';

/** What the user listed, else what the mesh or the gateway names, else what follows from the pods behind the Service. */
export async function expectedAt(
  upstream: RouteDestination,
  identity: Pick<Identity, 'id'>,
  { kube, adapter, spec }: ExpectedFrom,
  signal: AbortSignal,
): Promise<ExpectedPeer> {
  const listed = spec.identities.filter(({ service }) => isNamed(service, upstream)).flatMap(({ ids }) => ids);
  if (listed.length > 0) return { ids: listed };
  if (upstream.id !== undefined) return { ids: [upstream.id] };
  const named = (names: readonly PeerName[] = []) => names.flatMap((name) => peerNameText(name, identity.id) ?? []);
  const accepted = named(upstream.names);
  if (accepted.length > 0) return { ids: accepted };
  const { peer } = adapter;
  const { service } = upstream;
  if (!spec.serviceAccounts || !peer || !service) {
    const or = peer && service ? ', or set spec.upstreams.serviceAccounts' : '';
    return unnamed(`nothing says which identity is expected; ${LISTED}${or}`);
  }
  try {
    const pods = await podsBehind(service, kube, signal);
    if ('code' in pods) return pods;
    const names: PeerName[] = [];
    for (const pod of pods) {
      const name = peer(pod, service.name);
      if ('code' in name) return name;
      names.push(name);
    }
    const ids = [...new Set(named(names))].sort();
    return ids.length > 0 ? { ids } : unnamed(`${adapter.title} names no identity for its pods; ${LISTED}`);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const { code, message } = codedProblem(error);
    return { code, message: `the pods behind it cannot be read: ${message}; or ${LISTED}` };
  }
}

async function podsBehind(
  { namespace, name }: NonNullable<RouteDestination['service']>,
  kube: Kube,
  signal: AbortSignal,
): Promise<readonly Workload[] | Problem> {
  const found = await kube.get({ apiVersion: 'v1', kind: 'Service', namespace, name }, signal);
  const selector = Object.entries(fields(fields(found?.spec).selector));
  if (selector.length === 0) {
    return unnamed(`Service ${namespace}/${name} ${found ? 'selects no pods' : 'does not exist'}; ${LISTED}`);
  }
  const labelSelector = selector.map(([key, value]) => `${key}=${value}`).join(',');
  const { items } = await kube.list(RESOURCES.pods, { namespace, labelSelector }, signal);
  if (items.length === 0) return unnamed(`Service ${namespace}/${name} has no pods; start them, or ${LISTED}`);
  return items.map(({ metadata: { name: pod, labels = {}, annotations = {} }, spec }) => {
    const serviceAccount = text(fields(spec).serviceAccountName) ?? 'default';
    return { name: pod, namespace, serviceAccount, labels, annotations };
  });
}

/** `entry`: `web.shop`, `web.shop.svc.cluster.local`, another host, or one of these with a port. */
function isNamed(entry: string, { address, service }: RouteDestination): boolean {
  const [host, port] = splitPort(entry);
  const [givenHost, givenPort] = splitPort(address);
  if (port !== undefined && port !== givenPort) return false;
  if (host === givenHost) return true;
  const [name, namespace, svc] = host.split('.');
  return service !== undefined && service.name === name && service.namespace === namespace && (svc ?? 'svc') === 'svc';
}

function splitPort(host: string): readonly [string, string | undefined] {
  const [, name = host, port] =
    /^(.*?)(?::(\d+))?$/.exec(host.includes(']') || host.split(':').length <= 2 ? host : '') ?? [];
  return [name.toLowerCase(), port];
}

const unnamed = (message: string): Problem => ({ code: 'ERR_UPSTREAM_UNNAMED', message });
