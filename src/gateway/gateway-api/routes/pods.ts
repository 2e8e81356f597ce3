import { fields, hasLabels, type KubeObject, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { PeerName, TargetRefusal, Workload } from '../../../mesh/targeting.ts';
import type { RouteInput } from '../../input.ts';
import { type GatewayApiConfig, MOST_NAMES } from '../spec/config.ts';
import { NEXT_ANNOTATION } from '../spec/resources.ts';

/** A port of a Service, as its owner declared it. */
export interface NamedPort {
  readonly name: string;
  readonly port: number;
  readonly targetPort: unknown;
}

const ACCOUNT = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

/** Of an EndpointSlice: the Service that it belongs to. */
const SERVICE_LABEL = 'kubernetes.io/service-name';

/** The objects behind the Services of one namespace. */
export interface BehindServices {
  readonly pods: readonly KubeObject[];
  readonly slices: readonly KubeObject[];
}

/** What a port of a Service must present: `hostname` if there are no names. */
export interface Peers {
  readonly hostname: string;
  readonly names: readonly PeerName[];
}

export const namedPorts = (service: KubeObject): readonly NamedPort[] =>
  listOfFields(fields(service.spec).ports).flatMap(({ name, port, targetPort }) => {
    const known = text(name);
    return known === undefined ? [] : [{ name: known, port: Number(port), targetPort }];
  });

/** Why a Service that is an alias cannot be used; `subject`: how the sentence calls it. */
export function aliasRefusal({ spec }: KubeObject, subject: string): TargetRefusal | undefined {
  const { type, externalName } = fields(spec);
  if (type !== 'ExternalName') return undefined;
  const message = `${subject} is an alias of ${String(externalName)}, which is outside the cluster; use the Service that has the pods`;
  return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
}

/** What a port of a Service must present. */
export function peersOf(
  service: KubeObject,
  port: NamedPort,
  behind: BehindServices,
  input: RouteInput<GatewayApiConfig>,
): Peers | TargetRefusal {
  const { name, namespace = '' } = service.metadata;
  const hostname = `${name}.${namespace}.svc.cluster.local`;
  const given = givenPeers(hostname, input.config);
  if (given) return given;
  const names = identitiesOf(service, port, behind, input);
  return 'code' in names ? names : peersFrom(names, hostname, title(service), input);
}

/** What the user says that every upstream must present; `hostname`: unless one is given. */
export const givenPeers = (hostname: string, config: GatewayApiConfig): Peers | undefined =>
  config.subjectAltNames && {
    hostname: config.hostname ?? hostname,
    names: config.subjectAltNames.map(givenName),
  };

/**
 * The names of all pods behind a port of a Service. A pod counts from its creation to its end, ready or not: a gateway
 * takes seconds to accept a further name.
 */
export function identitiesOf(
  service: KubeObject,
  port: NamedPort,
  behind: BehindServices,
  { mesh, rules }: RouteInput<GatewayApiConfig>,
): readonly PeerName[] | TargetRefusal {
  if (!rules && !mesh?.peer) {
    const message = `the names of workloads in ${mesh?.title ?? 'this mesh'} are unknown; set gatewayApi.subjectAltNames`;
    return { code: 'ERR_TARGET_NO_PEER', message };
  }
  const workloads = workloadsBehind(service, port, behind);
  if ('code' in workloads) return workloads;
  const found: PeerName[] = [];
  for (const { workload, podPort } of workloads) {
    const identified = rules?.identify(workload, podPort);
    if (identified && 'code' in identified) return identified;
    const peer = identified ? { dns: identified.id } : mesh?.peer?.(workload, service.metadata.name);
    if (!peer) continue;
    if ('code' in peer) return peer;
    found.push(peer);
  }
  for (const workload of rules ? [] : nextWorkloads(service)) {
    const peer = mesh?.peer?.(workload, service.metadata.name);
    if (peer && !('code' in peer)) found.push(peer);
  }
  return found;
}

/** The workloads that the owner of a Service announces: a gateway takes seconds to accept a further name. */
function nextWorkloads({ metadata: { namespace = '', annotations } }: KubeObject): readonly Workload[] {
  const accounts = annotations?.[NEXT_ANNOTATION]?.split(',').map((one) => one.trim()) ?? [];
  return accounts
    .filter((one) => ACCOUNT.test(one))
    .map((serviceAccount) => ({ name: '', namespace, serviceAccount, labels: {}, annotations: {} }));
}

/** `hostname`: the server name, unless the user gives one or the mesh distinguishes its servers by it. */
export function peersFrom(
  found: readonly PeerName[],
  hostname: string,
  what: string,
  { config, rules }: RouteInput<GatewayApiConfig>,
): Peers | TargetRefusal {
  const byText = new Map(found.map((name) => [JSON.stringify(name), name]));
  const names = [...byText.keys()].sort().flatMap((key) => byText.get(key) ?? []);
  return rules ? oneServerName(names, config.hostname, what) : severalNames(names, config.hostname ?? hostname, what);
}

/** The port by which the name of a Service is called: that of the pods if it is headless. */
export function dialledPort({ metadata, spec }: KubeObject, port: NamedPort, { slices }: BehindServices): number {
  if (fields(spec).clusterIP !== 'None') return port.port;
  const ports = slices.filter(({ metadata: { labels } }) => labels?.[SERVICE_LABEL] === metadata.name);
  const found = ports.flatMap((slice) => listOfFields(slice.ports)).find((one) => (one.name ?? '') === port.name);
  return typeof found?.port === 'number' ? found.port : Number(port.targetPort ?? port.port) || port.port;
}

const title = ({ metadata }: KubeObject): string => `Service ${metadata.namespace}/${metadata.name}`;

const givenName = (name: string): PeerName => (name.includes('://') ? { uri: name } : { dns: name });

/** Servers that are distinguished by the server name, which is their identity. */
function oneServerName(names: readonly PeerName[], given: string | undefined, service: string): Peers | TargetRefusal {
  const ids = names.flatMap((name) => ('dns' in name ? [name.dns] : []));
  const [id] = ids;
  if (id === undefined || ids.length > 1) {
    const message = `the pods of ${service} have different identities: ${ids.join(', ')}; give them one ServiceAccount, or create one Service for each`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  return given === undefined || given === id ? { hostname: id, names: [] } : { hostname: given, names };
}

function severalNames(names: readonly PeerName[], hostname: string, service: string): Peers | TargetRefusal {
  if (names.length <= MOST_NAMES) return { hostname, names };
  const message = `the pods of ${service} have ${names.length} identities, and a BackendTLSPolicy holds ${MOST_NAMES}; create a Service for each identity, or set gatewayApi.subjectAltNames`;
  return { code: 'ERR_TARGET_TOO_MANY', message };
}

interface PodBehind {
  readonly workload: Workload;
  readonly podPort: number;
}

/** The pods of a port of a Service, from their creation to their end, and the port of each. */
export function workloadsBehind(
  service: KubeObject,
  { name: portName, port, targetPort }: NamedPort,
  { pods, slices }: BehindServices,
): readonly PodBehind[] | TargetRefusal {
  const { name, namespace = '' } = service.metadata;
  const found = new Map<string, { readonly pod: KubeObject; readonly podPort: number }>();
  const usual = typeof targetPort === 'number' ? targetPort : port;
  const own = slices.filter(({ metadata }) => metadata.labels?.[SERVICE_LABEL] === name);
  for (const slice of own) {
    const slicePort = listOfFields(slice.ports).find((one) => (one.name ?? '') === portName);
    if (!slicePort) continue;
    for (const endpoint of listOfFields(slice.endpoints)) {
      const ref = fields(endpoint.targetRef);
      const pod = ref.kind === 'Pod' ? pods.find(({ metadata }) => metadata.name === ref.name) : undefined;
      if (!pod) {
        const what = ref.kind ? `${ref.kind} ${ref.name}, which is not a visible pod` : 'an address without a pod';
        const message = `${title(service)} has the endpoint ${what}, so its identity is unknown; set gatewayApi.subjectAltNames`;
        return { code: 'ERR_TARGET_NO_POD', message };
      }
      found.set(pod.metadata.name, { pod, podPort: typeof slicePort.port === 'number' ? slicePort.port : usual });
    }
  }
  const labels = fields(fields(service.spec).selector);
  for (const pod of Object.keys(labels).length === 0 ? [] : pods) {
    if (hasLabels(pod, labels) && !found.has(pod.metadata.name)) found.set(pod.metadata.name, { pod, podPort: usual });
  }
  if (found.size === 0) {
    const message = `${title(service)} has no pods behind port ${portName}, so its identity is unknown; start them, or set gatewayApi.subjectAltNames`;
    return { code: 'ERR_TARGET_NO_ENDPOINTS', message };
  }
  const workloads: PodBehind[] = [];
  for (const { pod, podPort } of found.values()) {
    const serviceAccount = text(fields(pod.spec).serviceAccountName);
    if (serviceAccount === undefined) {
      const message = `Pod ${namespace}/${pod.metadata.name} behind ${title(service)} has no ServiceAccount, so it has no identity; give it one`;
      return { code: 'ERR_TARGET_NO_ACCOUNT', message };
    }
    const { labels: podLabels = {}, annotations = {} } = pod.metadata;
    const workload = { name: pod.metadata.name, namespace, serviceAccount, labels: podLabels, annotations };
    workloads.push({ workload, podPort });
  }
  return workloads;
}
