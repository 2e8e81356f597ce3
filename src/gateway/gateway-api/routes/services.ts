import { CONSENT_ANNOTATION, consents } from '../../../core/consent.ts';
import { describe, type KubeObject, keyOf, OWNER_LABEL, refOf } from '../../../core/object.ts';
import { fields, hasLabels, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { PeerName } from '../../../mesh/targeting.ts';
import type { ObservedObjects, RouteVerdict } from '../../gateway.ts';
import type { RouteInput } from '../../input.ts';
import { ownerLabel } from '../../owner.ts';
import { policyRef } from '../objects/names.ts';
import { type GatewayApiConfig, placesOf } from '../spec/config.ts';
import { CORE_RESOURCES, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { PolicyTarget } from '../spec/target.ts';
import { type NamedPort, namedPorts, peersOf } from './pods.ts';

type ServiceInput = RouteInput<GatewayApiConfig>;

export interface ServiceJudgement {
  readonly verdicts: readonly RouteVerdict[];
  readonly targets: readonly PolicyTarget[];
}

/** What all Services of one observation have in common. */
interface ServiceSituation {
  readonly input: ServiceInput;
  readonly observed: ObservedObjects;
  /** Our policies as they are now, by `keyOf`. */
  readonly written: ReadonlyMap<string, PolicyTarget>;
  readonly isUsed: (namespace: string, service: string, port: number | undefined) => boolean;
  /** Why no policy may be written for any Service. */
  readonly obstacle: { readonly code: string; readonly message: string } | undefined;
  /** The Gateways present the certificate. */
  readonly mayAdd: boolean;
}

export const isService = ({ kind }: KubeObject): boolean => kind === CORE_RESOURCES.services.kind;

/** The Service and the port that one of our policies is for, and what it requires; undefined: not of our making. */
export function policyTarget({ kind, metadata, spec }: KubeObject): PolicyTarget | undefined {
  const [ref] = listOfFields(fields(spec).targetRefs);
  const { hostname, subjectAltNames } = fields(fields(spec).validation);
  const [service, port, host] = [text(ref?.name), text(ref?.sectionName), text(hostname)];
  if (kind !== KINDS.policies.kind || !service || !port || !host) return undefined;
  const names = listOfFields(subjectAltNames).map(
    ({ uri, hostname: dns }): PeerName => (text(uri) ? { uri: String(uri) } : { dns: String(dns) }),
  );
  return { kind: 'policy', namespace: metadata.namespace ?? '', service, port, hostname: host, names };
}

/**
 * The policies that the selected Services need. One that exists stays while its Service is selected or a route uses
 * it: without it, the gateway would send plaintext. A further one waits until the Gateways present the certificate.
 */
export function judgeServices(input: ServiceInput, observed: ObservedObjects, mayAdd: boolean): ServiceJudgement {
  const policies = observed.own.filter(({ kind }) => kind === KINDS.policies.kind);
  const written = new Map(
    policies.flatMap((one) => {
      const target = policyTarget(one);
      return target ? [[keyOf(refOf(one)), target] as const] : [];
    }),
  );
  const situation: ServiceSituation = {
    ...{ input, observed, written, mayAdd },
    isUsed: usage(input, observed),
    obstacle: obstacle(input, observed),
  };
  const needed = new Map<string, PolicyTarget>();
  const verdicts: RouteVerdict[] = [];
  for (const service of observed.routes.filter(isService)) {
    for (const { verdict, target } of judgeService(service, situation)) {
      verdicts.push(verdict);
      if (target) needed.set(keyOf(policyRef(input, target)), target);
    }
  }
  const services = new Set(
    observed.routes.filter(isService).map(({ metadata }) => `${metadata.namespace}/${metadata.name}`),
  );
  const isGone = ({ namespace, service }: PolicyTarget) => !services.has(`${namespace}/${service}`);
  for (const [key, target] of written) {
    if (isGone(target) && situation.isUsed(target.namespace, target.service, undefined)) needed.set(key, target);
  }
  const targets = [...needed].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, target]) => target);
  return { verdicts, targets };
}

/** Whether a route sends requests to a port of a Service; yes if not all routes can be read. */
function usage({ meta, config }: ServiceInput, observed: ObservedObjects): ServiceSituation['isUsed'] {
  const kinds = [KINDS.httpRoutes.kind, KINDS.grpcRoutes.kind];
  const places = new Set([...placesOf(config, meta.namespace), meta.namespace]);
  const all = places.has('*') ? [undefined] : [...places];
  if (kinds.some((kind) => all.some((place) => observed.hidden(kind, place) !== undefined))) return () => true;
  const used = portsUsedBy(kinds.flatMap((kind) => observed.behind(kind)));
  return (namespace, service, port) => {
    const start = `${namespace}/${service}/`;
    if (port === undefined) return [...used].some((one) => one.startsWith(start));
    return used.has(`${start}${port}`) || used.has(`${start}*`);
  };
}

function obstacle({ mesh }: ServiceInput, { unserved, behind }: ObservedObjects): ServiceSituation['obstacle'] {
  const absent = [KINDS.policies, KINDS.gateways].find(({ kind }) => unserved.has(kind));
  if (absent) {
    const message = `the cluster does not serve ${absent.apiVersion} ${absent.kind}; install the Gateway API, version 1.4 or later`;
    return { code: 'ERR_GATEWAY_CRD_MISSING', message };
  }
  const taker = behind(KINDS.classes.kind).find(({ spec }) =>
    mesh?.takesPoliciesOf?.(text(fields(spec).controllerName) ?? ''),
  );
  if (!taker) return undefined;
  const message = `the control plane of ${mesh?.title} watches the Gateway API (GatewayClass ${taker.metadata.name}), and would apply a BackendTLSPolicy on a Service to all sidecars, which then connect without their certificate; docs/gateway-api.md shows what to do`;
  return { code: 'ERR_TARGET_MESH_POLICY', message };
}

interface PortJudgement {
  readonly verdict: RouteVerdict;
  readonly target?: PolicyTarget | undefined;
}

function judgeService(service: KubeObject, situation: ServiceSituation): readonly PortJudgement[] {
  const { input, written, isUsed } = situation;
  const { config, meta } = input;
  const { name, namespace = '' } = service.metadata;
  const ports = namedPorts(service);
  const own = [...written.values()].filter((one) => one.namespace === namespace && one.service === name);
  if (!hasLabels(service, config.services.selector.matchLabels)) {
    return own
      .filter(({ port }) => isUsed(namespace, name, ports.find((one) => one.name === port)?.port))
      .map((target) => kept(service, target, situation));
  }
  const wanted = config.services.ports ? ports.filter((one) => config.services.ports?.includes(one.name)) : ports;
  const whole = wholeRefusal(service, wanted, meta.namespace) ?? situation.obstacle;
  if (whole) {
    const left = own.map((target) => ({ verdict: verdictOf(service, target.port, situation, whole), target }));
    return left.length > 0 ? left : [{ verdict: verdictOf(service, '', situation, whole) }];
  }
  const others = own.filter(({ port }) => !wanted.some((one) => one.name === port));
  return [
    ...wanted.map((port) => judgePort(service, port, situation)),
    ...others
      .filter(({ port }) => isUsed(namespace, name, ports.find((one) => one.name === port)?.port))
      .map((target) => kept(service, target, situation)),
  ];
}

/** A policy that is used although nothing selects its Service or port any more. */
function kept(service: KubeObject, target: PolicyTarget, situation: ServiceSituation): PortJudgement {
  const message =
    'a route uses it with a BackendTLSPolicy of the agent, but the MeshCertificate no longer selects it; select it, or remove the route and then the policy';
  const refusal = { code: 'ERR_TARGET_UNSELECTED', message };
  return { verdict: { ...verdictOf(service, target.port, situation, refusal), selected: false }, target };
}

/** Why nothing is written for any port of a Service. */
function wholeRefusal(service: KubeObject, wanted: readonly NamedPort[], namespace: string) {
  const { type, externalName } = fields(service.spec);
  if (!consents(service, namespace)) {
    const message = `it is in another namespace than the MeshCertificate and does not consent; its owner can annotate it: ${CONSENT_ANNOTATION}=${namespace}`;
    return { code: 'ERR_TARGET_NO_CONSENT', message };
  }
  if (type === 'ExternalName') {
    const message = `it is an alias of ${String(externalName)}, which is outside the cluster; use the Service that has the pods`;
    return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
  }
  if (wanted.length > 0) return undefined;
  const names = namedPorts(service).map((port) => port.name);
  const known = names.length === 0 ? 'none of its ports has a name' : `its ports are ${names.join(', ')}`;
  const message = `a BackendTLSPolicy needs the name of a port, and ${known}; name the port, or correct gatewayApi.services.ports`;
  return { code: 'ERR_TARGET_PORT_NAME', message };
}

function judgePort(service: KubeObject, port: NamedPort, situation: ServiceSituation): PortJudgement {
  const { input, observed, written, mayAdd } = situation;
  const { name, namespace = '' } = service.metadata;
  const before = written.get(keyOf(policyRef(input, { namespace, service: name, port: port.name })));
  const left = (refusal: { readonly code: string; readonly message: string }): PortJudgement => ({
    verdict: verdictOf(service, port.name, situation, refusal),
    target: before,
  });
  const unseen = [KINDS.policies, CORE_RESOURCES.pods, CORE_RESOURCES.endpointSlices]
    .map((resource) => ({ resource, why: observed.hidden(resource.kind, namespace) }))
    .find(({ why }) => why !== undefined);
  if (unseen) {
    const message = `the ${unseen.resource.plural} in namespace ${namespace} cannot be read yet (${unseen.why}); the agent needs get, list and watch on them there`;
    return left({ code: 'ERR_TARGET_UNSEEN', message });
  }
  const foreign = foreignPolicy(service, port.name, situation);
  if (foreign) {
    const message = `${describe(refOf(foreign))} is already for it, and was not written for this MeshCertificate; remove that policy, or do not select this Service`;
    return left({ code: 'ERR_TARGET_FOREIGN_POLICY', message });
  }
  const inPlace = (kind: string) => observed.behind(kind).filter(({ metadata }) => metadata.namespace === namespace);
  const behind = { pods: inPlace(CORE_RESOURCES.pods.kind), slices: inPlace(CORE_RESOURCES.endpointSlices.kind) };
  const peers = peersOf(service, port, behind, input);
  if ('code' in peers) return left(peers);
  const target: PolicyTarget = { kind: 'policy', namespace, service: name, port: port.name, ...peers };
  return {
    verdict: verdictOf(service, port.name, situation, undefined),
    target: before || mayAdd ? target : undefined,
  };
}

/** A policy of somebody else for this port, or for the whole Service, which ours would override. */
function foreignPolicy(
  { metadata }: KubeObject,
  port: string,
  { input, observed }: ServiceSituation,
): KubeObject | undefined {
  const owner = ownerLabel(input.meta);
  return observed
    .behind(KINDS.policies.kind)
    .find(
      (policy) =>
        policy.metadata.namespace === metadata.namespace &&
        policy.metadata.labels?.[OWNER_LABEL] !== owner &&
        listOfFields(fields(policy.spec).targetRefs).some(
          ({ kind, name, sectionName }) =>
            kind === CORE_RESOURCES.services.kind &&
            name === metadata.name &&
            (sectionName === undefined || sectionName === port),
        ),
    );
}

function verdictOf(
  service: KubeObject,
  port: string,
  { input, written, isUsed }: ServiceSituation,
  refusal: { readonly code: string; readonly message: string } | undefined,
): RouteVerdict {
  const { name, namespace = '' } = service.metadata;
  const object = policyRef(input, { namespace, service: name, port });
  const exists = written.has(keyOf(object));
  const number = namedPorts(service).find((one) => one.name === port)?.port;
  const common = {
    ...{ route: service, service: port === '' ? name : `${name}:${port}`, selected: true },
    uses: exists ? object.name : undefined,
    dependsOn: exists && isUsed(namespace, name, number) ? object : undefined,
  };
  if (!refusal) return { ...common, outcome: { target: { object, isSet: exists } } };
  const { code, message } = refusal;
  return {
    ...common,
    outcome: { code, message: `${describe(refOf(service))} cannot use the certificate: ${message}` },
  };
}

/** The ports of Services that routes send requests to: `<namespace>/<service>/<port>`, or `…/*` without a port. */
function portsUsedBy(routes: readonly KubeObject[]): ReadonlySet<string> {
  return new Set(
    routes.flatMap(({ metadata, spec }) =>
      backendsIn(spec).flatMap(({ name, namespace, kind = 'Service', group = '', port }) => {
        const service = text(name);
        if (service === undefined || kind !== 'Service' || group !== '') return [];
        const place = text(namespace) ?? metadata.namespace ?? '';
        return [`${place}/${service}/${typeof port === 'number' ? port : '*'}`];
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
