import { isDeepStrictEqual } from 'node:util';
import { consentRefusal } from '../../../core/consent.ts';
import { describe, type KubeObject, OWNER_LABEL, refOf } from '../../../core/object.ts';
import { fields, hasLabels, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { TargetRefusal } from '../../../mesh/targeting.ts';
import type { ObservedObjects, RouteVerdict } from '../../gateway.ts';
import type { GatewayInput, RouteInput, SecretUse } from '../../input.ts';
import { ownerLabel } from '../../owner.ts';
import { secretField } from '../objects/desired.ts';
import { grantRef, secretRef } from '../objects/names.ts';
import { type GatewayApiConfig, grantablePlaces } from '../spec/config.ts';
import { CLIENT_FIELD_MANAGER, ENVOY_GATEWAY, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { GatewayApiRefusal, GatewayApiTarget } from '../spec/target.ts';
import { unservedKind } from './policies.ts';

type ClientInput = RouteInput<GatewayApiConfig>;
type ClientFields = Readonly<Record<string, unknown>>;

export interface ClientJudgement {
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
export function judgeClients(input: ClientInput, observed: ObservedObjects): ClientJudgement {
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
export const isPresented = ({ outcome }: RouteVerdict): boolean => 'target' in outcome && outcome.target.isSet;

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
export function clientVerdict(object: KubeObject, input: ClientInput, selected: boolean): RouteVerdict {
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
    return { ...common, outcome: left(object, { code: 'ERR_TARGET_UNSELECTED', message }) };
  }
  if (named !== undefined && !isOurs) {
    const message = `it presents the Secret ${named}, which another client set; remove that field, or set ${input.spec.secretName}`;
    return { ...common, outcome: left(object, { code: 'ERR_TARGET_FOREIGN_TLS', message }) };
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
  const path = ['f:spec', ...pathOf(object).map((key) => `f:${key}`)];
  return (object.metadata.managedFields ?? []).some(({ manager, operation, fieldsV1 }) => {
    if (manager !== CLIENT_FIELD_MANAGER || operation !== 'Apply') return false;
    return `f:${field}` in path.reduce<ClientFields>((below, key) => fields(below[key]), fieldsV1 ?? {});
  });
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
  outcome: left(gateway, refusal),
});

const left = (object: KubeObject, { code, message }: TargetRefusal) => ({
  code,
  message: `${describe(refOf(object))} cannot use the certificate: ${message}`,
});
