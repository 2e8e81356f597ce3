import { isDeepStrictEqual } from 'node:util';
import { consentRefusal } from '../../core/consent.ts';
import type { PeerName, TargetRefusal } from '../../mesh/cluster.ts';
import {
  fields,
  hasApplied,
  hasLabels,
  type KubeObject,
  keyOf,
  listOfFields,
  OWNER_LABEL,
  text,
} from '../../objects/objects.ts';
import {
  type GatewayInput,
  type ObservedObjects,
  type RouteDestination,
  type RouteInput,
  type Routes,
  type RouteVerdict,
  routeRefusal,
  type Scope,
  type SecretUse,
} from '../gateway.ts';
import { ownerLabel } from '../publication.ts';
import {
  backendPlaces,
  CLIENT_FIELD_MANAGER,
  CORE_RESOURCES as CORE,
  CORE_RESOURCES,
  ENVOY_GATEWAY,
  EXTENSIONS,
  type GatewayApiConfig,
  type GatewayApiRefusal,
  type GatewayApiTarget,
  gatewayPlaces,
  grantablePlaces,
  GATEWAY_API_RESOURCES as KINDS,
  type PolicyTarget,
  policyPlaces,
  routePlaces,
  scopesIn,
  servicePlaces,
} from './config.ts';
import { grantRef, policyRef, revisionWanted, secretField, secretRef } from './objects.ts';
import {
  aliasRefusal,
  behindServices,
  destinationOf,
  dialledPort,
  foreignPolicy,
  givenPeers,
  identitiesOf,
  kept,
  type NamedPort,
  namedPorts,
  type Peers,
  type PolicyJudgement,
  type PolicySituation,
  peersFrom,
  peersOf,
  policyTarget,
  policyVerdict,
  situationOf,
  unseen,
  unservedKind,
  writtenFor,
} from './policies.ts';

/** Gateways, EnvoyProxies and Backends, which present the certificate, and Services and Backends, which are verified. */
export const gatewayApiRoutes: Routes<GatewayApiConfig, GatewayApiTarget> = {
  scopes({ meta: { namespace: own }, config }) {
    // Those of its own namespace may name the Secret, whatever is configured now.
    const clients: readonly Scope[] = [
      ...scopesIn([own, ...gatewayPlaces(config, own)], { resource: KINDS.gateways }),
      ...scopesIn([own], { resource: KINDS.envoyProxies }),
      ...scopesIn([own, ...backendPlaces(config, own)], { resource: KINDS.backends }),
    ];
    const policies = policyPlaces(config, own);
    return {
      routes: [...clients, ...scopesIn(servicePlaces(config, own), { resource: CORE.services })],
      own: [
        ...scopesIn(policies, { resource: CORE.configMaps, name: config.caConfigMapName }),
        ...clients,
        ...(grantablePlaces(config, own).length > 0 ? scopesIn([own], { resource: KINDS.grants }) : []),
        ...scopesIn(policies, { resource: KINDS.policies }),
      ],
    };
  },
  concern(input, own) {
    const { gateways, services, backends } = input.config;
    const covered = new Set(own.map(coveredBy));
    const isSelected = (object: KubeObject, of: typeof gateways | typeof services | typeof backends) =>
      of !== undefined && hasLabels(object, of.selector.matchLabels);
    return (object) => {
      const { kind, metadata } = object;
      if (isGateway(object)) return isSelected(object, gateways) || presents(object, input);
      if (isEnvoyProxy(object)) return metadata.labels?.[OWNER_LABEL] !== ownerLabel(input.meta);
      if (covered.has(`${kind}/${metadata.namespace}/${metadata.name}`)) return true;
      return isBackend(object) ? isSelected(object, backends) || presents(object, input) : isSelected(object, services);
    };
  },
  behind(input, { routes }) {
    const { meta, config } = input;
    const places = (objects: readonly KubeObject[]) => objects.map(({ metadata }) => metadata.namespace ?? '');
    const services = places(routes.filter(isService));
    const backends = routes.filter(isBackend);
    const upstreams = backends.flatMap(endpointsOf).flatMap(({ service }) => service?.namespace ?? []);
    const sorted = (all: readonly string[]) => [...new Set(all)].sort();
    return [
      { resource: KINDS.classes },
      ...[KINDS.httpRoutes, KINDS.grpcRoutes].flatMap((resource) =>
        scopesIn(routePlaces(config, meta.namespace), { resource }),
      ),
      ...scopesIn(sorted(upstreams), { resource: CORE.services }),
      ...scopesIn(sorted([...services, ...upstreams]), { resource: CORE.pods }),
      ...scopesIn(sorted([...services, ...upstreams]), { resource: CORE.endpointSlices }),
      ...scopesIn(sorted([...services, ...places(backends)]), { resource: KINDS.policies }),
    ];
  },
  judge(input, observed) {
    const clients = judgeClients(input, observed);
    const situation = situationOf(input, observed);
    const backends = judgeBackends(situation, clients.isReady);
    const policies = [...judgeServices(situation, clients.isReady), ...backends.flatMap(({ policy }) => policy ?? [])];
    const needed = new Map<string, PolicyTarget>();
    for (const { target } of policies) if (target) needed.set(keyOf(policyRef(input, target)), target);
    const present = new Set(
      observed.routes.map(({ kind, metadata }) => `${kind}/${metadata.namespace}/${metadata.name}`),
    );
    for (const [key, target] of situation.written) {
      const isGone = !present.has(`${target.of}/${target.namespace}/${target.name}`);
      if (isGone && situation.isUsed(target, undefined)) needed.set(key, target);
    }
    const sorted = [...needed].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, target]) => target);
    return {
      verdicts: [
        ...clients.verdicts,
        ...backends.flatMap(({ client }) => client ?? []),
        ...policies.map(({ verdict }) => verdict),
      ],
      targets: [...clients.targets, ...revisions(observed.own, sorted), ...sorted],
    };
  },
  identities: () => [],
};

/** The bundles that were asked to be written with other bytes. */
function revisions(own: readonly KubeObject[], policies: readonly PolicyTarget[]): readonly GatewayApiTarget[] {
  const bundles = own.filter(({ kind }) => kind === CORE.configMaps.kind);
  return [...new Set(policies.map(({ namespace }) => namespace))].sort().flatMap((namespace) => {
    const bundle = bundles.find(({ metadata }) => metadata.namespace === namespace);
    const revision = bundle ? revisionWanted(bundle) : 0;
    return revision > 0 ? [{ kind: 'revision', namespace, revision } as const] : [];
  });
}

function coveredBy(policy: KubeObject): string {
  const target = policyTarget(policy);
  return target ? `${target.of}/${target.namespace}/${target.name}` : '';
}

type ClientInput = RouteInput<GatewayApiConfig>;
type ClientFields = Readonly<Record<string, unknown>>;

interface ClientJudgement {
  readonly verdicts: readonly RouteVerdict[];
  /** Every selected Gateway presents the certificate, and there is one. */
  readonly isReady: boolean;
  /** What Gateways need to name the Secret: `reread` and `grant`. */
  readonly targets: readonly GatewayApiTarget[];
}

export const isGateway = ({ kind }: KubeObject): boolean => kind === KINDS.gateways.kind;
export const isBackend = ({ kind }: KubeObject): boolean => kind === KINDS.backends.kind;
export const isEnvoyProxy = ({ kind }: KubeObject): boolean => kind === KINDS.envoyProxies.kind;

/**
 * The Secrets by which a Gateway, an EnvoyProxy or a Backend presents or serves certificates. One of another namespace
 * counts only if a ReferenceGrant lets the object name it: otherwise Envoy Gateway ignores the reference.
 */
export function secretsNamedBy(object: KubeObject, beside: Iterable<KubeObject>): readonly SecretUse[] {
  const { namespace: own = '' } = object.metadata;
  const listeners = fields(object.spec).listeners;
  const served = listOfFields(listeners).flatMap(({ tls }) => listOfFields(fields(tls).certificateRefs));
  const refs = [...(isGateway(object) ? served : []), clientRefOf(object)];
  return refs.flatMap((ref) => {
    const name = text(ref.name);
    if (name === undefined) return [];
    const secret = { namespace: text(ref.namespace) ?? own, name };
    return secret.namespace === own || isGranted(beside, object, { kind: 'Secret', ...secret }) ? [secret] : [];
  });
}

/** Whether a ReferenceGrant beside the target lets this object refer to it. */
export function isGranted(
  objects: Iterable<KubeObject>,
  from: KubeObject,
  to: { readonly kind: string; readonly namespace: string; readonly name: string },
): boolean {
  for (const { kind: of, metadata, spec } of objects) {
    if (of !== KINDS.grants.kind || metadata.namespace !== to.namespace) continue;
    const isFrom = listOfFields(fields(spec).from).some(
      ({ kind, namespace }) => kind === from.kind && namespace === from.metadata.namespace,
    );
    const isTo = listOfFields(fields(spec).to).some(
      ({ kind, name }) => kind === to.kind && (name === undefined || name === '' || name === to.name),
    );
    if (isFrom && isTo) return true;
  }
  return false;
}

/** The path below `spec` of the fields that say how an object presents itself to upstreams. */
const PATHS: Readonly<Record<string, readonly string[]>> = {
  [KINDS.gateways.kind]: ['tls', 'backend'],
  [KINDS.envoyProxies.kind]: ['backendTLS'],
  [KINDS.backends.kind]: ['tls'],
};

const pathOf = ({ kind }: KubeObject): readonly string[] => PATHS[kind] ?? [];

const settingsOf = (object: KubeObject): ClientFields =>
  pathOf(object).length === 0
    ? {}
    : pathOf(object).reduce<ClientFields>((below, key) => fields(below[key]), fields(object.spec));

/** The field below `spec` that names the client certificate of such an object; undefined: it has none. */
export const clientField = (object: KubeObject): string | undefined =>
  pathOf(object).length === 0 ? undefined : [...pathOf(object), 'clientCertificateRef'].join('.');

/** Where the object names its client certificate; empty: nowhere. */
export const clientRefOf = (object: KubeObject): ClientFields => fields(settingsOf(object).clientCertificateRef);

/** Whether the object presents the pair of this MeshCertificate. */
export function presents(object: KubeObject, { meta, spec }: Pick<GatewayInput<unknown>, 'meta' | 'spec'>): boolean {
  const ref = clientRefOf(object);
  const namespace = text(ref.namespace) ?? object.metadata.namespace;
  return ref.name === spec.secretName && namespace === meta.namespace;
}

/** How the selected Gateways present the certificate, or why they cannot. */
function judgeClients(input: ClientInput, observed: ObservedObjects): ClientJudgement {
  const { meta, config } = input;
  const owner = ownerLabel(meta);
  const theirs = observed.routes.filter(({ metadata }) => metadata.labels?.[OWNER_LABEL] !== owner);
  const gateways = theirs.filter(isGateway);
  const proxies = theirs.filter(isEnvoyProxy);
  const selected = gateways.filter((one) => config.gateways && hasLabels(one, config.gateways.selector.matchLabels));
  const mayPresent = grantedBefore(input, observed);
  const judged = new Map<KubeObject, RouteVerdict>();
  for (const gateway of selected) {
    const found = clientOf(gateway, proxies, input, observed);
    if ('refusal' in found) judged.set(gateway, refused(gateway, input, found.refusal, mayPresent(gateway)));
    else if (!judged.has(found.object)) judged.set(found.object, clientVerdict(found.object, input, true));
  }
  const verdicts = [...judged.values()];
  for (const object of [...gateways, ...proxies]) {
    if (!judged.has(object) && mayPresent(object) && presents(object, input)) {
      verdicts.push(clientVerdict(object, input, false));
    }
  }
  const wanted = verdicts.filter((verdict) => verdict.selected);
  const naming = verdicts.filter(
    ({ route, outcome }) =>
      isGateway(route) &&
      (('target' in outcome && config.clientCertificate === 'Gateway') ||
        (presents(route, input) && mayPresent(route))),
  );
  const isFollowed = naming.some(({ route }) => controllerOf(route, observed)?.startsWith(ENVOY_GATEWAY) === true);
  const others = naming.flatMap(({ route }) => route.metadata.namespace ?? []).filter((one) => one !== meta.namespace);
  return {
    verdicts,
    isReady: wanted.length > 0 && wanted.every(isPresented),
    targets: [
      ...(isFollowed ? [{ kind: 'reread' } as const] : []),
      ...[...new Set(others)].sort().map((namespace) => ({ kind: 'grant', namespace }) as const),
    ],
  };
}

/**
 * Whether an object that names the Secret may present it although it is not selected, or is refused: it is in the
 * namespace of the Secret, or in one that is named in the spec and that got its ReferenceGrant while a Gateway there was
 * selected and consented.
 */
function grantedBefore({ meta, config }: ClientInput, { own }: ObservedObjects): (object: KubeObject) => boolean {
  const named = grantablePlaces(config, meta.namespace);
  const granted = own.filter(({ kind }) => kind === KINDS.grants.kind);
  const from = granted.flatMap(({ spec }) => listOfFields(fields(spec).from).map(({ namespace }) => namespace));
  return ({ metadata: { namespace = '' } }) =>
    namespace === meta.namespace || (named.includes(namespace) && from.includes(namespace));
}

/** The object names the certificate, with all that the mesh needs. */
const isPresented = ({ outcome }: RouteVerdict): boolean => 'target' in outcome && outcome.target.isSet;

function classOf(gateway: KubeObject, observed: Pick<ObservedObjects, 'behind'>): KubeObject | undefined {
  const name = fields(gateway.spec).gatewayClassName;
  return observed.behind(KINDS.classes.kind).find(({ metadata }) => metadata.name === name);
}

/** The name of the controller that runs a Gateway; undefined: not known. */
export const controllerOf = (gateway: KubeObject, observed: Pick<ObservedObjects, 'behind'>): string | undefined =>
  text(fields(classOf(gateway, observed)?.spec).controllerName);

/** The object whose field names the certificate for this Gateway. */
function clientOf(
  gateway: KubeObject,
  proxies: readonly KubeObject[],
  { meta, config }: ClientInput,
  observed: ObservedObjects,
): { readonly object: KubeObject } | { readonly refusal: TargetRefusal } {
  const no = (code: GatewayApiRefusal['code'], message: string) => ({ refusal: { code, message } });
  const name = text(fields(gateway.spec).gatewayClassName) ?? '';
  // A certificate without policies would be half of it.
  const refusal = consentRefusal(gateway, meta.namespace) ?? unservedKind(observed.unserved);
  if (refusal) return { refusal };
  const hidden = observed.hidden(KINDS.classes.kind);
  if (hidden !== undefined) {
    const message = `the GatewayClasses cannot be read yet (${hidden}); the agent needs get, list and watch on gatewayclasses`;
    return no('ERR_TARGET_UNSEEN', message);
  }
  const controller = controllerOf(gateway, observed);
  if (controller === undefined) {
    return no('ERR_TARGET_CLASS', `its GatewayClass ${name} does not exist; create it`);
  }
  const isEnvoyGateway = controller.startsWith(ENVOY_GATEWAY);
  if (!isEnvoyGateway && !config.controllers.includes(controller)) {
    const message = `its GatewayClass ${name} is run by ${controller}, which is not known to verify upstreams; use a GatewayClass of Envoy Gateway, or list the controller in gatewayApi.controllers if docs/gateway-api.md says that it is suitable`;
    return no('ERR_TARGET_CLASS', message);
  }
  if (config.clientCertificate === 'Gateway') {
    const { namespace = '' } = gateway.metadata;
    if (namespace === meta.namespace || grantablePlaces(config, meta.namespace).includes(namespace)) {
      return { object: gateway };
    }
    const message = `gatewayApi.gateways.namespaces does not name its namespace, and "*" lets no namespace present the certificate; add ${namespace} there`;
    return no('ERR_TARGET_NAMESPACE', message);
  }
  if (text(clientRefOf(gateway).name) !== undefined) {
    const message =
      'its own spec.tls.backend names a certificate, so Envoy Gateway ignores spec.backendTLS of its EnvoyProxy; remove that field, or set gatewayApi.clientCertificate: Gateway';
    return no('ERR_TARGET_OVERRIDDEN', message);
  }
  if (observed.unserved.has(KINDS.envoyProxies.kind)) {
    const { apiVersion, kind } = KINDS.envoyProxies;
    const message = `the cluster does not serve ${apiVersion} ${kind}; install the CRDs of Envoy Gateway`;
    return no('ERR_GATEWAY_CRD_MISSING', message);
  }
  return proxyOf(gateway, proxies, { meta, config }, observed);
}

/** The EnvoyProxy that a Gateway names, or that all Gateways of its class share. */
export function proxyRefOf(gateway: KubeObject, observed: Pick<ObservedObjects, 'behind'>) {
  const own = fields(fields(fields(gateway.spec).infrastructure).parametersRef);
  const isShared = own.kind === undefined;
  const { kind, name, namespace } = isShared
    ? fields(fields(classOf(gateway, observed)?.spec).parametersRef)
    : { ...own, namespace: gateway.metadata.namespace };
  if (kind !== KINDS.envoyProxies.kind) return undefined;
  return { name: text(name) ?? '', namespace: text(namespace) ?? '', isShared };
}

/** The EnvoyProxy of a Gateway. Envoy Gateway reads the Secret of its namespace only. */
function proxyOf(
  gateway: KubeObject,
  proxies: readonly KubeObject[],
  { meta, config }: Pick<ClientInput, 'meta' | 'config'>,
  observed: ObservedObjects,
): { readonly object: KubeObject } | { readonly refusal: GatewayApiRefusal } {
  const no = (code: GatewayApiRefusal['code'], message: string) => ({ refusal: { code, message } });
  const parameters = proxyRefOf(gateway, observed);
  if (!parameters) {
    const message =
      'spec.infrastructure.parametersRef names no EnvoyProxy; create one and name it there, or set gatewayApi.clientCertificate: Gateway';
    return no('ERR_TARGET_NO_PROXY', message);
  }
  const title = `EnvoyProxy ${parameters.namespace}/${parameters.name}`;
  if (parameters.namespace !== meta.namespace) {
    const message = `its ${title} is not in the namespace of the Secret, where Envoy Gateway requires it; set gatewayApi.clientCertificate: Gateway, or create a MeshCertificate in that namespace`;
    return no('ERR_TARGET_NAMESPACE', message);
  }
  const proxy = proxies.find(({ metadata }) => metadata.name === parameters.name);
  if (!proxy) return no('ERR_TARGET_NO_PROXY', `its ${title} does not exist; create it`);
  if (parameters.isShared && config.gateways && !hasLabels(proxy, config.gateways.selector.matchLabels)) {
    const message = `its ${title} is that of the GatewayClass, whose Gateways would all present the certificate; label it like the Gateway if they may, or name another EnvoyProxy in spec.infrastructure.parametersRef`;
    return no('ERR_TARGET_NO_PROXY', message);
  }
  return { object: proxy };
}

/** The verdict on an object that presents the certificate, or should. */
function clientVerdict(object: KubeObject, input: ClientInput, selected: boolean): RouteVerdict {
  const named = text(clientRefOf(object).name);
  const isOurs = presents(object, input);
  const isElsewhere = isGateway(object) && object.metadata.namespace !== input.meta.namespace;
  const needed = isElsewhere ? grantRef(input, object.metadata.namespace ?? '') : secretRef(input);
  const common = {
    route: object,
    service: '',
    selected,
    uses: named,
    dependsOn: isOurs ? needed : undefined,
  };
  if (!selected && sets(object, 'clientCertificateRef')) {
    const message =
      'the agent set its client certificate, but the MeshCertificate does not select it any more; restore the labels, or remove the field clientCertificateRef';
    return { ...common, outcome: routeRefusal(object, { code: 'ERR_TARGET_UNSELECTED', message }) };
  }
  if (named !== undefined && !isOurs) {
    const message = `it presents the Secret ${named}, which another client set; remove that field, or set ${input.spec.secretName}`;
    return { ...common, outcome: routeRefusal(object, { code: 'ERR_TARGET_FOREIGN_TLS', message }) };
  }
  const wanted = wantedSettings(object, input);
  const current = settingsOf(object);
  const isSet =
    isOurs &&
    Object.entries(wanted).every(
      ([key, value]) => key === 'clientCertificateRef' || isDeepStrictEqual(current[key], value),
    );
  const spec = pathOf(object).reduceRight<ClientFields>((below, key) => ({ [key]: below }), wanted);
  const change = { fields: { spec }, fieldManager: CLIENT_FIELD_MANAGER };
  return { ...common, outcome: { target: { object: needed, change, isSet } } };
}

/** What the mesh needs beside the certificate; a Gateway has no fields for it, and a user's choice is left. */
function wantedSettings(object: KubeObject, input: ClientInput): ClientFields {
  const clientCertificateRef = secretField(input);
  if (isGateway(object)) return { clientCertificateRef };
  const { alpnProtocols, minTlsVersion, maxTlsVersion } = input.mesh?.tls ?? {};
  const needed = {
    alpnProtocols: alpnProtocols?.split(','),
    minVersion: minTlsVersion?.replace(/^v/, ''),
    maxVersion: maxTlsVersion?.replace(/^v/, ''),
  };
  const current = settingsOf(object);
  const ours = Object.entries(needed).filter(
    ([key, value]) => value !== undefined && (current[key] === undefined || sets(object, key)),
  );
  return { clientCertificateRef, ...Object.fromEntries(ours) };
}

/** Whether a field beside the client certificate was applied by us. */
function sets(object: KubeObject, field: string): boolean {
  return hasApplied(object, CLIENT_FIELD_MANAGER, ['spec', ...pathOf(object), field]);
}

const refused = (
  gateway: KubeObject,
  input: ClientInput,
  refusal: TargetRefusal,
  mayPresent: boolean,
): RouteVerdict => ({
  route: gateway,
  service: '',
  selected: true,
  uses: text(clientRefOf(gateway).name),
  dependsOn: mayPresent && presents(gateway, input) ? secretRef(input) : undefined,
  outcome: routeRefusal(gateway, refusal),
});

/** What one Backend needs: the certificate in its own fields, and a policy. */
interface BackendJudgement {
  readonly client?: RouteVerdict | undefined;
  readonly policy?: PolicyJudgement | undefined;
}

/**
 * The Backends that are selected, or that use what is published. One that names the certificate and has no policy is
 * refused by Envoy Gateway: no request leads to plaintext. It is given the certificate only once its policy is known.
 */
function judgeBackends(situation: PolicySituation, mayAdd: boolean): readonly BackendJudgement[] {
  const { config } = situation.input;
  const missing = situation.observed.unserved.has(KINDS.backends.kind) && config.backends;
  if (missing) return [{ client: undefinedKind() }];
  return situation.observed.routes.filter(isBackend).map((backend) => judgeBackend(backend, situation, mayAdd));
}

/** No object shows that Backends are wanted. */
function undefinedKind(): RouteVerdict {
  const { apiVersion, kind, plural } = KINDS.backends;
  const name = `${plural}.${EXTENSIONS}`;
  const route = { apiVersion: 'apiextensions.k8s.io/v1', kind: 'CustomResourceDefinition', metadata: { name } };
  const message = `the cluster does not serve ${apiVersion} ${kind}; install the CRDs of Envoy Gateway, and set extensionApis.enableBackend in its configuration`;
  return { route, service: '', selected: true, outcome: { code: 'ERR_GATEWAY_CRD_MISSING', message, reason: message } };
}

function judgeBackend(backend: KubeObject, situation: PolicySituation, mayAdd: boolean): BackendJudgement {
  const { input, isUsed } = situation;
  const { backends, clientCertificate } = input.config;
  const { name, namespace = '' } = backend.metadata;
  const target = { of: 'Backend', namespace, name, port: '' } as const;
  const before = writtenFor(situation, target);
  const isPlace = clientCertificate === 'Backend';
  const isNaming = presents(backend, input);
  if (!backends || !hasLabels(backend, backends.selector.matchLabels)) {
    return {
      client: isNaming ? clientVerdict(backend, input, false) : undefined,
      policy: before && isUsed(target, undefined) ? kept(backend, before, undefined, situation) : undefined,
    };
  }
  const verdict = (found: TargetRefusal | readonly RouteDestination[]) =>
    policyVerdict(backend, target, undefined, situation, found);
  const client = isPlace || isNaming ? clientVerdict(backend, input, isPlace) : undefined;
  const peers = refusalOf(backend, situation) ?? foreignPolicy(situation, target) ?? peersOfBackend(backend, situation);
  if ('code' in peers) {
    return { client: isNaming ? client : undefined, policy: { verdict: verdict(peers), target: before } };
  }
  const destinations = endpointsOf(backend).map(({ address, service }) => destinationOf(address, peers, service));
  if (client && 'code' in client.outcome) {
    return { client, policy: before && { verdict: verdict(destinations), target: before } };
  }
  const isReady = isPlace ? client !== undefined && isPresented(client) : mayAdd;
  const needed = before || isReady ? ({ kind: 'policy', ...target, ...peers } as const) : undefined;
  return { client, policy: { verdict: verdict(destinations), target: needed } };
}

/** Why nothing is written for a Backend. */
function refusalOf(backend: KubeObject, situation: PolicySituation): TargetRefusal | undefined {
  const { input, observed } = situation;
  const { namespace = '' } = backend.metadata;
  const { namespace: own } = input.meta;
  if (input.config.clientCertificate === 'Backend' && namespace !== own) {
    const message = `it is not in the namespace of the Secret, where Envoy Gateway requires it; create it in namespace ${own}, with a ReferenceGrant for the routes of others`;
    return { code: 'ERR_TARGET_NAMESPACE', message };
  }
  return (
    consentRefusal(backend, own) ?? unservedKind(observed.unserved) ?? unseen(situation, namespace, [KINDS.policies])
  );
}

/** Where an endpoint of a Backend leads to. */
interface BackendEndpoint {
  /** `host:port`, for people. */
  readonly address: string;
  readonly hostname: string | undefined;
  readonly port: number;
  /** The Service of that name. */
  readonly service?: { readonly namespace: string; readonly name: string } | undefined;
}

/** `<service>.<namespace>.svc`, and the domain of the cluster. */
const SERVICE_NAME = /^([^.]+)\.([^.]+)\.svc(\.|$)/;

const endpointsOf = ({ spec }: KubeObject): readonly BackendEndpoint[] =>
  listOfFields(fields(spec).endpoints).map(({ fqdn, ip, unix, hostname: given }) => {
    const { hostname, port } = fields(fqdn);
    const address = text(fields(ip).address) ?? text(fields(unix).path);
    const host = text(hostname)?.replace(/\.$/, '');
    const [, name, namespace] = SERVICE_NAME.exec(host ?? '') ?? [];
    const number = Number(port ?? fields(ip).port ?? 0);
    return {
      address: `${host ?? address ?? ''}:${number}`,
      hostname: host ?? text(given),
      port: number,
      service: name && namespace ? { name, namespace } : undefined,
    };
  });

/** The identities of all pods behind all endpoints. */
function peersOfBackend(backend: KubeObject, situation: PolicySituation): Peers | TargetRefusal {
  const { input, observed } = situation;
  const { name: own, namespace = '' } = backend.metadata;
  const title = `Backend ${namespace}/${own}`;
  const endpoints = endpointsOf(backend);
  const hostname = endpoints.find((one) => one.hostname !== undefined)?.hostname ?? `${own}.${namespace}`;
  const given = givenPeers(hostname, input.config);
  if (given) return given;
  const found: PeerName[] = [];
  for (const { address, service, port } of endpoints) {
    if (!service) {
      const message = `its endpoint ${address} is not the name of a Service (NAME.NAMESPACE.svc.cluster.local), so its identity is unknown; use that name, or set gatewayApi.subjectAltNames`;
      return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
    }
    const hidden = unseen(situation, service.namespace, [CORE.services, CORE.pods, CORE.endpointSlices]);
    if (hidden) return hidden;
    const object = observed
      .behind(CORE.services.kind)
      .find(({ metadata }) => metadata.namespace === service.namespace && metadata.name === service.name);
    if (!object) return missing(service);
    const named = portOf(object, port);
    if ('code' in named) return named;
    const names = identitiesOf(object, named, behindServices(situation, service.namespace), input);
    if ('code' in names) return names;
    found.push(...names);
  }
  return peersFrom(found, hostname, title, input);
}

export const missing = ({ namespace, name }: { readonly namespace: string; readonly name: string }): TargetRefusal => ({
  code: 'ERR_TARGET_NO_SERVICE',
  message: `Service ${namespace}/${name} does not exist; create it, or correct the endpoint`,
});

/** The port of a Service by its number; pods behind a headless one are called at their own port. */
export function portOf(service: KubeObject, number: number): NamedPort | TargetRefusal {
  const { clusterIP, ports } = fields(service.spec);
  const title = `Service ${service.metadata.namespace}/${service.metadata.name}`;
  const alias = aliasRefusal(service, title);
  if (alias) return alias;
  const isHeadless = clusterIP === 'None';
  const all = listOfFields(ports);
  const found = all.find(({ port, targetPort }) => port === number || (isHeadless && targetPort === number));
  if (found) return { name: text(found.name) ?? '', port: number, targetPort: found.targetPort };
  if (isHeadless && all.length === 0) return { name: '', port: number, targetPort: number };
  const message = `${title} has no port ${number}; use a port of the Service`;
  return { code: 'ERR_TARGET_NO_PORT', message };
}

type ServiceInput = RouteInput<GatewayApiConfig>;

interface ServiceSituation extends PolicySituation {
  /** Why no policy may be written for any Service. */
  readonly obstacle: TargetRefusal | undefined;
  /** The Gateways present the certificate. */
  readonly mayAdd: boolean;
}

const isService = ({ kind }: KubeObject): boolean => kind === CORE_RESOURCES.services.kind;

/**
 * The policies that the selected Services need. One that exists stays while its Service is selected or a route uses
 * it: without it, the gateway would send plaintext. A further one waits until the Gateways present the certificate.
 */
function judgeServices(situation: PolicySituation, mayAdd: boolean): readonly PolicyJudgement[] {
  const { input, observed } = situation;
  const whole: ServiceSituation = { ...situation, obstacle: obstacle(input, observed), mayAdd };
  return observed.routes.filter(isService).flatMap((service) => judgeService(service, whole));
}

function obstacle(
  { mesh }: ServiceInput,
  { unserved, behind }: PolicySituation['observed'],
): TargetRefusal | undefined {
  const absent = unservedKind(unserved);
  if (absent) return absent;
  const taker = behind(KINDS.classes.kind).find(({ spec }) =>
    mesh?.takesPoliciesOf?.(text(fields(spec).controllerName) ?? ''),
  );
  if (!taker) return undefined;
  const message = `the control plane of ${mesh?.title} watches the Gateway API (GatewayClass ${taker.metadata.name}), and would apply a BackendTLSPolicy on a Service to all sidecars, which then connect without their certificate; create a Backend of Envoy Gateway that leads to the Service, and select that`;
  return { code: 'ERR_TARGET_MESH_POLICY', message };
}

function judgeService(service: KubeObject, situation: ServiceSituation): readonly PolicyJudgement[] {
  const { input, written, isUsed } = situation;
  const { config, meta } = input;
  const { name, namespace = '' } = service.metadata;
  const target = (port: string) => ({ of: 'Service', namespace, name, port }) as const;
  const ports = namedPorts(service);
  const numberOf = (port: string) => ports.find((one) => one.name === port)?.port;
  const own = [...written.values()].filter(
    (one) => one.of === 'Service' && one.namespace === namespace && one.name === name,
  );
  const still = (targets: readonly PolicyTarget[]) =>
    targets
      .filter((one) => isUsed(one, numberOf(one.port)))
      .map((one) => kept(service, one, numberOf(one.port), situation));
  if (!config.services || !hasLabels(service, config.services.selector.matchLabels)) return still(own);
  const listed = config.services.ports;
  const wanted = listed ? ports.filter((one) => listed.includes(one.name)) : ports;
  const whole = wholeRefusal(service, wanted, meta.namespace) ?? situation.obstacle;
  if (whole) {
    const verdict = (port: string) => policyVerdict(service, target(port), numberOf(port), situation, whole);
    const left = own.map((one) => ({ verdict: verdict(one.port), target: one }));
    return left.length > 0 ? left : [{ verdict: verdict('') }];
  }
  return [
    ...wanted.map((port) => judgePort(service, port, situation)),
    ...still(own.filter(({ port }) => !wanted.some((one) => one.name === port))),
  ];
}

/** Why nothing is written for any port of a Service. */
function wholeRefusal(service: KubeObject, wanted: readonly NamedPort[], namespace: string): TargetRefusal | undefined {
  const refusal = consentRefusal(service, namespace) ?? aliasRefusal(service, 'it');
  if (refusal || wanted.length > 0) return refusal;
  const names = namedPorts(service).map((port) => port.name);
  const known = names.length === 0 ? 'none of its ports has a name' : `its ports are ${names.join(', ')}`;
  const message = `a BackendTLSPolicy needs the name of a port, and ${known}; name the port, or correct gatewayApi.services.ports`;
  return { code: 'ERR_TARGET_PORT_NAME', message };
}

function judgePort(service: KubeObject, port: NamedPort, situation: ServiceSituation): PolicyJudgement {
  const { name, namespace = '' } = service.metadata;
  const target = { of: 'Service', namespace, name, port: port.name } as const;
  const before = writtenFor(situation, target);
  const behind = behindServices(situation, namespace);
  const peers =
    unseen(situation, namespace, [KINDS.policies, CORE_RESOURCES.pods, CORE_RESOURCES.endpointSlices]) ??
    foreignPolicy(situation, target) ??
    peersOf(service, port, behind, situation.input);
  const verdict = (found: TargetRefusal | readonly RouteDestination[]) =>
    policyVerdict(service, target, port.port, situation, found);
  if ('code' in peers) return { verdict: verdict(peers), target: before };
  const address = `${name}.${namespace}:${dialledPort(service, port, behind)}`;
  return {
    verdict: verdict([destinationOf(address, peers, { namespace, name })]),
    target: before || situation.mayAdd ? { kind: 'policy', ...target, ...peers } : undefined,
  };
}
