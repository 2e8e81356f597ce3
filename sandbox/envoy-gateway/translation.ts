import {
  BACKEND,
  bundleText,
  type GatewayApiWorld,
  namedCertificate,
  type SeenBackend,
  type SeenGateway,
  type SeenPolicy,
  worldOf,
} from '../../src/gateway/gateway-api/diagnosis.ts';
import { isGranted } from '../../src/gateway/gateway-api/routes.ts';
import { decodeData } from '../../src/gateway/publication.ts';
import { fields, type KubeObject, listOfFields, text } from '../../src/objects/objects.ts';

/** A pair, or roots, as the control plane sends them to its proxies: unchecked. */
export interface ProxySecret {
  readonly certificate?: string | undefined;
  readonly key?: string | undefined;
  readonly roots?: string | undefined;
}

export interface ProxyTls {
  readonly sni: string;
  /** One of these must be in the server's certificate: `URI:…` or `DNS:…`. */
  readonly names: readonly string[];
  /** Names of secrets. */
  readonly roots: string;
  readonly client: string | undefined;
  readonly alpn: readonly string[];
}

export interface ProxyCluster {
  readonly name: string;
  /** `SERVICE.NAMESPACE` or an address. */
  readonly host: string;
  readonly port: number;
  readonly tls: ProxyTls | undefined;
}

export interface ProxyRoute {
  readonly prefix: string;
  /** Absent: every request is answered with 500. */
  readonly cluster: ProxyCluster | undefined;
}

/** What the proxies of one Gateway get. */
export interface ProxyConfiguration {
  readonly routes: readonly ProxyRoute[];
  readonly secrets: ReadonlyMap<string, ProxySecret>;
}

/** A refusal of a policy, or none, in the words of Envoy Gateway. */
export interface PolicyStatus {
  readonly policy: KubeObject;
  readonly gateway: KubeObject;
  readonly conditions: readonly Readonly<Record<string, unknown>>[];
}

export interface GatewayStatus {
  readonly gateway: KubeObject;
  readonly conditions: readonly Readonly<Record<string, unknown>>[];
}

/** The status of an object of somebody else's, whole. */
export interface ObjectStatus {
  readonly object: KubeObject;
  readonly status: object;
}

export interface Translation {
  /** By `namespace/name` of the Gateway. */
  readonly proxies: ReadonlyMap<string, ProxyConfiguration>;
  readonly policies: readonly PolicyStatus[];
  readonly gateways: readonly GatewayStatus[];
  /** Of HTTPRoutes and Backends. */
  readonly others: readonly ObjectStatus[];
}

/** The name under which it writes into statuses. */
export const CONTROLLER_NAME = 'gateway.envoyproxy.io/gatewayclass-controller';

/** What Envoy offers where nothing is configured. */
const DEFAULT_ALPN = ['http/1.1'];

/** What Envoy Gateway 1.9.1 makes of these objects. */
export function translate(objects: readonly KubeObject[], now: number): Translation {
  const world = worldOf({ objects, now, adapters: [], whole: new Set() });
  const proxies = new Map<string, ProxyConfiguration>();
  for (const seen of world.gateways) proxies.set(keyOf(seen.object), configurationOf(seen, world));
  return {
    proxies,
    policies: policyStatuses(world),
    others: [...routeStatuses(world), ...backendStatuses(world)],
    gateways: world.gateways.map(({ object, client }) => ({
      gateway: object,
      conditions:
        client?.holder !== object
          ? []
          : [condition('ResolvedRefs', object, gatewayProblem(world, object, client.secret))],
    })),
  };
}

export const keyOf = ({ metadata }: KubeObject): string => `${metadata.namespace}/${metadata.name}`;

function configurationOf(seen: SeenGateway, world: GatewayApiWorld): ProxyConfiguration {
  const secrets = new Map<string, ProxySecret>();
  const routes = world
    .all('HTTPRoute')
    .flatMap((route) =>
      listOfFields(fields(route.spec).rules).flatMap((rule, at) => {
        const [ref] = listOfFields(rule.backendRefs);
        const backend = world.backends.find(
          (one) =>
            one.route === route &&
            one.gateways.includes(seen) &&
            one.name === ref?.name &&
            one.namespace === (text(ref.namespace) ?? route.metadata.namespace) &&
            (typeof ref.port !== 'number' || one.port === ref.port),
        );
        if (!backend) return [];
        const [match] = listOfFields(rule.matches);
        const prefix = text(fields(match?.path).value) ?? '/';
        return [{ prefix, cluster: clusterOf(backend, seen, at, world, secrets) }];
      }),
    )
    .sort((a, b) => b.prefix.length - a.prefix.length);
  return { routes, secrets };
}

function clusterOf(
  backend: SeenBackend,
  { object, client, proxy }: SeenGateway,
  rule: number,
  world: GatewayApiWorld,
  secrets: Map<string, ProxySecret>,
): ProxyCluster | undefined {
  const { route, kind, policy, ...ref } = backend;
  const target = world.find(kind, ref);
  if (
    !target ||
    (ref.namespace !== route.metadata.namespace && !isGranted(world.all('ReferenceGrant'), route, { kind, ...ref }))
  )
    return undefined;
  const [endpoint = {}] = listOfFields(fields(target.spec).endpoints);
  const { hostname, address, port } = { ...fields(endpoint.ip), ...fields(endpoint.fqdn) };
  const place =
    kind === 'Service'
      ? { host: `${ref.name}.${ref.namespace}`, port: ref.port ?? 0 }
      : { host: String(hostname ?? address).replace(/\.svc\.cluster\.local$/, ''), port: Number(port) };
  // Of the rule: a rule that leads elsewhere is a changed cluster, and the old one serves meanwhile.
  const name = `${route.kind.toLowerCase()}/${keyOf(route)}/rule/${rule}`;
  // A Backend with TLS settings and without a policy is refused.
  if (!policy) return namedCertificate(target) ? undefined : { name, ...place, tls: undefined };

  const roots = rootsOf(world, policy);
  if (!roots) return undefined;
  const rootsName = `${keyOf(policy.object)}-ca`;
  secrets.set(rootsName, { roots });
  const own = world.certificates.find(({ holder }) => holder === target) ?? client;
  const isGateway = own?.holder === object;
  const secret = own && world.find('Secret', own.secret);
  const usable = isGateway ? secret && gatewayProblem(world, object, own.secret) === undefined : secret;
  if (own && !usable && !isGateway) return undefined;
  const clientName = own && usable ? `${own.secret.namespace}/${own.secret.name}` : undefined;
  if (clientName && secret) {
    const data = decodeData(secret);
    secrets.set(clientName, { certificate: data['tls.crt'], key: data['tls.key'] });
  }
  const settings = own?.holder === target ? fields(target.spec).tls : fields(proxy?.spec).backendTLS;
  const { alpnProtocols } = isGateway ? {} : fields(settings);
  return {
    name,
    ...place,
    tls: {
      sni: policy.hostname,
      names:
        policy.names.length === 0
          ? [`DNS:${policy.hostname}`]
          : policy.names.map((one) => (one.includes('://') ? `URI:${one}` : `DNS:${one}`)),
      roots: rootsName,
      client: clientName,
      alpn: Array.isArray(alpnProtocols) ? alpnProtocols.map(String) : DEFAULT_ALPN,
    },
  };
}

/** Envoy Gateway does not look at the text. */
function rootsOf({ find }: GatewayApiWorld, { bundles }: SeenPolicy): string | undefined {
  const texts = bundles.flatMap((ref) => {
    const bundle = find('ConfigMap', ref);
    return (bundle && bundleText(bundle)) ?? [];
  });
  return texts.length === 0 ? undefined : texts.join('\n');
}

/** The reason of `ResolvedRefs=False` for the certificate that a Gateway names itself, or undefined. */
function gatewayProblem(
  world: GatewayApiWorld,
  gateway: KubeObject,
  secret: { readonly namespace: string; readonly name: string },
): string | undefined {
  const isFar = secret.namespace !== gateway.metadata.namespace;
  if (isFar && !isGranted(world.all('ReferenceGrant'), gateway, { kind: 'Secret', ...secret }))
    return 'RefNotPermitted';
  const found = world.find('Secret', secret);
  const data = found && decodeData(found);
  return data?.['tls.crt'] && data['tls.key'] ? undefined : 'InvalidClientCertificateRef';
}

/** One entry for each Gateway of a route. */
function routeStatuses(world: GatewayApiWorld): ObjectStatus[] {
  return world.all('HTTPRoute').flatMap((object) => {
    const used = world.backends.filter(({ route }) => route === object);
    const reasons = used.map(({ kind, namespace, name }) => {
      const target = world.find(kind, { namespace, name });
      if (!target) return 'BackendNotFound';
      const isFar = namespace !== object.metadata.namespace;
      if (isFar && !isGranted(world.all('ReferenceGrant'), object, { kind, namespace, name })) return 'RefNotPermitted';
      return isRefused(world, target) ? 'InvalidBackendTLS' : undefined;
    });
    const parents = [...new Set(used.flatMap(({ gateways }) => gateways))].map(({ object: { metadata } }) => ({
      parentRef: {
        group: 'gateway.networking.k8s.io',
        kind: 'Gateway',
        namespace: metadata.namespace,
        name: metadata.name,
      },
      controllerName: CONTROLLER_NAME,
      conditions: [
        condition('Accepted', object, undefined),
        condition(
          'ResolvedRefs',
          object,
          reasons.find((reason) => reason !== undefined),
        ),
      ],
    }));
    return parents.length === 0 ? [] : [{ object, status: { parents } }];
  });
}

/** A Backend with TLS settings needs a policy. */
const isRefused = ({ policies }: GatewayApiWorld, backend: KubeObject): boolean =>
  namedCertificate(backend) !== undefined &&
  !policies.some(({ targets }) =>
    targets.some(
      ({ kind, namespace, name }) =>
        kind === backend.kind && namespace === backend.metadata.namespace && name === backend.metadata.name,
    ),
  );

/** A Backend to which no route leads gets no status. */
const backendStatuses = (world: GatewayApiWorld): ObjectStatus[] =>
  world.all(BACKEND).flatMap((object) => {
    const { name, namespace } = object.metadata;
    const isUsed = world.backends.some(
      (one) => one.kind === BACKEND && one.name === name && one.namespace === namespace && one.gateways.length > 0,
    );
    if (!isUsed) return [];
    const reason = isRefused(world, object) ? 'Invalid' : undefined;
    return { object, status: { conditions: [condition('Accepted', object, reason)] } };
  });

/** A policy that no route of a Gateway uses gets no status. */
function policyStatuses(world: GatewayApiWorld): PolicyStatus[] {
  const statuses: PolicyStatus[] = [];
  for (const policy of world.policies) {
    for (const { object: gateway } of world.gateways) {
      const backends = world.backends.filter(({ gateways }) => gateways.some((one) => one.object === gateway));
      const isUsed = backends.some((one) => one.policy === policy);
      const isBeaten = backends.some(
        (one) => one.policy !== policy && policy.targets.some((target) => equals(target, one)),
      );
      if (!isUsed && !isBeaten) continue;
      const about = (type: string, reason: string | undefined) => condition(type, policy.object, reason);
      const isWithout = rootsOf(world, policy) === undefined;
      const accepted = isUsed ? (isWithout ? 'NoValidCACertificate' : undefined) : 'Conflicted';
      const resolved = about('ResolvedRefs', isWithout ? 'InvalidCACertificateRef' : undefined);
      const conditions = isUsed ? [about('Accepted', accepted), resolved] : [about('Accepted', accepted)];
      statuses.push({ policy: policy.object, gateway, conditions });
    }
  }
  return statuses;
}

/** Whether another policy for exactly this port counts; one for the whole Service is passed over without a word. */
const equals = (target: SeenPolicy['targets'][number], backend: SeenBackend): boolean =>
  target.kind === backend.kind &&
  target.namespace === backend.namespace &&
  target.name === backend.name &&
  target.section !== undefined &&
  target.section === backend.portName;

const condition = (type: string, { metadata }: KubeObject, reason: string | undefined) => ({
  ...{ type, status: reason === undefined ? 'True' : 'False', reason: reason ?? type },
  message: reason === undefined ? `${type}.` : `${type} is not possible: ${reason}.`,
  observedGeneration: metadata.generation ?? 1,
});
