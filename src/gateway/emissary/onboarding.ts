import { labelsOf, type TargetRefusal, type Workload, workloadSpec } from '../../mesh/cluster.ts';
import { fields, type KubeObject, OWNER_LABEL, text } from '../../objects/objects.ts';
import type {
  ClusterLists,
  GatewayInstallation,
  JoinRequest,
  Onboarding,
  OnboardingWording,
  RouteObjects,
  RouteUpstream,
} from '../gateway.ts';
import { ownerLabel } from '../publication.ts';
import {
  contextNameProblem,
  type EmissaryConfig,
  EMISSARY_RESOURCES as KINDS,
  MAPPING_FIELD_MANAGER,
} from './config.ts';
import {
  type ContextSpec,
  contextSpec,
  type EmissaryEnv,
  findGateways,
  mappingSpec,
  moduleSettings,
  parseService,
  seesMapping,
} from './reading.ts';
import { podsBehind, serviceOf, setsTls } from './routes.ts';

const wording: OnboardingWording = {
  absent: 'no Deployment or DaemonSet runs an image of Emissary-ingress or Edge Stack',
  route: 'Mapping',
  routes: 'Mappings',
  selector: 'mappings.selector',
  namespaces: 'mappings.namespaces',
  blocked: 'whose spec.tls another client set',
  cost: 'Emissary changes the route before Envoy has prepared the new cluster: one to five requests for each Mapping can be answered with 503, in a measurement 2 of 3,958. Let clients repeat requests, or choose a quiet hour.',
  released: 'no longer has the spec.tls of the agent',
  inUse: (list) =>
    `spec.tls of ${list} still names the TLSContext, and another client set it; without the TLSContext the gateway could use plaintext. Remove spec.tls there and run this again; until then, the certificate is renewed`,
};

const NOTHING: Partial<ContextSpec> = {};

/** Whether one gateway reads both, by their `ambassador_id`. */
const haveGateway = (some: unknown, others: unknown): boolean => {
  const ids = (value: unknown) => [value ?? []].flat().map(String);
  const [one, other] = [some, others].map((value) => (ids(value).length === 0 ? ['default'] : ids(value)));
  return [one, other].some((list) => list?.includes('_automatic_')) || one?.some((id) => other?.includes(id)) === true;
};

/** A gateway that runs here, and how it reads objects. */
interface EmissaryInstallation extends GatewayInstallation {
  readonly product: 'Emissary-ingress' | 'Edge Stack';
  readonly env: EmissaryEnv;
}

export function installationsOf({ workloads, gatewayObjects }: ClusterLists): EmissaryInstallation[] {
  const modules = gatewayObjects.filter(({ kind }) => kind === 'Module');
  return findGateways(workloads).map(({ object, image, env }) => ({
    object,
    workload: object,
    product: productOf(object, image),
    version: env.version,
    home: env.namespace,
    serviceAccount: workloadSpec(object).template?.spec?.serviceAccountName ?? 'default',
    gapMs: 2 * env.batchMs,
    env: { ...env, module: moduleSettings(modules, env) },
  }));
}

/** By the image: the chart of Emissary itself sets the label `product: aes`. */
function productOf(workload: KubeObject, image: string): EmissaryInstallation['product'] {
  const labels = labelsOf(workload);
  const edge = /(^|\/)aes(:|@|$)/.test(image) || /edge-stack/.test(JSON.stringify(labels));
  return edge ? 'Edge Stack' : 'Emissary-ingress';
}

/** Fields of a new MeshCertificate for the Mappings of this gateway. */
function specFor(request: JoinRequest<EmissaryInstallation>): Readonly<Record<string, unknown>> {
  const { installation, name, namespaces } = request;
  const { ambassadorId, labelSelector } = installation.env;
  const contextName = freeContextName(request);
  const tlsContext = {
    ...(contextName === name ? {} : { name: contextName }),
    ...(ambassadorId === 'default' ? {} : { ambassadorIds: [ambassadorId] }),
  };
  const labels = selectorLabels(labelSelector);
  const elsewhere = namespaces.some((one) => one !== installation.home);
  return {
    ...(Object.keys(tlsContext).length > 0 ? { tlsContext } : {}),
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    mappings: {
      selector: { matchLabels: request.labels },
      ...(elsewhere ? { namespaces: [...new Set(namespaces)].sort() } : {}),
    },
  };
}

/** Extended by the namespaces of Mappings that came since, or by this gateway if it was not used so far. */
function extendedSpec(
  spec: Readonly<Record<string, unknown>>,
  request: JoinRequest<EmissaryInstallation>,
): Readonly<Record<string, unknown>> {
  if (spec.mappings === undefined && fields(spec.tlsContext).enabled === false) {
    const { tlsContext: _, ...others } = spec;
    return { ...others, ...specFor(request) };
  }
  const mappings = fields(spec.mappings);
  const before = Array.isArray(mappings.namespaces) ? mappings.namespaces.map(String) : [request.installation.home];
  const namespaces = [...new Set([...before, ...request.namespaces])].sort();
  if (mappings.selector === undefined || namespaces.length === before.length) return spec;
  return { ...spec, mappings: { ...mappings, namespaces } };
}

/** The labels without which this gateway would ignore our objects: the equalities of its selector. */
function selectorLabels(selector: EmissaryEnv['labelSelector']): Record<string, string> {
  const terms = (selector ?? '').split(',').map((term) => /^\s*([^=!\s]+)\s*==?\s*(\S+)\s*$/.exec(term));
  return Object.fromEntries(terms.flatMap((match) => (match?.[1] && match[2] ? [[match[1], match[2]]] : [])));
}

/** Names of contexts are global: the mesh's own, unless it is taken. */
function freeContextName({ name, installation, gatewayObjects }: JoinRequest<EmissaryInstallation>): string {
  const owner = ownerLabel({ namespace: installation.home, name });
  const isForeign = ({ kind, metadata }: KubeObject) =>
    kind === 'TLSContext' && metadata.labels?.[OWNER_LABEL] !== owner;
  const taken = new Set(gatewayObjects.filter(isForeign).map(({ metadata }) => metadata.name));
  const candidates = [name, `${name}-mtls`, `meshcert-${name}`];
  return candidates.find((one) => !taken.has(one) && !contextNameProblem(one)) ?? `${name}-${installation.home}`;
}

const isMapping = ({ kind }: KubeObject): boolean => kind === 'Mapping' || kind === 'TCPMapping';

/** Namespaces with the Services that Mappings lead to. */
const namespacesBehindMappings = ({ gatewayObjects }: ClusterLists): string[] =>
  gatewayObjects.filter(isMapping).flatMap((mapping) => {
    const name = serviceOf(mapping);
    return 'code' in name ? [] : [name.namespace];
  });

const upstreamsOf = ({ env }: EmissaryInstallation, objects: RouteObjects): RouteUpstream[] =>
  objects.gatewayObjects
    .filter((object) => isMapping(object) && seesMapping(object, env))
    .map((mapping) => upstreamOf(mapping, objects));

function upstreamOf(mapping: KubeObject, objects: RouteObjects): RouteUpstream {
  const { service, tls } = mappingSpec(mapping);
  const { host, port } = dialled(mapping);
  const secure = tls !== undefined || parseService(service).scheme === 'https';
  // A short name has another meaning outside of the Mapping's namespace.
  const qualified = /[.:]/.test(host) ? host : `${host}.${mapping.metadata.namespace}`;
  return {
    route: mapping,
    service,
    address: `${qualified}:${port}`,
    now: typeof tls === 'string' ? `TLSContext ${tls}` : secure ? 'TLS without identity' : 'plaintext',
    answering: answering(mapping, objects),
    requests: requestsOf(mapping),
  };
}

/** Requests that this Mapping demands, unless it demands what cannot be guessed. */
function requestsOf({ kind, spec }: KubeObject): RouteUpstream['requests'] {
  const wanted = fields(spec);
  const hostname = text(wanted.hostname) ?? text(wanted.host);
  if (kind === 'TCPMapping') return [{ port: Number(wanted.port), host: text(wanted.host) }];
  const method = wanted.method ?? 'GET';
  if (method !== 'GET' && method !== 'HEAD') return `it serves ${String(method)} only, which can change something`;
  const guessed = ['prefix_regex', 'host_regex', 'method_regex', 'regex_headers', 'regex_query_parameters'];
  const regex = guessed.find((field) => wanted[field]);
  if (regex) return `it has ${regex}`;
  // True demands any value.
  const valuesOf = (map: unknown) =>
    Object.entries(fields(map)).map(([name, value]): [string, string] => [name, value === true ? '1' : String(value)]);
  const query = new URLSearchParams(valuesOf(wanted.query_parameters)).toString();
  const path = text(wanted.prefix) ?? '/';
  return [
    {
      method,
      path: query === '' ? path : `${path}?${query}`,
      host: hostname === '*' ? undefined : hostname?.replaceAll('*', 'www'),
      headers: Object.fromEntries(valuesOf(wanted.headers)),
    },
  ];
}

/** With the default port, which depends on `spec.tls`. */
function dialled(mapping: KubeObject): { readonly host: string; readonly port: number } {
  const { service, tls } = mappingSpec(mapping);
  const { scheme, host, port } = parseService(service);
  return { host, port: port ?? (tls !== undefined || scheme === 'https' ? 443 : 80) };
}

function answering(mapping: KubeObject, objects: RouteObjects): readonly Workload[] | TargetRefusal {
  const { service, resolver } = mappingSpec(mapping);
  const { errors } = parseService(service);
  if (errors.length > 0 && mapping.kind !== 'TCPMapping') {
    return { code: 'ERR_TARGET_SERVICE_SYNTAX', message: errors.join('; ') };
  }
  const name = serviceOf(mapping);
  if ('code' in name) {
    const resolved = resolver === undefined ? '' : ` (its resolver is ${resolver})`;
    return { code: name.code, message: `${name.message}${resolved}` };
  }
  const pods = podsBehind(name, dialled(mapping).port, objects);
  return 'code' in pods ? pods : pods.map(({ workload }) => workload);
}

/** The upstream with scheme and port, so that nothing depends on their defaults. */
function explicitService(mapping: KubeObject): string {
  const { host, port } = dialled(mapping);
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

export const emissaryOnboarding: Onboarding<EmissaryConfig, EmissaryInstallation> = {
  wording,
  routes: [KINDS.mappings, KINDS.tcpMappings],
  reads: [KINDS.modules],
  configMaps: [],
  own: ({ namespace }) => [{ resource: KINDS.tlsContexts, namespace }],

  installations: installationsOf,
  settings({ env }) {
    const watched = env.singleNamespace ? `watches only namespace ${env.namespace}` : 'watches all namespaces';
    const selector = env.labelSelector === undefined ? [] : [`objects with ${env.labelSelector}`];
    return [`AMBASSADOR_ID ${env.ambassadorId}`, watched, ...selector];
  },
  notes({ env: { labelSelector, istioSecretDir } }) {
    const expressed = Object.keys(selectorLabels(labelSelector)).length;
    const terms = (labelSelector ?? '').split(',').filter(Boolean).length;
    return [
      ...(expressed < terms
        ? [
            `AMBASSADOR_LABEL_SELECTOR ${labelSelector} has more than equality requirements: add matching labels with --set labels.KEY=VALUE`,
          ]
        : []),
      ...(istioSecretDir
        ? ['AMBASSADOR_ISTIO_SECRET_DIR is set: its files are no longer needed once Mappings have moved']
        : []),
    ];
  },

  namespacesBehind: namespacesBehindMappings,
  upstreams: upstreamsOf,

  specFor,
  extended: extendedSpec,
  named: { tlsContext: {} },
  selector: ({ mappings }) => mappings?.selector.matchLabels,
  preparation: (mapping) => ({ service: explicitService(mapping) }),
  objectsFirst: true,
  settleMs: 10_000,
  client(_config, context, id) {
    const { alpnProtocols, minTlsVersion, maxTlsVersion } = context ? contextSpec(context) : NOTHING;
    return {
      ...(id === undefined ? {} : { sni: id }),
      ...(alpnProtocols === undefined ? {} : { alpnProtocols }),
      ...(minTlsVersion === undefined ? {} : { minTlsVersion }),
      ...(maxTlsVersion === undefined ? {} : { maxTlsVersion }),
    };
  },

  uses(mapping, contexts, all) {
    const { tls, ambassadorId } = mappingSpec(mapping);
    const isNamed = (one: KubeObject) =>
      one.kind === KINDS.tlsContexts.kind &&
      one.metadata.name === tls &&
      haveGateway(contextSpec(one).ambassadorId, ambassadorId);
    const named = contexts.filter(isNamed);
    const isBeside = ({ metadata }: KubeObject) => metadata.namespace === mapping.metadata.namespace;
    if (named.length === 0 || named.some(isBeside)) return named.length > 0;
    // Names are global in one gateway. The gateway of another namespace may have a context of that name itself.
    return !all.some((one) => isNamed(one) && isBeside(one));
  },
  released(mapping) {
    if (!setsTls(mapping)) return undefined;
    const { tls: _, ...spec } = fields(mapping.spec);
    return { route: { ...mapping, spec }, fieldManager: MAPPING_FIELD_MANAGER };
  },
  deselected: ({ mappings }) => (mappings === undefined ? undefined : { mappings: null }),
};
