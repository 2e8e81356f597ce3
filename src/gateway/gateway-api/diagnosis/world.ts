import type { KubeObject } from '../../../core/object.ts';
import { fields, listOfFields, text } from '../../../mesh/kube-object.ts';
import { type ClusterSnapshot, objectsOf, type SnapshotObjects } from '../../diagnosis.ts';
import type { SecretUse } from '../../input.ts';
import { readPair, type SecretPair } from '../../pair.ts';
import { clientField, clientRefOf, controllerOf, proxyRefOf } from '../routes/client.ts';
import { namedPorts } from '../routes/pods.ts';
import { backendsIn } from '../routes/usage.ts';
import { CORE_RESOURCES, ENVOY_GATEWAY, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';

/** Where a Gateway, an EnvoyProxy or a Backend names a client certificate. */
export interface NamedCertificate {
  readonly holder: KubeObject;
  /** The field below `spec`. */
  readonly field: string;
  readonly secret: SecretUse;
}

/** A Gateway that Envoy Gateway runs. */
export interface SeenGateway {
  readonly object: KubeObject;
  /** The EnvoyProxy that it uses: its own, or that of its class. */
  readonly proxy: KubeObject | undefined;
  /** What it presents to Services. */
  readonly client: NamedCertificate | undefined;
}

/** A target of a BackendTLSPolicy. */
export interface PolicyReference {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** Absent: the whole object. */
  readonly section: string | undefined;
}

export interface SeenPolicy {
  readonly object: KubeObject;
  readonly targets: readonly PolicyReference[];
  readonly hostname: string;
  /** Subject alternative names, one of which must be presented. */
  readonly names: readonly string[];
  /** The ConfigMaps with the roots. */
  readonly bundles: readonly SecretUse[];
}

/** A backend of a route, as it is reached through Gateways of Envoy Gateway. */
export interface SeenBackend {
  readonly route: KubeObject;
  readonly gateways: readonly SeenGateway[];
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly port: number | undefined;
  /** The name of the port of its Service; undefined: it has none, or the Service is not known. */
  readonly portName: string | undefined;
  /** The policy that counts for it. */
  readonly policy: SeenPolicy | undefined;
}

/** A snapshot as Envoy Gateway interprets it, with all values that more than one check needs. */
export interface GatewayApiWorld extends SnapshotObjects {
  readonly snapshot: ClusterSnapshot;
  readonly gateways: readonly SeenGateway[];
  readonly certificates: readonly NamedCertificate[];
  readonly policies: readonly SeenPolicy[];
  readonly backends: readonly SeenBackend[];
  /** The content of a Secret; undefined if it is missing or was not read. */
  pairOf(secret: SecretUse): SecretPair | undefined;
}

export const BACKEND = KINDS.backends.kind;

export function worldOf(snapshot: ClusterSnapshot): GatewayApiWorld {
  const objects = objectsOf(snapshot);
  const { all, find } = objects;
  const gateways = all(KINDS.gateways.kind).flatMap((object) => seenGateway(object, all) ?? []);
  const policies = all(KINDS.policies.kind).map(seenPolicy).sort(byAge);
  const reached = [...all(KINDS.httpRoutes.kind), ...all(KINDS.grpcRoutes.kind)].flatMap((route) =>
    backendsOf(route, gateways, policies, find),
  );
  const holders = [...all(KINDS.gateways.kind), ...all(KINDS.envoyProxies.kind), ...all(BACKEND)];
  return {
    ...objects,
    snapshot,
    gateways,
    policies,
    certificates: holders.flatMap((holder) => namedCertificate(holder) ?? []),
    backends: reached,
    pairOf: (secret) => readPair(find('Secret', secret), undefined),
  };
}

/** Undefined: another implementation runs it, or it names no certificate. */
function seenGateway(object: KubeObject, all: GatewayApiWorld['all']): SeenGateway | undefined {
  const controller = controllerOf(object, { behind: all });
  const ref = proxyRefOf(object, { behind: all });
  if (controller === undefined ? !ref : !controller.startsWith(ENVOY_GATEWAY)) return undefined;
  const proxy = all(KINDS.envoyProxies.kind).find(
    ({ metadata }) => metadata.name === ref?.name && metadata.namespace === ref.namespace,
  );
  return { object, proxy, client: namedCertificate(object) ?? (proxy && namedCertificate(proxy)) };
}

/** The client certificate that an object names. */
export function namedCertificate(holder: KubeObject): NamedCertificate | undefined {
  const field = clientField(holder);
  const ref = clientRefOf(holder);
  const name = text(ref.name);
  if (field === undefined || name === undefined) return undefined;
  return { holder, field, secret: { namespace: text(ref.namespace) ?? holder.metadata.namespace ?? '', name } };
}

function seenPolicy(object: KubeObject): SeenPolicy {
  const { namespace = '' } = object.metadata;
  const { hostname, subjectAltNames, caCertificateRefs } = fields(fields(object.spec).validation);
  return {
    object,
    targets: listOfFields(fields(object.spec).targetRefs).map(({ kind, name, sectionName }) => ({
      kind: String(kind),
      namespace,
      name: String(name),
      section: text(sectionName),
    })),
    hostname: String(hostname),
    names: listOfFields(subjectAltNames).map(({ uri, hostname: dns }) => String(uri ?? dns)),
    bundles: listOfFields(caCertificateRefs)
      .filter(({ kind }) => kind === CORE_RESOURCES.configMaps.kind)
      .map(({ name }) => ({ namespace, name: String(name) })),
  };
}

/** Of two policies for one target, the oldest counts; without times, the first by name. */
function byAge({ object: one }: SeenPolicy, { object: other }: SeenPolicy): number {
  const key = ({ metadata }: KubeObject) =>
    `${metadata.creationTimestamp ?? ''} ${metadata.namespace ?? ''}/${metadata.name}`;
  return key(one) < key(other) ? -1 : 1;
}

function backendsOf(
  route: KubeObject,
  gateways: readonly SeenGateway[],
  policies: readonly SeenPolicy[],
  find: GatewayApiWorld['find'],
): readonly SeenBackend[] {
  const { namespace: own = '' } = route.metadata;
  const parents = listOfFields(fields(route.spec).parentRefs).map(
    ({ namespace, name }) => `${text(namespace) ?? own}/${String(name)}`,
  );
  const through = gateways.filter(({ object: { metadata } }) =>
    parents.includes(`${metadata.namespace}/${metadata.name}`),
  );
  return backendsIn(route.spec).flatMap(({ name, namespace, kind = 'Service', port }) => {
    if (text(name) === undefined) return [];
    const ref = { namespace: text(namespace) ?? own, name: String(name) };
    const service = kind === 'Service' ? find('Service', ref) : undefined;
    const number = typeof port === 'number' ? port : undefined;
    const portName = service && namedPorts(service).find((one) => one.port === number)?.name;
    const target: PolicyReference = { kind: String(kind), ...ref, section: portName };
    const common = { route, gateways: through, kind: String(kind), ...ref, port: number, portName };
    return [{ ...common, policy: policyFor(policies, target) }];
  });
}

/** One with the name of the port counts before one for the whole object. */
function policyFor(policies: readonly SeenPolicy[], wanted: PolicyReference): SeenPolicy | undefined {
  const covers = (section: string | undefined) => (policy: SeenPolicy) =>
    policy.targets.some(
      (one) =>
        one.kind === wanted.kind &&
        one.namespace === wanted.namespace &&
        one.name === wanted.name &&
        one.section === section,
    );
  const exact = wanted.section === undefined ? undefined : policies.find(covers(wanted.section));
  return exact ?? policies.find(covers(undefined));
}

/** `namespace/name`, as messages show it. */
export const nameOf = ({ namespace, name }: SecretUse): string => `${namespace}/${name}`;
