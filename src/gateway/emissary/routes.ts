import { createHash } from 'node:crypto';
import { consentRefusal, consents } from '../../core/consent.ts';
import type { TargetRefusal, TargetRules, Workload } from '../../mesh/cluster.ts';
import { hasLabels, type KubeObject, type ObjectRef, type Resource } from '../../objects/objects.ts';
import {
  GatewayError,
  type GatewayInput,
  type ObservedObjects,
  type PublicationInput,
  type ReferenceInput,
  type RouteDestination,
  type RouteInput,
  type RouteJudgement,
  type RouteRefusal,
  type Routes,
  type RouteVerdict,
  routeRefusal,
} from '../gateway.ts';
import { ownLabels } from '../publication.ts';
import {
  contextNameProblem,
  type EmissaryConfig,
  EMISSARY_RESOURCES as KINDS,
  MAPPING_FIELD_MANAGER,
} from './config.ts';
import { mappingSpec, parseService } from './reading.ts';

/** The objects that determine the server name of a Mapping's upstream. */
const BACKENDS: readonly Resource[] = [
  { apiVersion: 'v1', kind: 'Service', plural: 'services', namespaced: true },
  { apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', plural: 'endpointslices', namespaced: true },
  { apiVersion: 'v1', kind: 'Pod', plural: 'pods', namespaced: true },
];

/** Mappings and TCPMappings: their `spec.tls` names a TLSContext. */
export const emissaryRoutes: Routes<EmissaryConfig, Target> = {
  scopes(input) {
    const places = namespacesOf(input);
    return {
      routes: [KINDS.mappings, KINDS.tcpMappings].flatMap((resource) =>
        places.map((namespace) => ({ resource, namespace })),
      ),
      own: [{ resource: KINDS.tlsContexts, namespace: input.meta.namespace }],
    };
  },
  concern(input, own) {
    const selection = selectionOf(input);
    const ours = ownNames(selection, own);
    return (mapping) => isMentioned(mapping, selection, ours);
  },
  behind(input, { routes, own }) {
    const namespaces = [...namespacesBehind(selectionOf(input), { mappings: routes, contexts: own })];
    return namespaces.flatMap((namespace) => BACKENDS.map((resource) => ({ resource, namespace })));
  },
  judge(input, observed): RouteJudgement<Target> {
    const selection = selectionOf(input);
    const world = worldOf(observed);
    const verdicts = judgeMappings(selection, world);
    const ours = ownNames(selection, world.contexts);
    return {
      targets: neededTargets(selection, world, verdicts),
      verdicts: verdicts.map((verdict) => routeVerdict(verdict, input, ours)),
    };
  },
  identities: (targets) =>
    targets.flatMap(({ contextName, sni }) => (sni === undefined ? [] : [{ id: sni, object: contextName }])),
};

function routeVerdict(
  { mapping, service, selected, named, outcome }: MappingVerdict,
  { meta: { namespace }, rules }: RouteInput<EmissaryConfig>,
  ours: ReadonlySet<string>,
): RouteVerdict {
  const contextRef = (name: string): ObjectRef => {
    const { apiVersion, kind } = KINDS.tlsContexts;
    return { apiVersion, kind, namespace, name };
  };
  const common = {
    route: mapping,
    service,
    selected,
    uses: named,
    dependsOn: named !== undefined && ours.has(named) ? contextRef(named) : undefined,
  };
  if ('code' in outcome) return { ...common, outcome };
  const { contextName, sni } = outcome.target;
  const change = { fields: { spec: { tls: contextName } }, fieldManager: MAPPING_FIELD_MANAGER };
  const isSet = named === contextName;
  return {
    ...common,
    // Whoever may write a Mapping in another namespace must not choose where the agent connects to.
    upstreams: consents(mapping, namespace) ? [upstreamOf(mapping, service, sni, rules !== undefined)] : undefined,
    outcome: { target: { object: contextRef(contextName), id: sni, change, isSet } },
  };
}

function upstreamOf(mapping: KubeObject, text: string, sni: string | undefined, isIdentity: boolean): RouteDestination {
  const { namespace = '' } = mapping.metadata;
  const { host, port = 443 } = parseService(text, namespace);
  const service = serviceNameOf(host, namespace);
  return {
    address: `${host.includes(':') ? `[${host}]` : host}:${port}`,
    sni,
    id: isIdentity ? sni : undefined,
    service: 'code' in service ? undefined : service,
  };
}

/** Undefined: all namespaces. */
function namespacesOf({ meta, config }: GatewayInput<EmissaryConfig>): readonly (string | undefined)[] {
  const listed = config.leftIn ?? config.mappings?.namespaces ?? [meta.namespace];
  return listed.includes('*') ? [undefined] : listed;
}

function selectionOf({ meta, config, rules }: RouteInput<EmissaryConfig>): TargetSelection {
  const { tlsContext, mappings, leftIn } = config;
  return {
    isLeft: leftIn !== undefined,
    namespace: meta.namespace,
    contextName: tlsContext.name,
    sni: tlsContext.sni,
    ambassadorIds: tlsContext.ambassadorIds,
    selector: mappings?.selector.matchLabels,
    rules,
  };
}

function worldOf({ routes, own, behind, unseen }: ObservedObjects): TargetWorld {
  return {
    mappings: routes,
    contexts: own,
    services: behind('Service'),
    endpointSlices: behind('EndpointSlice'),
    pods: behind('Pod'),
    unseen,
  };
}

/** The verdict on one Mapping; undefined when it is not selected and names none of our contexts. */
function judgeMapping(
  mapping: KubeObject,
  selection: TargetSelection,
  world: TargetWorld,
  ours: ReadonlySet<string>,
): MappingVerdict | undefined {
  const { service, tls } = mappingSpec(mapping);
  const named = typeof tls === 'string' ? tls : undefined;
  const selected = isSelected(mapping, selection);
  if (!isMentioned(mapping, selection, ours)) return undefined;

  const found = findTarget(mapping, selection, world);
  const left = (refusal: TargetRefusal): MappingVerdict => ({
    mapping,
    service,
    selected,
    named,
    outcome: routeRefusal(mapping, refusal),
  });
  if (!selected && selection.selector && setsTls(mapping)) {
    const message = `the agent set its spec.tls, but its labels no longer match the selector; restore the labels, or remove spec.tls`;
    return left({ code: 'ERR_TARGET_UNSELECTED', message });
  }
  const refusal = selected ? consentRefusal(mapping, selection.namespace) : undefined;
  if (refusal) return left(refusal);
  if ('code' in found) return left(found);
  if (named !== undefined && named !== found.contextName && !(setsTls(mapping) && ours.has(named))) {
    const who = setsTls(mapping) ? 'for another MeshCertificate' : 'by another client';
    const message = `its spec.tls names ${named}, set ${who}; remove it, or set ${found.contextName}`;
    return left({ code: 'ERR_TARGET_FOREIGN_TLS', message });
  }
  return { mapping, service, selected, named, outcome: { target: found } };
}

function isSelected(mapping: KubeObject, { selector }: TargetSelection): boolean {
  return selector !== undefined && hasLabels(mapping, selector);
}

/** Whether a Mapping is selected or names one of our contexts. */
function isMentioned(mapping: KubeObject, selection: TargetSelection, ours: ReadonlySet<string>): boolean {
  const { tls } = mappingSpec(mapping);
  return isSelected(mapping, selection) || (typeof tls === 'string' && ours.has(tls));
}

/** Whether `spec.tls` of a Mapping was applied by us. */
export function setsTls(mapping: KubeObject): boolean {
  return (mapping.metadata.managedFields ?? []).some((entry) => {
    if (entry.manager !== MAPPING_FIELD_MANAGER || entry.operation !== 'Apply') return false;
    const spec = entry.fieldsV1?.['f:spec'] as Record<string, unknown> | undefined;
    return spec !== undefined && 'f:tls' in spec;
  });
}

/** Why the identity of an upstream cannot be known; it is believed then that a Mapping names the right listed context. */
const UNKNOWABLE: readonly string[] = ['ERR_TARGET_NO_POD', 'ERR_TARGET_UNSEEN'];

function findTarget(mapping: KubeObject, selection: TargetSelection, world: TargetWorld): Target | TargetRefusal {
  const found = seenTarget(mapping, selection, world);
  if (!('code' in found) || !UNKNOWABLE.includes(found.code)) return found;
  const { tls } = mappingSpec(mapping);
  const named = listedContexts(selection).find(({ contextName }) => contextName === tls);
  return named ? { contextName: named.contextName, sni: named.sni } : found;
}

function seenTarget(mapping: KubeObject, selection: TargetSelection, world: TargetWorld): Target | TargetRefusal {
  const { service, ambassadorId } = mappingSpec(mapping);
  const isTcp = mapping.kind === 'TCPMapping';
  const { scheme, host, port = 443, errors } = parseService(service);
  if (errors.length > 0 && !isTcp) {
    const message = `its service ${JSON.stringify(service)} cannot be read (${errors[0]}); write https://NAME.NAMESPACE:PORT`;
    return { code: 'ERR_TARGET_SERVICE_SYNTAX', message };
  }
  const ids = ambassadorIds(ambassadorId);
  const contextIds = ambassadorIds(selection.ambassadorIds);
  if (!ids.includes('_automatic_') && !ids.some((id) => contextIds.includes(id))) {
    const message = `it belongs to the gateway ${ids.join(', ')}, the context to ${contextIds.join(', ')}; give both the same ambassador_id`;
    return { code: 'ERR_TARGET_AMBASSADOR_ID', message };
  }
  // Without a scheme the gateway falls back to plaintext for a TCPMapping too; doctor warns of it.
  if (scheme !== 'https' && !isTcp) {
    const message = `its service ${service} has no https://, so the gateway would use plaintext when the TLSContext is missing; write https://${host}:${port}`;
    return { code: 'ERR_TARGET_NO_HTTPS', message };
  }
  if (!selection.rules) return { contextName: selection.contextName, sni: selection.sni };
  const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
  if ('code' in name) return name;
  const unseen = world.unseen?.get(name.namespace);
  if (unseen !== undefined) {
    const message = `the pods in namespace ${name.namespace} cannot be read yet (${unseen}); the agent needs get, list and watch on services, endpointslices and pods there. Or list the target in the MeshCertificate, and name its context in the Mapping`;
    return { code: 'ERR_TARGET_UNSEEN', message };
  }
  return agreedTarget(
    `Service ${name.namespace}/${name.name}`,
    podsBehind(name, port, world),
    selection,
    selection.rules,
  );
}

/** Absent or empty: the gateway named `default`, as Emissary reads it. */
function ambassadorIds(value: unknown): readonly string[] {
  const ids = (Array.isArray(value) ? value : [value]).filter((id): id is string => typeof id === 'string');
  return ids.length === 0 ? ['default'] : ids;
}

function agreedTarget(
  title: string,
  pods: ReturnType<typeof podsBehind>,
  selection: TargetSelection,
  rules: TargetRules,
): Target | TargetRefusal {
  if ('code' in pods) return pods;
  const refused: TargetRefusal[] = [];
  const byId = new Map<string, string>();
  let account = { serviceAccount: '', namespace: '' };
  for (const { workload, port } of pods) {
    const identified = rules.identify(workload, port);
    if ('code' in identified) refused.push(identified);
    else {
      byId.set(identified.id, workload.name);
      account = workload;
    }
  }
  const first = refused[0];
  if (first && byId.size === 0) return first;
  if (first) {
    const message = `${title} has different pods: ${pods.length - refused.length} of ${pods.length} are suitable, but ${first.message}`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  const [id, ...others] = byId.keys();
  if (id === undefined || others.length > 0) {
    const list = [...byId].map(([name, pod]) => `${name} (pod ${pod})`).join(', ');
    const message = `the pods of ${title} have different identities: ${list}; give them one ServiceAccount, or create one Service for each`;
    return { code: 'ERR_TARGET_DISAGREE', message };
  }
  const listed = listedContexts(selection).find((target) => target.sni === id);
  if (listed) return { contextName: listed.contextName, sni: id };
  if (rules.discover) return { contextName: contextNameOf(selection.contextName, account), sni: id };
  const message = `its target is the ServiceAccount ${account.namespace}/${account.serviceAccount}, which the MeshCertificate does not list; add it to targets, or set discover: true`;
  return { code: 'ERR_TARGET_NOT_LISTED', message };
}

const TLS_CONTEXT = { apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext' } as const;

/** The TLSContexts that make Emissary speak mTLS with the identity: one for the mesh, or one for each target. */
export function desiredContexts(input: PublicationInput<EmissaryConfig, Target>): readonly KubeObject[] {
  const { meta, spec } = input;
  return contextsOf(input).map((target) => ({
    ...TLS_CONTEXT,
    metadata: { name: target.contextName, namespace: meta.namespace, labels: ownLabels(meta, spec.labels) },
    spec: contextFields(input, target),
  }));
}

export function contextRefs(input: ReferenceInput<EmissaryConfig, Target>): readonly ObjectRef[] {
  const { namespace } = input.meta;
  return contextsOf(input).map(({ contextName }) => ({ ...TLS_CONTEXT, namespace, name: contextName }));
}

function contextsOf({ config: { tlsContext }, targets }: ReferenceInput<EmissaryConfig, Target>): readonly Target[] {
  if (!tlsContext.enabled) return [];
  return targets ?? [{ contextName: tlsContext.name, sni: tlsContext.sni }];
}

function contextFields(
  { spec, config, tls, crlSecretName }: PublicationInput<EmissaryConfig, Target>,
  { contextName, sni }: Target,
): Readonly<Record<string, unknown>> {
  const problem = contextNameProblem(contextName);
  if (problem) throw new GatewayError('ERR_GATEWAY_NAME', problem);
  const fields = config.tlsContext;
  const server = sni ?? fields.sni;
  const alpn = fields.alpnProtocols ?? tls.alpnProtocols;
  const min = fields.minTlsVersion ?? tls.minTlsVersion;
  const max = fields.maxTlsVersion ?? tls.maxTlsVersion;
  return {
    ...(fields.ambassadorIds.length > 0 ? { ambassador_id: [...fields.ambassadorIds] } : {}),
    hosts: [],
    secret: spec.secretName,
    ca_secret: spec.caSecretName,
    ...(crlSecretName === undefined ? {} : { crl_secret: crlSecretName }),
    ...(alpn === undefined ? {} : { alpn_protocols: alpn }),
    ...(server === undefined ? {} : { sni: server }),
    ...(min === undefined ? {} : { min_tls_version: min }),
    ...(max === undefined ? {} : { max_tls_version: max }),
  };
}

/** A label's length: long enough for names, short enough for every place where Emissary repeats it. */
const LONGEST_NAME = 63;
const HASH_DIGITS = 8;

interface TargetAccount {
  readonly serviceAccount: string;
  readonly namespace: string;
}

/**
 * `<stem>-<account>-<namespace>`: the same for the same account, no dots, at most 63 characters. If that is ambiguous
 * or too long, a hash of both names is added.
 */
export function contextNameOf(stem: string, { serviceAccount, namespace }: TargetAccount): string {
  const plain = `${stem}-${serviceAccount}-${namespace}`.replaceAll('.', '-');
  const ambiguous = /[-.]/.test(serviceAccount) || /[-.]/.test(namespace);
  if (!ambiguous && plain.length <= LONGEST_NAME) return plain;
  const hash = createHash('sha256').update(`${namespace}/${serviceAccount}`).digest('hex').slice(0, HASH_DIGITS);
  return `${plain.slice(0, LONGEST_NAME - HASH_DIGITS - 1).replace(/(?<!-)-+$/, '')}-${hash}`;
}

interface ListedContext extends TargetAccount {
  readonly contextName: string;
  readonly sni: string;
}

function listedContexts(selection: {
  readonly contextName: string;
  readonly rules?: TargetRules | undefined;
}): ListedContext[] {
  return (selection.rules?.listed ?? []).map(({ id, serviceAccount, namespace, contextName, name }) => ({
    sni: id,
    serviceAccount,
    namespace,
    contextName:
      contextName ??
      (name === undefined
        ? contextNameOf(selection.contextName, { serviceAccount, namespace })
        : `${selection.contextName}-${name}`),
  }));
}

interface ServiceSpec {
  readonly type?: string;
  readonly clusterIP?: string;
  readonly externalName?: string;
  readonly ports?: readonly { readonly name?: string; readonly port: number }[];
}

interface Endpoint {
  readonly conditions?: { readonly ready?: boolean | null };
  readonly targetRef?: { readonly kind?: string; readonly namespace?: string; readonly name?: string };
}

interface Slice extends KubeObject {
  readonly ports?: readonly { readonly name?: string | null; readonly port?: number | null }[] | null;
  readonly endpoints?: readonly Endpoint[] | null;
}

/** A pod that serves a Service, and the port of the pod that does. */
interface Answering {
  readonly workload: Workload;
  readonly port: number;
}

interface World {
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
}

const isNamed = (object: KubeObject, { name, namespace }: ServiceName) =>
  object.metadata.name === name && object.metadata.namespace === namespace;

/** The ready pods behind a port of a Service, or those that are not ready if no pod is. */
export function podsBehind(of: ServiceName, port: number, world: World): Answering[] | TargetRefusal {
  const title = `Service ${of.namespace}/${of.name}`;
  const service = world.services.find((object) => isNamed(object, of));
  if (!service) {
    const message = `${title} does not exist; create it, or correct the Mapping's service`;
    return { code: 'ERR_TARGET_NO_SERVICE', message };
  }
  const spec = (service.spec ?? {}) as ServiceSpec;
  if (spec.type === 'ExternalName') {
    const message = `${title} is an alias of ${spec.externalName}, which is outside the cluster; use the Service that has the pods`;
    return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
  }
  const headless = spec.clusterIP === 'None';
  const servicePort = spec.ports?.find((candidate) => candidate.port === port);
  if (!servicePort && !headless) {
    const known = spec.ports?.map((candidate) => candidate.port).join(', ') ?? '';
    return { code: 'ERR_TARGET_NO_PORT', message: `${title} has no port ${port} but ${known}; use one of these` };
  }
  const slices = (world.endpointSlices as readonly Slice[]).filter(
    ({ metadata }) =>
      metadata.namespace === of.namespace && metadata.labels?.['kubernetes.io/service-name'] === of.name,
  );
  const answering = slices.flatMap((slice) => {
    const slicePort = slice.ports?.find((candidate) => (candidate.name ?? '') === (servicePort?.name ?? ''))?.port;
    const podPort = headless ? port : slicePort;
    return podPort == null ? [] : (slice.endpoints ?? []).map((endpoint) => ({ endpoint, port: podPort }));
  });
  if (answering.length === 0) {
    return { code: 'ERR_TARGET_NO_ENDPOINTS', message: `${title} has no endpoints on port ${port}; start its pods` };
  }
  const ready = answering.filter(({ endpoint }) => endpoint.conditions?.ready !== false);
  const chosen = ready.length > 0 ? ready : answering;
  const pods = new Map(world.pods.map((pod) => [`${pod.metadata.namespace}/${pod.metadata.name}`, pod]));
  const found: Answering[] = [];
  for (const { endpoint, port: podPort } of chosen) {
    const ref = endpoint.targetRef;
    const pod = ref?.kind === 'Pod' ? pods.get(`${ref.namespace ?? of.namespace}/${ref.name}`) : undefined;
    if (!pod) {
      const what = ref ? `${ref.kind} ${ref.name}, which is not a visible pod` : 'an address without a pod';
      const message = `${title} has the endpoint ${what}; its identity is unknown, so list the target in the MeshCertificate and name its context in the Mapping`;
      return { code: 'ERR_TARGET_NO_POD', message };
    }
    found.push({ workload: workloadOf(pod), port: podPort });
  }
  return found;
}

function workloadOf(pod: KubeObject): Workload {
  const spec = (pod.spec ?? {}) as { serviceAccountName?: string };
  return {
    name: pod.metadata.name,
    namespace: pod.metadata.namespace ?? '',
    serviceAccount: spec.serviceAccountName || 'default',
    labels: pod.metadata.labels ?? {},
    annotations: pod.metadata.annotations ?? {},
  };
}

interface ServiceName {
  readonly name: string;
  readonly namespace: string;
}

/**
 * The Service that a host refers to: `web`, `web.shop`, `web.shop.svc` and longer; a bare name is in the Mapping's
 * namespace.
 */
export function serviceNameOf(host: string, mappingNamespace: string): ServiceName | TargetRefusal {
  const [name = '', namespace = mappingNamespace, svc, ...rest] = host.replace(/\.$/, '').split('.');
  const address = host.includes(':') || /^\d+(\.\d+){3}$/.test(host);
  const elsewhere = svc !== undefined && (svc !== 'svc' || rest.length === 1);
  if (!address && !elsewhere) return { name, namespace };
  return {
    code: 'ERR_TARGET_NOT_IN_CLUSTER',
    message: `${host} is not the name of a Service, so its identity is unknown; write https://NAME.NAMESPACE:PORT`,
  };
}

/** One TLSContext that the gateway needs: `sni` is the identity of the workload behind it. */
export interface Target {
  readonly contextName: string;
  readonly sni?: string | undefined;
}

/**
 * Why a Mapping is not changed. The codes of the mesh itself (`ERR_TARGET_UNMESHED`, `…_OTHER_MESH`, `…_OPAQUE_PORT`,
 * `…_SKIPPED_PORT`, `…_PROXY_PORT`, `…_NAME`) come from its TargetRules.
 */
export const TARGET_CODES = [
  'ERR_TARGET_SERVICE_SYNTAX',
  'ERR_TARGET_NO_HTTPS',
  'ERR_TARGET_AMBASSADOR_ID',
  'ERR_TARGET_FOREIGN_TLS',
  'ERR_TARGET_NOT_IN_CLUSTER',
  'ERR_TARGET_NO_SERVICE',
  'ERR_TARGET_NO_PORT',
  'ERR_TARGET_NO_ENDPOINTS',
  'ERR_TARGET_NO_POD',
  'ERR_TARGET_DISAGREE',
  'ERR_TARGET_NOT_LISTED',
  'ERR_TARGET_UNSEEN',
  'ERR_TARGET_UNSELECTED',
  'ERR_TARGET_NO_CONSENT',
  'ERR_TARGET_UNMESHED',
  'ERR_TARGET_OTHER_MESH',
  'ERR_TARGET_OPAQUE_PORT',
  'ERR_TARGET_SKIPPED_PORT',
  'ERR_TARGET_PROXY_PORT',
  'ERR_TARGET_NAME',
] as const;

/** What the MeshCertificate requests of Mappings. */
export interface TargetSelection {
  /** Namespace of the MeshCertificate. Mappings of other namespaces are set only with their consent. */
  readonly namespace: string;
  /** The TLSContext of the MeshCertificate; with rules, the stem of each target's context. */
  readonly contextName: string;
  readonly sni?: string | undefined;
  readonly ambassadorIds: readonly string[];
  /** Labels of the Mappings that we set; absent: report only. */
  readonly selector?: Readonly<Record<string, string>> | undefined;
  /** Absent: one context serves the whole mesh. */
  readonly rules?: TargetRules | undefined;
  /** Only contexts that exist count; none is made. */
  readonly isLeft?: boolean | undefined;
}

/** The observed objects. Lists may hold more than is needed. */
export interface TargetWorld {
  readonly mappings: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  /** Namespaces whose Services, EndpointSlices and Pods are unknown, and why. */
  readonly unseen?: ReadonlyMap<string, string> | undefined;
  /** Our own TLSContexts, including those that no Mapping needs any more. */
  readonly contexts: readonly KubeObject[];
}

/** The verdict on one Mapping. */
interface MappingVerdict {
  readonly mapping: KubeObject;
  /** `spec.service` as the user wrote it. */
  readonly service: string;
  /** Whether the selector matches it. */
  readonly selected: boolean;
  /** The context that its `spec.tls` names now. */
  readonly named?: string | undefined;
  readonly outcome: { readonly target: Target } | RouteRefusal;
}

/** The names of contexts that are ours, whether they exist or not. */
function ownNames(selection: TargetSelection, contexts: readonly KubeObject[]): Set<string> {
  const names = new Set(contexts.map((context) => context.metadata.name));
  if (selection.isLeft) return names;
  if (!selection.rules) names.add(selection.contextName);
  for (const { contextName } of listedContexts(selection)) names.add(contextName);
  return names;
}

/** Namespaces whose Services, EndpointSlices and Pods must be read to judge these Mappings. */
export function namespacesBehind(
  selection: TargetSelection,
  world: Pick<TargetWorld, 'mappings' | 'contexts'>,
): Set<string> {
  if (!selection.rules) return new Set();
  const nothing: TargetWorld = { ...world, services: [], endpointSlices: [], pods: [] };
  return new Set(
    judgeMappings(selection, nothing).flatMap(({ mapping, service }) => {
      const { host } = parseService(service);
      const name = serviceNameOf(host, mapping.metadata.namespace ?? '');
      return 'code' in name ? [] : [name.namespace];
    }),
  );
}

/** Judges every Mapping that is selected or names one of our contexts; the others are ignored. */
export function judgeMappings(selection: TargetSelection, world: TargetWorld): MappingVerdict[] {
  const ours = ownNames(selection, world.contexts);
  return world.mappings.flatMap((mapping) => judgeMapping(mapping, selection, world, ours) ?? []);
}

/**
 * The contexts that must exist: that of the mesh or of each listed or discovered target, and those of ours that a
 * Mapping still names although their target is gone.
 */
export function neededTargets(
  selection: TargetSelection,
  world: TargetWorld,
  verdicts: readonly MappingVerdict[] = judgeMappings(selection, world),
): Target[] {
  const needed = new Map<string, Target>();
  const add = (target: Target) => {
    if (!needed.has(target.contextName)) needed.set(target.contextName, target);
  };
  if (!selection.rules) add({ contextName: selection.contextName, sni: selection.sni });
  for (const { contextName, sni } of listedContexts(selection)) add({ contextName, sni });
  for (const { selected, outcome } of verdicts) if (selected && 'target' in outcome) add(outcome.target);
  const named = new Set(verdicts.map((verdict) => verdict.named));
  for (const context of world.contexts) {
    if (!named.has(context.metadata.name)) continue;
    const sni = (context.spec as { sni?: unknown } | undefined)?.sni;
    add({ contextName: context.metadata.name, sni: typeof sni === 'string' ? sni : undefined });
  }
  return [...needed.values()].sort((a, b) => (a.contextName < b.contextName ? -1 : 1));
}
