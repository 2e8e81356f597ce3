import type { PeerName, TargetRefusal, Workload } from '../../mesh/cluster.ts';
import {
  describe,
  fields,
  hasLabels,
  type KubeObject,
  keyOf,
  listOfFields,
  OWNER_LABEL,
  refOf,
  text,
} from '../../objects/objects.ts';
import {
  type GatewayInput,
  type ObservedObjects,
  type RouteDestination,
  type RouteInput,
  type RouteVerdict,
  routeRefusal,
  slicesOf,
  workloadOf,
} from '../gateway.ts';
import { ownerLabel } from '../publication.ts';
import {
  CORE_RESOURCES as CORE,
  CORE_RESOURCES,
  EXTENSIONS,
  type GatewayApiConfig,
  type GatewayApiRefusal,
  GATEWAY_API_RESOURCES as KINDS,
  MOST_NAMES,
  NEXT_ANNOTATION,
  type PolicyTarget,
  routePlaces,
} from './config.ts';
import { policyRef } from './objects.ts';

/** What all Services and Backends of one observation have in common. */
export interface PolicySituation {
  readonly input: RouteInput<GatewayApiConfig>;
  readonly observed: ObservedObjects;
  /** Our policies as they are now, by `keyOf`. */
  readonly written: ReadonlyMap<string, PolicyTarget>;
  readonly isUsed: Usage;
}

/** What one policy is for, and the verdict on it; without a target, none is written. */
export interface PolicyJudgement {
  readonly verdict: RouteVerdict;
  readonly target?: PolicyTarget | undefined;
}

export function situationOf(input: RouteInput<GatewayApiConfig>, observed: ObservedObjects): PolicySituation {
  const written = new Map(
    observed.own.flatMap((one) => {
      const target = policyTarget(one);
      return target ? [[keyOf(refOf(one)), target] as const] : [];
    }),
  );
  return { input, observed, written, isUsed: usage(input, observed) };
}

/** What one of our policies is for, and what it requires; undefined: not of our making. */
export function policyTarget({ kind, metadata, spec }: KubeObject): PolicyTarget | undefined {
  const [ref] = listOfFields(fields(spec).targetRefs);
  const { hostname, subjectAltNames } = fields(fields(spec).validation);
  const [of, name, port = '', host] = [ref?.kind, text(ref?.name), text(ref?.sectionName), text(hostname)];
  if (kind !== KINDS.policies.kind || !name || !host || (of !== 'Service' && of !== 'Backend')) return undefined;
  if (of === 'Service' && port === '') return undefined;
  const names = listOfFields(subjectAltNames).map(
    ({ uri, hostname: dns }): PeerName => (text(uri) ? { uri: String(uri) } : { dns: String(dns) }),
  );
  return { kind: 'policy', namespace: metadata.namespace ?? '', of, name, port, hostname: host, names };
}

/** Our policy for it, if there is one. */
export const writtenFor = (
  { input, written }: PolicySituation,
  target: UsedTarget & Pick<PolicyTarget, 'port'>,
): PolicyTarget | undefined => written.get(keyOf(policyRef(input, target)));

/** A policy of somebody else for this target, or for all of its ports, which ours would override; why ours is not written. */
export function foreignPolicy(
  { input, observed }: PolicySituation,
  { of, namespace, name, port }: UsedTarget & Pick<PolicyTarget, 'port'>,
): TargetRefusal | undefined {
  const owner = ownerLabel(input.meta);
  const theirs = observed
    .behind(KINDS.policies.kind)
    .find(
      (policy) =>
        policy.metadata.namespace === namespace &&
        policy.metadata.labels?.[OWNER_LABEL] !== owner &&
        listOfFields(fields(policy.spec).targetRefs).some(
          (ref) =>
            ref.kind === of &&
            ref.name === name &&
            (ref.sectionName === undefined || of === 'Backend' || ref.sectionName === port),
        ),
    );
  if (!theirs) return undefined;
  const message = `${describe(refOf(theirs))} is already for it, and was not written for this MeshCertificate; do not select this ${of}, or move its routes away, remove that policy, and move them back when the agent has written its own (without a policy, requests can be in plaintext)`;
  return { code: 'ERR_TARGET_FOREIGN_POLICY', message };
}

/** Why no policy can be written at all. */
export function unservedKind(unserved: ReadonlySet<string>): GatewayApiRefusal | undefined {
  const absent = [KINDS.policies, KINDS.gateways].find(({ kind }) => unserved.has(kind));
  if (!absent) return undefined;
  const message = `the cluster does not serve ${absent.apiVersion} ${absent.kind}; install the Gateway API, version 1.4 or later`;
  return { code: 'ERR_GATEWAY_CRD_MISSING', message };
}

/** Why the objects of these kinds in a namespace are not known. */
export function unseen(
  { observed }: PolicySituation,
  namespace: string,
  resources: readonly { readonly kind: string; readonly plural: string }[],
): TargetRefusal | undefined {
  for (const { kind, plural } of resources) {
    const why = observed.hidden(kind, namespace);
    if (why === undefined) continue;
    const message = `the ${plural} in namespace ${namespace} cannot be read yet (${why}); the agent needs get, list and watch on them there`;
    return { code: 'ERR_TARGET_UNSEEN', message };
  }
  return undefined;
}

/** The pods and EndpointSlices of a namespace. */
export function behindServices({ observed }: PolicySituation, namespace: string): BehindServices {
  const inPlace = (kind: string) => observed.behind(kind).filter(({ metadata }) => metadata.namespace === namespace);
  return { pods: inPlace(CORE.pods.kind), slices: inPlace(CORE.endpointSlices.kind) };
}

/**
 * The verdict on a Service or a Backend with regard to its policy; `port`: as a route would give it; `found`: everything
 * that the gateway connects to, or why it has no policy.
 */
export function policyVerdict(
  route: KubeObject,
  target: UsedTarget & Pick<PolicyTarget, 'port'>,
  port: number | undefined,
  { input, written, isUsed }: PolicySituation,
  found: TargetRefusal | readonly RouteDestination[],
): RouteVerdict {
  const object = policyRef(input, target);
  const exists = written.has(keyOf(object));
  const common = {
    route,
    service: target.port === '' ? target.name : `${target.name}:${target.port}`,
    selected: true,
    uses: exists ? object.name : undefined,
    dependsOn: exists && isUsed(target, port) ? object : undefined,
  };
  if (!('code' in found)) return { ...common, upstreams: found, outcome: { target: { object, isSet: exists } } };
  return { ...common, outcome: routeRefusal(route, found) };
}

/** Where the gateway connects to, and whom it accepts there. */
export const destinationOf = (
  address: string,
  { hostname, names }: Peers,
  service: RouteDestination['service'],
): RouteDestination => ({
  address,
  sni: hostname,
  service,
  names: names.length > 0 ? names : [{ dns: hostname }],
});

/** A policy that is used although nothing selects its target any more. */
export function kept(
  route: KubeObject,
  target: PolicyTarget,
  port: number | undefined,
  situation: PolicySituation,
): PolicyJudgement {
  const message =
    'a route uses it with a BackendTLSPolicy of the agent, but the MeshCertificate no longer selects it; select it, or remove the route and then the policy';
  const refusal = { code: 'ERR_TARGET_UNSELECTED', message };
  return { verdict: { ...policyVerdict(route, target, port, situation, refusal), selected: false }, target };
}

type UsedTarget = Pick<PolicyTarget, 'of' | 'namespace' | 'name'>;

/** Whether a route sends requests there; without a port: to any of its ports. */
export type Usage = (target: UsedTarget, port: number | undefined) => boolean;

const GROUPS: Readonly<Record<string, string>> = {
  [CORE_RESOURCES.services.kind]: '',
  [KINDS.backends.kind]: EXTENSIONS,
};

/** What routes use, as far as they can be read; everything is used if not all of them can. */
export function usage(
  { meta, config }: Pick<GatewayInput<GatewayApiConfig>, 'meta' | 'config'>,
  observed: Pick<ObservedObjects, 'behind' | 'hidden'>,
): Usage {
  const kinds = [KINDS.httpRoutes.kind, KINDS.grpcRoutes.kind];
  const places = routePlaces(config, meta.namespace);
  const all = places.includes('*') ? [undefined] : places;
  if (kinds.some((kind) => all.some((place) => observed.hidden(kind, place) !== undefined))) return () => true;
  const used = usedBy(kinds.flatMap((kind) => observed.behind(kind)));
  return (target, port) => {
    const start = idOf(target);
    if (port === undefined) return [...used].some((one) => one.startsWith(start));
    return used.has(`${start}${port}`) || used.has(`${start}*`);
  };
}

const idOf = ({ of, namespace, name }: { readonly of: string; readonly namespace: string; readonly name: string }) =>
  `${of}/${namespace}/${name}/`;

/** `<kind>/<namespace>/<name>/<port>`, or `…/*` without a port. */
function usedBy(routes: readonly KubeObject[]): ReadonlySet<string> {
  return new Set(
    routes.flatMap(({ metadata, spec }) =>
      backendsIn(spec).flatMap(({ name, namespace, kind = CORE_RESOURCES.services.kind, group = '', port }) => {
        const of = text(kind) ?? '';
        const target = text(name);
        if (target === undefined || GROUPS[of] !== group) return [];
        const place = text(namespace) ?? metadata.namespace ?? '';
        return [`${idOf({ of, namespace: place, name: target })}${typeof port === 'number' ? port : '*'}`];
      }),
    ),
  );
}

/** The references to backends of rules and of filters, such as mirrors. */
export function backendsIn(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  if (Array.isArray(value)) return value.flatMap(backendsIn);
  return Object.entries(fields(value)).flatMap(([key, below]) => {
    if (key === 'backendRefs' && Array.isArray(below)) return [...below.map(fields), ...below.flatMap(backendsIn)];
    return key === 'backendRef' ? [fields(below)] : backendsIn(below);
  });
}

/** The same value with each of these references changed. */
export function withBackends(value: unknown, change: (ref: Readonly<Record<string, unknown>>) => object): unknown {
  if (Array.isArray(value)) return value.map((one) => withBackends(one, change));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, below]) => {
      if (key === 'backendRef') return [key, change(fields(below))];
      if (key !== 'backendRefs' || !Array.isArray(below)) return [key, withBackends(below, change)];
      return [key, below.map((ref) => withBackends(change(fields(ref)), change))];
    }),
  );
}

/** A port of a Service, as its owner declared it. */
export interface NamedPort {
  readonly name: string;
  readonly port: number;
  readonly targetPort: unknown;
}

const ACCOUNT = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

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
  const ports = slicesOf(metadata.name, slices).flatMap((slice) => listOfFields(slice.ports));
  const found = ports.find((one) => (one.name ?? '') === port.name);
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
  for (const slice of slicesOf(name, slices)) {
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
    if (text(fields(pod.spec).serviceAccountName) === undefined) {
      const message = `Pod ${namespace}/${pod.metadata.name} behind ${title(service)} has no ServiceAccount, so it has no identity; give it one`;
      return { code: 'ERR_TARGET_NO_ACCOUNT', message };
    }
    workloads.push({ workload: workloadOf(pod), podPort });
  }
  return workloads;
}
