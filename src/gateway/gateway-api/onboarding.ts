import { type TargetRefusal, type Workload, workloadSpec } from '../../mesh/cluster.ts';
import { fields, type KubeObject, listOfFields, text } from '../../objects/objects.ts';
import type {
  ClusterLists,
  GatewayInstallation,
  JoinRequest,
  Onboarding,
  OnboardingWording,
  RouteObjects,
  RouteUpstream,
  StandInRequest,
  StandIns,
} from '../gateway.ts';
import {
  CORE_RESOURCES as CORE,
  ENVOY_GATEWAY,
  EXTENSIONS,
  type GatewayApiConfig,
  GATEWAY_API_RESOURCES as KINDS,
  type ServicePort,
  STANDARD,
} from './config.ts';
import { secretField, standInName } from './objects.ts';
import {
  type BehindServices,
  backendsIn,
  dialledPort,
  policyTarget,
  withBackends,
  workloadsBehind,
} from './policies.ts';
import { controllerOf, isBackend, isGateway, missing, portOf } from './routes.ts';

const wording: OnboardingWording = {
  absent: 'no Gateway of Envoy Gateway exists',
  route: 'HTTPRoute',
  routes: 'HTTPRoutes',
  selector: 'gatewayApi.backends',
  namespaces: 'gatewayApi.backends.namespaces',
  blocked: 'which leads to what onboard did not create',
  cost: 'Envoy keeps the settings from before until the new ones are ready: 0 of 2,676 requests failed when this was measured.',
  released: 'leads to its Services again',
  inUse: (list) =>
    `${list} still lead to a Service or a Backend that has a BackendTLSPolicy of the agent, and onboard did not lead them there; without it, requests fail or are in plaintext. Move these routes and run this again (docs/gateway-api.md, "Taking it away")`,
};

/** Fields of a new MeshCertificate. The client certificate is that of the Backends, so that each mesh has its own. */
function specFor(request: JoinRequest): Readonly<Record<string, unknown>> {
  const namespaces = namespacesOf(request);
  return {
    gatewayApi: {
      clientCertificate: 'Backend',
      backends: {
        selector: { matchLabels: request.labels },
        ...(namespaces.length === 0 ? {} : { namespaces }),
      },
    },
  };
}

/** Of the routes and of their Services, but for the one that counts anyway. */
function namespacesOf({ installation, routes, gatewayObjects }: JoinRequest): readonly string[] {
  const behind = (route: KubeObject) => {
    const targets = targetsOf(route, gatewayObjects);
    return 'code' in targets ? [] : targets.map(({ namespace }) => namespace);
  };
  const all = routes.flatMap((route) => [route.metadata.namespace ?? '', ...behind(route)]);
  return [...new Set(all)].filter((one) => one !== installation.home).sort();
}

/** On the Deployment that Envoy Gateway makes for a Gateway. */
const OWNING = 'gateway.envoyproxy.io/owning-gateway-';

/** One for each Gateway: its routes join on their own. */
const installationsOf = ({ workloads, gatewayObjects }: ClusterLists): GatewayInstallation[] =>
  gatewayObjects.filter(isGateway).map((object) => {
    const { name, namespace = '' } = object.metadata;
    const problem = classProblem(object, gatewayObjects) ?? backendsProblem(object, gatewayObjects);
    const workload = workloads.find(
      ({ metadata: { labels } }) => labels?.[`${OWNING}name`] === name && labels[`${OWNING}namespace`] === namespace,
    );
    // Unless Envoy Gateway runs its proxies beside the Gateway, a token is minted for an account of that name.
    const account = workload?.metadata.namespace === namespace ? workloadSpec(workload).template?.spec : undefined;
    return {
      object,
      workload,
      problem,
      home: namespace,
      serviceAccount: account?.serviceAccountName ?? name,
      product: problem ? 'another implementation' : 'Envoy Gateway',
      version: undefined,
      gapMs: 0,
    };
  });

/** The configuration of Envoy Gateway, by the name that its chart gives it. */
const CONFIGURATION = 'envoy-gateway-config';

/** Why Envoy Gateway would refuse Backends, as far as its configuration is found. */
function backendsProblem(gateway: KubeObject, objects: readonly KubeObject[]): TargetRefusal | undefined {
  const found = objects.filter(({ kind, metadata }) => kind === 'ConfigMap' && metadata.name === CONFIGURATION);
  const [first] = found;
  const texts = found.map(({ data }) => text(fields(data)['envoy-gateway.yaml']) ?? '');
  if (!first || texts.some((one) => /^[ \t]*enableBackend:[ \t]*true[ \t\r]*$/m.test(one))) return undefined;
  const { name, namespace } = gateway.metadata;
  const message = `Gateway ${namespace}/${name} cannot lead to Backends, because Envoy Gateway does not read them; set extensionApis.enableBackend: true in ConfigMap ${first.metadata.namespace}/${CONFIGURATION}, restart Envoy Gateway, and run this again`;
  return { code: 'ERR_GATEWAY_CRD_MISSING', message };
}

/** Why a Gateway cannot lead to Backends, which only Envoy Gateway knows. */
function classProblem(gateway: KubeObject, objects: readonly KubeObject[]): TargetRefusal | undefined {
  const controller = controllerOf(gateway, { behind: (kind) => objects.filter((object) => object.kind === kind) });
  if (controller?.startsWith(ENVOY_GATEWAY)) return undefined;
  const { name, namespace } = gateway.metadata;
  const named = text(fields(gateway.spec).gatewayClassName) ?? 'none';
  const run = controller === undefined ? 'does not exist' : `is run by ${controller}`;
  const message = `Gateway ${namespace}/${name} has the GatewayClass ${named}, which ${run}, and onboard supports Envoy Gateway only; write the MeshCertificate by hand (docs/gateway-api.md, "Which implementations")`;
  return { code: 'ERR_TARGET_CLASS', message };
}

/** A Backend for each port of a Service that a route names, and ReferenceGrants where routes are in other namespaces. */
export const standIns: StandIns = {
  resources: [KINDS.backends, KINDS.grants],
  objects(routes, request) {
    const { gatewayObjects } = request.objects;
    const targets = new Map(
      routes.flatMap((route) => usesOf(route, gatewayObjects)).map(({ target }) => [standInName(target), target]),
    );
    // Others may lead there already, of another Gateway too.
    const users = gatewayObjects
      .filter(isHttpRoute)
      .flatMap((route) =>
        usesOf(route, gatewayObjects).filter(({ backend }) => backend?.metadata.namespace === request.namespace),
      );
    const all = [...users, ...routes.flatMap((route) => usesOf(route, gatewayObjects))];
    return [...targets]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, target]) => {
        const from = all.filter((use) => standInName(use.target) === name).map(({ namespace }) => namespace);
        const others = [...new Set(from)].filter((namespace) => namespace !== request.namespace).sort();
        return [backendFor(name, target, request), ...grantsFor(name, others, request)];
      });
  },
  redirected(route, { namespace: home }) {
    const { namespace = '' } = route.metadata;
    return changed(route, (ref) => {
      const target = servicePortOf(ref, namespace);
      if (!target) return ref;
      const { group: _, kind: __, name: ___, namespace: ____, port: _____, ...rest } = ref;
      const place = namespace === home ? {} : { namespace: home };
      return { group: EXTENSIONS, kind: KINDS.backends.kind, name: standInName(target), ...place, ...rest };
    });
  },
  restored(route, objects) {
    const { namespace = '' } = route.metadata;
    return changed(route, (ref) => {
      const backend = backendOf(ref, namespace, objects);
      const target = backend && standsFor(backend);
      if (!target) return ref;
      const { group: _, kind: __, name: ___, namespace: ____, port: _____, ...rest } = ref;
      const place = target.namespace === namespace ? {} : { namespace: target.namespace };
      return { group: '', kind: 'Service', name: target.name, ...place, port: target.port, ...rest };
    });
  },
  pending: (object) => (isBackend(object) ? pendingBackend(object) : pendingRoute(object)),
};

interface TargetUse {
  readonly target: ServicePort;
  /** Of the route. */
  readonly namespace: string;
  /** The Backend by which it leads there; absent: by the Service. */
  readonly backend?: KubeObject | undefined;
}

const isHttpRoute = ({ kind }: KubeObject): boolean => kind === KINDS.httpRoutes.kind;

const usesOf = ({ metadata: { namespace = '' }, spec }: KubeObject, objects: readonly KubeObject[]): TargetUse[] =>
  backendsIn(spec).flatMap((ref) => {
    const backend = backendOf(ref, namespace, objects);
    const target = servicePortOf(ref, namespace) ?? (backend && standsFor(backend));
    return target ? [{ target, namespace, backend }] : [];
  });

function changed({ spec }: KubeObject, change: Parameters<typeof withBackends>[1]) {
  const { rules } = fields(spec);
  let changes = 0;
  const next = withBackends(rules, (ref) => {
    const result = change(ref);
    if (result !== ref) changes += 1;
    return result;
  });
  return changes === 0 ? undefined : { rules: next };
}

/**
 * It names the certificate from the beginning, so that one that is deleted and created again never leads anywhere
 * without it: Envoy Gateway refuses a Backend that has the certificate and no policy.
 */
function backendFor(name: string, target: ServicePort, request: StandInRequest): KubeObject {
  const { namespace, labels, secretName, objects } = request;
  const hostname = `${target.name}.${target.namespace}.svc.cluster.local`;
  const annotations = { [STANDS_FOR_ANNOTATION]: `${target.namespace}/${target.name}:${target.port}` };
  const { apiVersion, kind } = KINDS.backends;
  return {
    apiVersion,
    kind,
    metadata: { name, namespace, labels, annotations },
    spec: {
      endpoints: [{ fqdn: { hostname, port: portAt(target, objects) } }],
      tls: { clientCertificateRef: secretField({ meta: request, spec: { secretName } }) },
    },
  };
}

/** The name of a headless Service leads to its pods, so their port counts. */
function portAt(target: ServicePort, objects: StandInRequest['objects']): number {
  const service = serviceOf(target, objects);
  const named = service && portOf(service, target.port);
  if (!service || !named || 'code' in named) return target.port;
  return dialledPort(service, named, behindIn(target.namespace, objects));
}

/** The most that a ReferenceGrant may have; its definition refuses more. */
const MOST_ENTRIES = 16;

function grantsFor(name: string, namespaces: readonly string[], { namespace, labels }: StandInRequest): KubeObject[] {
  const { apiVersion, kind } = KINDS.grants;
  const to = [{ group: EXTENSIONS, kind: KINDS.backends.kind, name }];
  return Array.from({ length: Math.ceil(namespaces.length / MOST_ENTRIES) }, (_, at) => ({
    apiVersion,
    kind,
    metadata: { name: at === 0 ? name : `${name}.${at + 1}`, namespace, labels },
    spec: {
      from: namespaces
        .slice(at * MOST_ENTRIES, (at + 1) * MOST_ENTRIES)
        .map((one) => ({ group: STANDARD, kind: KINDS.httpRoutes.kind, namespace: one })),
      to,
    },
  }));
}

const title = ({ kind, metadata }: KubeObject): string => `${kind} ${metadata.namespace}/${metadata.name}`;

/** It has no status before a route leads to it. */
function pendingBackend(backend: KubeObject): ReturnType<StandIns['pending']> {
  const refused = conditionsOf(backend.status).find(({ type, status }) => type === 'Accepted' && status === 'False');
  return refused && { why: `${title(backend)} to be accepted: ${String(refused.message)}`, refused: true };
}

/** A status of an earlier generation says nothing. */
function pendingRoute(route: KubeObject): ReturnType<StandIns['pending']> {
  const { generation = 0 } = route.metadata;
  const parents = listOfFields(fields(route.status).parents).filter(({ controllerName }) =>
    text(controllerName)?.startsWith(ENVOY_GATEWAY),
  );
  const wanted = parents.flatMap((parent) => {
    const conditions = conditionsOf(parent);
    return ['Accepted', 'ResolvedRefs'].map((type) => conditions.find((one) => one.type === type));
  });
  const isCurrent = (one: (typeof wanted)[number]) => Number(one?.observedGeneration ?? -1) >= generation;
  if (wanted.length === 0 || !wanted.every(isCurrent)) {
    return { why: `Envoy Gateway to take ${title(route)}`, refused: false };
  }
  const found = wanted.find((one) => one?.status !== 'True');
  const why = `${title(route)} to be accepted: ${String(found?.reason)}: ${String(found?.message)}`;
  return found && { why, refused: true };
}

const conditionsOf = (status: unknown) => listOfFields(fields(status).conditions);

/** On a Backend: the port of a Service for which it stands, `<namespace>/<service>:<port>`. */
const STANDS_FOR_ANNOTATION = 'meshcert.dev/stands-for';

type Ref = Readonly<Record<string, unknown>>;

/** The port of the Service that a Backend stands in for; undefined: it was not made for that. */
function standsFor({ metadata: { annotations } }: KubeObject): ServicePort | undefined {
  const [, namespace, name, port] = /^([^/]+)\/([^/:]+):(\d+)$/.exec(annotations?.[STANDS_FOR_ANNOTATION] ?? '') ?? [];
  return namespace && name ? { namespace, name, port: Number(port) } : undefined;
}

/** The port of a Service that a reference names; undefined: it names something else. */
function servicePortOf(ref: Ref, routeNamespace: string): ServicePort | undefined {
  const { group = '', kind = CORE.services.kind, name, namespace, port } = ref;
  const target = text(name);
  if (group !== '' || kind !== CORE.services.kind || target === undefined) return undefined;
  return { namespace: text(namespace) ?? routeNamespace, name: target, port: Number(port ?? 0) };
}

/** The Backend that a reference names. */
function backendOf(ref: Ref, routeNamespace: string, objects: readonly KubeObject[]): KubeObject | undefined {
  if (ref.group !== EXTENSIONS || ref.kind !== KINDS.backends.kind) return undefined;
  const namespace = text(ref.namespace) ?? routeNamespace;
  return objects.find(
    (one) => isBackend(one) && one.metadata.name === ref.name && one.metadata.namespace === namespace,
  );
}

/** The ports of Services that a route leads to, by itself or by Backends that stand in for them; or what else it leads to. */
function targetsOf(route: KubeObject, objects: readonly KubeObject[]): readonly ServicePort[] | TargetRefusal {
  const { namespace = '' } = route.metadata;
  const found = new Map<string, ServicePort>();
  for (const ref of backendsIn(route.spec)) {
    const backend = backendOf(ref, namespace, objects);
    const target = servicePortOf(ref, namespace) ?? (backend && standsFor(backend));
    if (!target) {
      const what = `${text(ref.kind) ?? CORE.services.kind} ${text(ref.name) ?? ''}`;
      const message = `it leads to ${what}, which onboard did not create and which is no Service; select it by its labels (docs/gateway-api.md, "Backends"), or lead the route to the Service`;
      return { code: 'ERR_TARGET_UNSELECTED', message };
    }
    found.set(titleOf(target), target);
  }
  return [...found.values()];
}

const titleOf = ({ namespace, name, port }: ServicePort): string => `${name}.${namespace}:${port}`;

const serviceOf = ({ namespace, name }: ServicePort, { services }: Pick<RouteObjects, 'services'>) =>
  services.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);

function behindIn(namespace: string, { pods, endpointSlices }: RouteObjects): BehindServices {
  const inPlace = ({ metadata }: KubeObject) => metadata.namespace === namespace;
  return { pods: pods.filter(inPlace), slices: endpointSlices.filter(inPlace) };
}

/** HTTP/2 without TLS: a Backend needs other settings for it. */
const H2C = 'kubernetes.io/h2c';

/** The pods behind these targets. */
function answeringAt(targets: readonly ServicePort[], objects: RouteObjects): readonly Workload[] | TargetRefusal {
  const found = new Map<string, Workload>();
  for (const target of targets) {
    const service = serviceOf(target, objects);
    if (!service) return missing(target);
    const port = portOf(service, target.port);
    if ('code' in port) return port;
    const { appProtocol } = listOfFields(fields(service.spec).ports).find((one) => one.port === target.port) ?? {};
    if (appProtocol === H2C) return http2(`port ${target.port} of Service ${target.namespace}/${target.name}`);
    const pods = workloadsBehind(service, port, behindIn(target.namespace, objects));
    if ('code' in pods) return pods;
    for (const { workload } of pods) found.set(`${workload.namespace}/${workload.name}`, workload);
  }
  return [...found.values()];
}

const http2 = (what: string): TargetRefusal => ({
  code: 'ERR_TARGET_PROTOCOL',
  message: `${what} needs HTTP/2, for which onboard makes no Backend; write it by hand (docs/gateway-api.md, "Backends")`,
});

const isRoute = ({ kind }: KubeObject): boolean => kind === KINDS.httpRoutes.kind || kind === KINDS.grpcRoutes.kind;

/** Namespaces with the Services that routes lead to. */
const namespacesBehindRoutes = ({ gatewayObjects }: ClusterLists): string[] => {
  const backends = gatewayObjects.filter(isBackend).flatMap((one) => standsFor(one)?.namespace ?? []);
  const services = gatewayObjects
    .filter(isRoute)
    .flatMap(({ metadata, spec }) =>
      backendsIn(spec).flatMap((ref) => servicePortOf(ref, metadata.namespace ?? '')?.namespace ?? []),
    );
  return [...backends, ...services];
};

/** The routes of a Gateway that lead somewhere. */
const upstreamsOf = ({ object }: GatewayInstallation, objects: RouteObjects): RouteUpstream[] =>
  objects.gatewayObjects
    .filter((route) => isRoute(route) && parentsOf(route).some((parent) => isParent(parent, object)))
    .filter(({ spec }) => backendsIn(spec).length > 0)
    .map((route) => upstreamOf(route, objects));

function upstreamOf(route: KubeObject, objects: RouteObjects): RouteUpstream {
  const { namespace = '' } = route.metadata;
  const targets = targetsOf(route, objects.gatewayObjects);
  const service = 'code' in targets ? namesIn(route) : targets.map(titleOf).join(', ');
  const backend = backendsIn(route.spec).flatMap((ref) => backendOf(ref, namespace, objects.gatewayObjects) ?? [])[0];
  return {
    route,
    service,
    address: service,
    now: backend ? `Backend ${backend.metadata.name}` : 'by its Service',
    answering:
      refusalOf(route, objects.gatewayObjects) ?? ('code' in targets ? targets : answeringAt(targets, objects)),
    requests: requestsOf(route),
  };
}

const namesIn = ({ spec }: KubeObject): string =>
  backendsIn(spec)
    .map(({ name }) => String(name))
    .join(', ');

/** Why a route is not led elsewhere. */
function refusalOf(route: KubeObject, objects: readonly KubeObject[]): TargetRefusal | undefined {
  if (route.kind === KINDS.grpcRoutes.kind) return http2('a GRPCRoute');
  for (const parent of parentsOf(route)) {
    const gateway = objects.find((one) => isGateway(one) && isParent(parent, one));
    if (gateway && !classProblem(gateway, objects)) continue;
    const message = `it also belongs to ${parent.kind} ${parent.namespace}/${parent.name}, which is no Gateway of Envoy Gateway and does not know Backends; give that one a route of its own`;
    return { code: 'ERR_TARGET_CLASS', message };
  }
  return undefined;
}

interface Parent {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

const parentsOf = ({ metadata, spec }: KubeObject): readonly Parent[] =>
  listOfFields(fields(spec).parentRefs).map(({ group = STANDARD, kind = KINDS.gateways.kind, namespace, name }) => ({
    kind: group === STANDARD || group === '' ? String(kind) : `${String(kind)} of ${String(group)}`,
    namespace: text(namespace) ?? metadata.namespace ?? '',
    name: String(name),
  }));

const isParent = ({ kind, namespace, name }: Parent, gateway: KubeObject): boolean =>
  kind === gateway.kind && name === gateway.metadata.name && namespace === gateway.metadata.namespace;

/** A route can have many rules; these show whether each target still answers. */
const MOST_REQUESTS = 8;

/** One for each rule, unless the rule demands what cannot be guessed. */
function requestsOf({ spec }: KubeObject): RouteUpstream['requests'] {
  const { rules, hostnames } = fields(spec);
  const names = Array.isArray(hostnames) ? hostnames.map(String) : [];
  const host = names.find((one) => !one.includes('*')) ?? names[0]?.replace('*', 'www');
  const requests = listOfFields(rules).flatMap(({ matches }) => {
    const [match] = listOfFields(matches);
    const { path, method = 'GET', ...more } = fields(match);
    const { type, value } = fields(path);
    if ((method !== 'GET' && method !== 'HEAD') || Object.keys(more).length > 0 || type === 'RegularExpression')
      return [];
    return [{ method, path: text(value) ?? '/', host, headers: {} } as const];
  });
  return requests.length > 0 ? requests.slice(0, MOST_REQUESTS) : 'no rule of it matches a simple GET';
}

/** Envoy Gateway: a Backend stands in for each Service, presents the certificate, and verifies who answers. */
export const gatewayApiOnboarding: Onboarding<GatewayApiConfig> = {
  wording,
  routes: [KINDS.httpRoutes, KINDS.grpcRoutes],
  reads: [KINDS.gateways, KINDS.classes, KINDS.backends, KINDS.grants],
  configMaps: [CONFIGURATION],
  own: ({ namespace }) => [
    { resource: KINDS.policies },
    { resource: CORE.configMaps },
    { resource: KINDS.envoyProxies, namespace },
    { resource: KINDS.grants, namespace },
  ],

  installations: installationsOf,
  settings: ({ object }) => [`GatewayClass ${text(fields(object.spec).gatewayClassName) ?? 'none'}`],
  notes: () => [],

  namespacesBehind: namespacesBehindRoutes,
  upstreams: upstreamsOf,

  specFor,
  extended(spec, request) {
    const before = fields(spec.gatewayApi);
    const backends = fields(before.backends);
    if (before.backends === undefined) return spec;
    const known = Array.isArray(backends.namespaces) ? backends.namespaces.map(String) : [];
    const namespaces = [...new Set([...known, ...namespacesOf(request)])].sort();
    if (namespaces.length === known.length) return spec;
    return { ...spec, gatewayApi: { ...before, backends: { ...backends, namespaces } } };
  },
  named: {},
  selector: ({ backends }) => backends?.selector.matchLabels,
  preparation: () => ({}),
  objectsFirst: true,
  // Envoy serves a changed cluster after 15 s, because the endpoints that it waits for never come.
  settleMs: 20_000,
  standIns,
  client: () => ({}),

  uses(route, own) {
    const { namespace = '' } = route.metadata;
    const covered = own.flatMap((one) => {
      const policy = policyTarget(one);
      if (policy) return [`${policy.of} ${policy.namespace}/${policy.name}`];
      return isBackend(one) ? [`${one.kind} ${one.metadata.namespace}/${one.metadata.name}`] : [];
    });
    return backendsIn(route.spec).some(({ kind = CORE.services.kind, namespace: place, name }) =>
      covered.includes(`${String(kind)} ${text(place) ?? namespace}/${String(name)}`),
    );
  },
  released: () => undefined,
  deselected: () => undefined,
};
