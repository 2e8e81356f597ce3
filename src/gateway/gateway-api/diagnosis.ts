import { toRfc3339 } from '../../core/status.ts';
import { tlsDefaults } from '../../mesh/adapter.ts';
import { type Check, type Finding, runChecks } from '../../mesh/object-check.ts';
import {
  describe,
  fields,
  hasLabels,
  type KubeObject,
  listOfFields,
  type ObjectRef,
  OWNER_LABEL,
  refOf,
  text,
} from '../../objects/objects.ts';
import { type Certificate, parseCertificates } from '../../pki/certificate.ts';
import { authorityOf, findPath } from '../../pki/chain.ts';
import {
  type ClusterSnapshot,
  type Diagnosis,
  type ObservedObjects,
  objectsOf,
  type RouteInput,
  type Scope,
  type SecretUse,
  type SnapshotObjects,
} from '../gateway.ts';

import { decodeData, ownerLabel, parsedValue, readPair, type SecretPair } from '../publication.ts';
import {
  backendPlaces,
  CORE_RESOURCES,
  ENVOY_GATEWAY,
  type GatewayApiConfig,
  gatewayApiFields,
  gatewayPlaces,
  GATEWAY_API_RESOURCES as KINDS,
  policyPlaces,
  servicePlaces,
} from './config.ts';
import { backendsIn, namedPorts } from './policies.ts';
import {
  clientField,
  clientRefOf,
  controllerOf,
  gatewayApiRoutes,
  isEnvoyProxy,
  isGateway,
  isGranted,
  proxyRefOf,
} from './routes.ts';

const CHANNEL = 'gateway.networking.k8s.io/channel';
const VERSION = 'gateway.networking.k8s.io/bundle-version';
const FIX = 'install the Gateway API, version 1.4 or later, from its standard channel';

function experimental({ metadata }: KubeObject) {
  const { [CHANNEL]: channel, [VERSION]: version } = metadata.annotations ?? {};
  if (channel !== 'experimental') return undefined;
  const message = `it is version ${version} of the experimental channel, whose fields and versions can change or go with the next upgrade`;
  return { message, fix: FIX };
}

function diagnose(snapshot: ClusterSnapshot): readonly Finding[] {
  return runChecks(CHECKS, worldOf(snapshot));
}

function objectsToRead(object: KubeObject): readonly ObjectRef[] {
  if (object.kind === KINDS.policies.kind) {
    const { namespace } = object.metadata;
    const { apiVersion, kind } = CORE_RESOURCES.configMaps;
    return listOfFields(fields(fields(object.spec).validation).caCertificateRefs)
      .filter((ref) => ref.kind === kind)
      .map(({ name }) => ({ apiVersion, kind, namespace, name: String(name) }));
  }
  const certificate = namedCertificate(object);
  return certificate ? [{ apiVersion: 'v1', kind: 'Secret', ...certificate.secret }] : [];
}

type GatewayApiCheck = Check<GatewayApiWorld>;

/** Where a Gateway, an EnvoyProxy or a Backend names a client certificate. */
interface NamedCertificate {
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
interface PolicyReference {
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
  /** The MeshCertificates for this kind of gateway, which an agent will act on. */
  readonly promises: readonly PromisedPolicies[];
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
    promises: promisesOf(all('MeshCertificate'), snapshot),
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
const nameOf = ({ namespace, name }: SecretUse): string => `${namespace}/${name}`;

const SERVICE = CORE_RESOURCES.services.kind;

const backendChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1801',
    severity: 'error',
    title: 'No ReferenceGrant lets a route use a Service of another namespace',
    *run(world) {
      for (const { route, kind, gateways, ...ref } of world.backends) {
        if (ref.namespace === route.metadata.namespace || gateways.length === 0) continue;
        if (!world.snapshot.whole.has('ReferenceGrant') && !world.find(kind, ref)) continue;
        if (isGranted(world.all(KINDS.grants.kind), route, { kind, ...ref })) continue;
        yield {
          object: route,
          message: `it sends requests to ${kind} ${nameOf(ref)}, and no ReferenceGrant there lets objects of the kind ${route.kind} in namespace ${route.metadata.namespace} use it (RefNotPermitted): they end with 500`,
          fix: `create a ReferenceGrant in namespace ${ref.namespace}, from ${route.kind} to ${kind}`,
        };
      }
    },
  },
  {
    code: 'MC1802',
    severity: 'warning',
    title: 'A route reaches a Service on a port that its BackendTLSPolicy does not cover',
    *run({ backends, policies }) {
      for (const { route, kind, port, policy, gateways, ...ref } of backends) {
        if (policy || kind !== SERVICE || gateways.length === 0) continue;
        const beside = policies.find(({ targets }) =>
          targets.some((one) => one.kind === kind && one.namespace === ref.namespace && one.name === ref.name),
        );
        if (!beside) continue;
        yield {
          object: route,
          message: `it sends requests to port ${port} of Service ${nameOf(ref)} in plaintext: ${describe(refOf(beside.object))} is for another port`,
          fix: 'send them to the port of the policy, or give this port a policy of its own',
        };
      }
    },
  },
];

const CONFIG_MAP = CORE_RESOURCES.configMaps.kind;

/** Envoy Gateway takes `ca.crt`, else `tls.crt`, else the only key. */
export function bundleText(bundle: KubeObject): string | undefined {
  const data = fields(bundle.data);
  const [only, ...more] = Object.keys(data);
  return text(data['ca.crt']) ?? text(data['tls.crt']) ?? (more.length === 0 ? text(data[only ?? '']) : undefined);
}

/** The certificates in a ConfigMap; undefined: it is missing, unknown, or holds none. */
function rootsOf({ find }: GatewayApiWorld, ref: SecretUse): readonly Certificate[] | undefined {
  const bundle = find(CONFIG_MAP, ref);
  try {
    const roots = parseCertificates((bundle && bundleText(bundle)) ?? '');
    return roots.length === 0 ? undefined : roots;
  } catch {
    return undefined;
  }
}

/** Each ConfigMap that a policy names, once. */
function* bundlesOf({ policies }: GatewayApiWorld): Generator<{ policy: KubeObject; ref: SecretUse }> {
  const seen = new Set<string>();
  for (const { object, bundles } of policies) {
    for (const ref of bundles) {
      if (seen.has(nameOf(ref))) continue;
      seen.add(nameOf(ref));
      yield { policy: object, ref };
    }
  }
}

const bundleChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1701',
    severity: 'error',
    title: 'An expired root hides the valid one of the same key',
    *run(world) {
      const { now } = world.snapshot;
      for (const { ref } of bundlesOf(world)) {
        const first = new Map<string, Certificate>();
        for (const root of rootsOf(world, ref) ?? []) {
          const before = first.get(authorityOf(root));
          if (!before) first.set(authorityOf(root), root);
          const object = world.find(CONFIG_MAP, ref);
          if (!object || !before || before.notAfter > now || root.notAfter <= now) continue;
          yield {
            object,
            message: `its first root ${before.subject} ended on ${toRfc3339(before.notAfter)}, and the valid one of the same key comes after it: Envoy finds the expired one and refuses every upstream of this root with 503`,
            fix: 'remove the expired root, or write the newest first',
          };
        }
      }
    },
  },
  {
    code: 'MC1702',
    severity: 'error',
    title: 'A ConfigMap with roots holds no certificate',
    *run(world) {
      for (const { ref } of bundlesOf(world)) {
        const object = world.find(CONFIG_MAP, ref);
        if (!object || !bundleText(object) || rootsOf(world, ref)) continue;
        yield {
          object,
          message:
            'it has text that is not PEM of certificates: Envoy keeps the last good roots, a proxy that starts has none, and every status stays Accepted',
          fix: 'write the roots of the mesh as PEM under ca.crt',
        };
      }
    },
  },
  {
    code: 'MC1703',
    severity: 'error',
    title: 'A BackendTLSPolicy names a ConfigMap without roots',
    *run(world) {
      if (!world.known(CONFIG_MAP)) return;
      const promised = promisedBundles(world);
      for (const { policy, ref } of bundlesOf(world)) {
        const bundle = world.find(CONFIG_MAP, ref);
        if ((bundle && bundleText(bundle)) || (!bundle && promised.has(nameOf(ref)))) continue;
        yield {
          object: policy,
          message: `${bundle ? `${describe(refOf(bundle))} is empty` : `ConfigMap ${nameOf(ref)} does not exist`}: Envoy Gateway answers every request to its targets with 500 and sends nothing`,
          fix: 'write the roots of the mesh under ca.crt; ConfigMap first, then the policy',
        };
      }
    },
  },
];

const BARE = 'Envoy Gateway then uses TLS without a client certificate';

/** Each existing Secret that is named as a client certificate, once. */
function* namedSecrets({ certificates, find }: GatewayApiWorld): Generator<NamedCertificate & { object: KubeObject }> {
  const seen = new Set<KubeObject>();
  for (const one of certificates) {
    const object = find('Secret', one.secret);
    if (!object || seen.has(object)) continue;
    seen.add(object);
    yield { ...one, object };
  }
}

const clientChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1601',
    severity: 'warning',
    title: 'The TLS settings of a Gateway replace those of its EnvoyProxy',
    *run({ gateways }) {
      for (const { object, proxy, client } of gateways) {
        const given = Object.keys(fields(fields(proxy?.spec).backendTLS));
        if (!proxy || client?.holder !== object || given.length === 0) continue;
        yield {
          object,
          message: `spec.tls.backend replaces all of spec.backendTLS of ${describe(refOf(proxy))} (${given.join(', ')})`,
          fix: 'remove one of the two; a Gateway has no fields for application protocols and TLS versions',
        };
      }
    },
  },
  {
    code: 'MC1602',
    severity: 'warning',
    title: 'Envoy Gateway does not read the Secret of a Gateway again',
    *run(world) {
      const promised = promisedSecrets(world);
      for (const { object, client } of world.gateways) {
        if (!client || client.holder !== object || promised.has(nameOf(client.secret))) continue;
        const isNamed = world.all(KINDS.envoyProxies.kind).some((proxy) => {
          const named = namedCertificate(proxy)?.secret;
          return named && nameOf(named) === nameOf(client.secret);
        });
        if (isNamed) continue;
        yield {
          object,
          message: `only this Gateway names Secret ${nameOf(client.secret)}: after a rotation, its proxies present the old certificate until something else changes or Envoy Gateway restarts`,
          fix: 'name the Secret in spec.backendTLS.clientCertificateRef of an EnvoyProxy in its namespace too; no Gateway has to use that EnvoyProxy',
        };
      }
    },
  },
  {
    code: 'MC1603',
    severity: 'error',
    title: 'The Secret of a client certificate does not exist',
    *run(world) {
      if (!world.known('Secret')) return;
      const promised = world.snapshot.whole.has('Secret') ? new Set<string>() : promisedSecrets(world);
      for (const { holder, field, secret } of world.certificates) {
        if (world.find('Secret', secret) || promised.has(nameOf(secret))) continue;
        yield {
          object: holder,
          message: `spec.${field} names Secret ${nameOf(secret)}, which does not exist: ${isGateway(holder) ? BARE : 'requests through it end with 500, and nothing is sent'}`,
          fix: 'create the Secret first; never delete one that is named',
        };
      }
    },
  },
  {
    code: 'MC1604',
    severity: 'error',
    title: 'The Secret of a client certificate lacks its certificate or its key',
    *run(world) {
      for (const { object, holder } of namedSecrets(world)) {
        const data = decodeData(object);
        const lacks = ['tls.crt', 'tls.key'].filter((key) => data[key] === undefined);
        if (lacks.length === 0) continue;
        yield {
          object,
          message: `it has no ${lacks.join(' and no ')}, and ${describe(refOf(holder))} names it: ${isGateway(holder) ? BARE : 'requests through it end with 503'}`,
          fix: 'write tls.crt and tls.key in one update',
        };
      }
    },
  },
  {
    code: 'MC1605',
    severity: 'error',
    title: 'The key of a client certificate does not belong to it',
    *run(world) {
      for (const { object, secret } of namedSecrets(world)) {
        const { chain, key } = world.pairOf(secret) ?? {};
        const [leaf] = parsedValue(chain) ?? [];
        const own = parsedValue(key);
        const problem = [chain, key].flatMap((part) => (part && 'problem' in part ? [part.problem] : []))[0];
        const fits = leaf && own && leaf.publicKeyFingerprint === own.publicKeyFingerprint;
        if (problem === undefined && (!chain || !key || fits)) continue;
        yield {
          object,
          message: `${problem ?? 'tls.key is the key of another certificate'}: Envoy refuses it and keeps the old pair, new routes and proxies that restart end with 503, and every status stays Accepted`,
          fix: 'write a certificate and its key in one update; then change the ConfigMaps of the policies once more, since Envoy can have missed a change meanwhile',
        };
      }
    },
  },
  {
    code: 'MC1606',
    severity: 'error',
    title: 'No ReferenceGrant lets a Gateway use a Secret of another namespace',
    *run(world) {
      for (const { object, client } of world.gateways) {
        if (!client || client.holder !== object || client.secret.namespace === object.metadata.namespace) continue;
        const { secret } = client;
        if (!world.snapshot.whole.has(KINDS.grants.kind) && !world.find('Secret', secret)) continue;
        if (isGranted(world.all(KINDS.grants.kind), object, { kind: 'Secret', ...secret })) continue;
        yield {
          object,
          message: `spec.${client.field} names Secret ${nameOf(secret)}, and no ReferenceGrant there lets Gateways of namespace ${object.metadata.namespace} use it (RefNotPermitted): ${BARE}`,
          fix: `create a ReferenceGrant in namespace ${secret.namespace}, from Gateway to Secret`,
        };
      }
    },
  },
  {
    code: 'MC1607',
    severity: 'error',
    title: 'A client certificate is not valid now',
    *run(world) {
      const { now } = world.snapshot;
      for (const { object, secret } of namedSecrets(world)) {
        const [leaf] = parsedValue(world.pairOf(secret)?.chain) ?? [];
        if (!leaf || (leaf.notBefore <= now && now < leaf.notAfter)) continue;
        const when =
          leaf.notAfter <= now ? `expired on ${toRfc3339(leaf.notAfter)}` : `begins on ${toRfc3339(leaf.notBefore)}`;
        yield {
          object,
          message: `its certificate ${when}: upstreams that verify it refuse the Gateway with 503`,
          fix: 'let the agent renew it: meshcert status shows why it has not',
        };
      }
    },
  },
  {
    code: 'MC1608',
    severity: 'note',
    title: 'Open connections keep an old certificate without limit',
    *run({ gateways, all }) {
      const limited = all('BackendTrafficPolicy').filter(
        ({ spec }) => fields(fields(fields(spec).timeout).http).maxConnectionDuration !== undefined,
      );
      for (const { object, client } of gateways) {
        const { namespace, name } = object.metadata;
        const isLimited = limited.some(
          ({ metadata, spec }) =>
            metadata.namespace === namespace &&
            [fields(fields(spec).targetRef), ...listOfFields(fields(spec).targetRefs)].some(
              (target) => target.kind === object.kind && target.name === name,
            ),
        );
        if (!client || isLimited) continue;
        yield {
          object,
          message:
            'a connection to an upstream presents the certificate with which it began, for as long as it is open; no BackendTrafficPolicy for this Gateway bounds that',
          fix: 'set timeout.http.maxConnectionDuration in a BackendTrafficPolicy for the Gateway, to less than the lifetime of a certificate',
        };
      }
    },
  },
  {
    code: 'MC1609',
    severity: 'error',
    title: 'A Gateway without a client certificate leads to a Service of the mesh',
    *run({ backends, find }) {
      const seen = new Set<string>();
      for (const { route, gateways, policy, kind, ...ref } of backends) {
        const isOfMesh = policy && (isOurs(policy) || policy.names.some((name) => name.startsWith('spiffe://')));
        const target = kind === BACKEND ? find(kind, ref) : undefined;
        if (!isOfMesh || (target && namedCertificate(target))) continue;
        for (const { object, client, proxy } of gateways) {
          const key = `${object.metadata.namespace}/${object.metadata.name} ${kind} ${nameOf(ref)}`;
          if (client || seen.has(key)) continue;
          seen.add(key);
          const place = proxy && isEnvoyProxy(proxy) ? describe(refOf(proxy)) : 'an EnvoyProxy of its own';
          yield {
            object,
            message: `${describe(refOf(route))} leads through it to ${kind} ${nameOf(ref)}, which ${describe(refOf(policy.object))} verifies, and it presents no certificate: a server that requires one refuses it with 503`,
            fix: `select the Gateway in the MeshCertificate, or name the Secret in spec.backendTLS.clientCertificateRef of ${place}`,
          };
        }
      }
    },
  },
  {
    code: 'MC1610',
    severity: 'warning',
    title: 'A Gateway does not offer the application protocols of the mesh',
    *run(world) {
      for (const { object, proxy, client } of world.gateways) {
        const [leaf] = (client && parsedValue(world.pairOf(client.secret)?.chain)) ?? [];
        const adapter = leaf && world.snapshot.adapters.find(({ names }) => names?.(leaf.names));
        const wanted = adapter?.tls.alpnProtocols?.split(',') ?? [];
        const settings = client?.holder === object ? {} : fields(fields(proxy?.spec).backendTLS);
        const offered = Array.isArray(settings.alpnProtocols) ? settings.alpnProtocols : [];
        if (!client || !adapter || wanted.length === 0 || wanted.some((one) => offered.includes(one))) continue;
        yield {
          object: client.holder,
          message: `sidecars of ${adapter.title} that also accept plaintext recognize TLS of the mesh by the protocols ${wanted.join(', ')}, and ${offered.length === 0 ? 'it offers none of its own' : `it offers ${offered.join(', ')}`}: they refuse the connection`,
          fix: isGateway(client.holder)
            ? 'name the certificate in spec.backendTLS of an EnvoyProxy instead, with alpnProtocols; or let the servers require mTLS'
            : `set spec.backendTLS.alpnProtocols: [${wanted.join(', ')}]`,
        };
      }
    },
  },
];

const PLAINTEXT = 'requests go to it in plaintext, and no status says so';

/** The targets of all policies, with the policy that names them; of one target, the policy that counts comes first. */
function* targetsOf({ policies }: GatewayApiWorld): Generator<{ policy: SeenPolicy; target: PolicyReference }> {
  for (const policy of policies) for (const target of policy.targets) yield { policy, target };
}

const isService = ({ kind }: PolicyReference): boolean => kind === CORE_RESOURCES.services.kind;
const titleOf = (target: PolicyReference): string =>
  `${target.section === undefined ? '' : `port ${target.section} of `}${target.kind} ${nameOf(target)}`;

const policyChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC1501',
    severity: 'error',
    title: 'A BackendTLSPolicy matches no port',
    *run(world) {
      for (const { policy, target } of targetsOf(world)) {
        if (!isService(target) || !world.known(target.kind)) continue;
        const service = world.find(target.kind, target);
        if (
          service &&
          (target.section === undefined || namedPorts(service).some(({ name }) => name === target.section))
        )
          continue;
        const names = service ? namedPorts(service).map(({ name }) => name) : [];
        const why = !service
          ? 'which does not exist'
          : names.length === 0
            ? 'whose ports have no names'
            : `whose ports are ${names.join(', ')}`;
        yield {
          object: policy.object,
          message: `its target is ${titleOf(target)}, ${why}: ${service ? PLAINTEXT : 'a Service that is created later under another name gets plaintext'}`,
          fix: 'write the name of a port, not its number, as sectionName; name the port in the Service',
        };
      }
    },
  },
  {
    code: 'MC1502',
    severity: 'error',
    title: 'Two BackendTLSPolicies have the same target',
    *run(world) {
      const first = new Map<string, SeenPolicy>();
      for (const { policy, target } of targetsOf(world)) {
        const key = JSON.stringify(target);
        const before = first.get(key);
        if (!before) first.set(key, policy);
        else if (before !== policy)
          yield {
            object: policy.object,
            message: `${describe(refOf(before.object))} is for ${titleOf(target)} too: the older one counts, and this one is refused (Conflicted)`,
            fix: 'delete one of them; first move what only this one requires into the other',
          };
      }
    },
  },
  {
    code: 'MC1503',
    severity: 'warning',
    title: 'A BackendTLSPolicy for a whole Service does not count for one of its ports',
    *run(world) {
      for (const { policy, target } of targetsOf(world)) {
        if (target.section === undefined) continue;
        const whole = { ...target, section: undefined };
        for (const other of world.policies) {
          if (other === policy || !other.targets.some((one) => JSON.stringify(one) === JSON.stringify(whole))) continue;
          yield {
            object: other.object,
            message: `it is for all of ${titleOf(whole)}, but ${describe(refOf(policy.object))} counts for port ${target.section}: there, this one has no effect, and no status says so`,
            fix: 'name the ports that it is for as sectionName',
          };
        }
      }
    },
  },
  {
    code: 'MC1504',
    severity: 'error',
    title: 'A BackendTLSPolicy for a mesh without DNS names has no subjectAltNames',
    *run(world) {
      const { now } = world.snapshot;
      const found = new Set<SeenPolicy>();
      for (const { policy, gateways } of world.backends) {
        if (!policy || policy.names.length > 0 || found.has(policy)) continue;
        const roots = policy.bundles.flatMap((bundle) => rootsOf(world, bundle) ?? []);
        const isOfMesh = gateways.some(({ client }) => {
          const [leaf, ...others] = (client && parsedValue(world.pairOf(client.secret)?.chain)) ?? [];
          if (!leaf || leaf.names.dns.length > 0 || leaf.names.uris.length === 0) return false;
          return findPath(leaf, others, roots, now).ok;
        });
        if (!isOfMesh) continue;
        found.add(policy);
        yield {
          object: policy.object,
          message: `without subjectAltNames, the certificate of the upstream must have the DNS name ${policy.hostname}; those of this mesh have SPIFFE IDs alone, so every request ends with 503`,
          fix: 'add subjectAltNames of type URI with the SPIFFE IDs of the workloads',
        };
      }
    },
  },
  {
    code: 'MC1505',
    severity: 'error',
    title: 'The mesh applies a BackendTLSPolicy to its own sidecars',
    *run(world) {
      const { adapters } = world.snapshot;
      for (const adapter of adapters) {
        const taker = world
          .all(KINDS.classes.kind)
          .find(({ spec }) => adapter.takesPoliciesOf?.(text(fields(spec).controllerName) ?? ''));
        if (!taker) continue;
        for (const { policy, target } of targetsOf(world)) {
          const service = isService(target) ? world.find(target.kind, target) : undefined;
          const member = service && podsBehind(world, service).find((pod) => isMember(world, adapter.pods, pod));
          if (!member) continue;
          yield {
            object: policy.object,
            message: `${adapter.title} watches the Gateway API (GatewayClass ${taker.metadata.name}), and Pod ${member.metadata.name} of ${titleOf(target)} is in the mesh: sidecars that call the Service connect without their certificate, and a server that requires mTLS refuses them`,
            fix: 'make the target a Backend, or end the watch; docs/gateway-api.md shows how',
          };
        }
      }
    },
  },
  {
    code: 'MC1506',
    severity: 'error',
    title: 'The controller of a Gateway refuses a BackendTLSPolicy',
    *run({ policies, gateways, all }) {
      const controllers = new Set(gateways.flatMap(({ object }) => controllerOf(object, { behind: all }) ?? []));
      for (const { object } of policies) {
        for (const { ancestorRef, controllerName, conditions } of listOfFields(fields(object.status).ancestors)) {
          if (!controllers.has(String(controllerName))) continue;
          for (const { type, status, reason, message, observedGeneration } of listOfFields(conditions)) {
            const isOld = Number(observedGeneration ?? 0) < (object.metadata.generation ?? 0);
            if (status !== 'False' || isOld || reason === 'Conflicted') continue;
            yield {
              object,
              message: `${type} is False for Gateway ${String(fields(ancestorRef).name)}, ${String(reason)}: ${String(message)}`,
              fix: 'correct what the message names; until then, requests end with 500 or 503',
            };
          }
        }
      }
    },
  },
];

function podsBehind({ all }: GatewayApiWorld, service: KubeObject): readonly KubeObject[] {
  const labels = fields(fields(service.spec).selector);
  if (Object.keys(labels).length === 0) return [];
  return all(CORE_RESOURCES.pods.kind).filter(
    (pod) => pod.metadata.namespace === service.metadata.namespace && hasLabels(pod, labels),
  );
}

function isMember(
  { all }: GatewayApiWorld,
  pods: GatewayApiWorld['snapshot']['adapters'][number]['pods'],
  pod: KubeObject,
): boolean {
  const namespace = all('Namespace').find(({ metadata }) => metadata.name === pod.metadata.namespace);
  return pods?.membership(pod, namespace) !== undefined;
}

/** Whether the agent wrote it. */
const isOurs = ({ object }: SeenPolicy): boolean => object.metadata.labels?.[OWNER_LABEL] !== undefined;

/** A MeshCertificate for this kind of gateway, which an agent will act on. */
interface PromisedPolicies {
  readonly object: KubeObject;
  readonly input: RouteInput<GatewayApiConfig>;
}

function promisesOf(
  certificates: readonly KubeObject[],
  { parse, adapters }: ClusterSnapshot,
): readonly PromisedPolicies[] {
  return certificates.flatMap((object) => {
    const spec = parse?.(object)?.spec;
    const config = spec?.gateways[gatewayApiFields.kind] as GatewayApiConfig | undefined;
    const adapter = adapters.find(({ mesh }) => mesh === spec?.mesh.name);
    if (!spec || !config || !adapter) return [];
    const { name, namespace = '', uid } = object.metadata;
    const mesh = { ...adapter, tls: tlsDefaults(adapter, spec.mesh.config) };
    return [{ object, input: { meta: { name, namespace, uid }, spec, config, mesh } }];
  });
}

/** The Secrets that an agent will write, `namespace/name`. */
const promisedSecrets = ({ promises }: GatewayApiWorld): ReadonlySet<string> =>
  new Set(promises.map(({ input: { meta, spec } }) => `${meta.namespace}/${spec.secretName}`));

/** The ConfigMaps that an agent will write, `namespace/name`. */
const promisedBundles = ({ promises }: GatewayApiWorld): ReadonlySet<string> =>
  new Set(
    promises.flatMap(({ input: { config, meta } }) =>
      policyPlaces(config, meta.namespace).map((namespace) => nameOf({ namespace, name: config.caConfigMapName })),
    ),
  );

/** What the agent would observe. Kinds and namespaces that were not read are hidden. */
function observedBy({ all, known, snapshot }: GatewayApiWorld, input: RouteInput<GatewayApiConfig>): ObservedObjects {
  const inScopes = (scopes: readonly Scope[]) =>
    scopes.flatMap(({ resource, namespace, name }) =>
      all(resource.kind).filter(
        ({ metadata }) =>
          (namespace === undefined || metadata.namespace === namespace || !resource.namespaced) &&
          (name === undefined || metadata.name === name),
      ),
    );
  const unique = (objects: readonly KubeObject[]) => [...new Set(objects)];
  const scopes = gatewayApiRoutes.scopes(input);
  const label = ownerLabel(input.meta);
  const own = unique(inScopes(scopes.own)).filter(({ metadata }) => metadata.labels?.[OWNER_LABEL] === label);
  const routes = unique(inScopes(scopes.routes)).filter(gatewayApiRoutes.concern(input, own));
  const behind = unique(inScopes(gatewayApiRoutes.behind(input, { routes, own })));
  return {
    routes,
    own,
    behind: (kind) => behind.filter((object) => object.kind === kind),
    unseen: new Map(),
    hidden: (kind, namespace) =>
      known(kind) && wasRead(snapshot, namespace) ? undefined : 'they are not among these objects',
    unserved: new Set(),
  };
}

/** What is in no namespace was read in any case. */
const wasRead = ({ namespaces }: ClusterSnapshot, namespace: string | undefined): boolean =>
  namespaces === undefined || namespace === undefined || namespaces.includes(namespace);

/** What cannot be judged without the mesh, or without what was read. */
const UNDECIDED = ['ERR_TARGET_UNSEEN', 'ERR_TARGET_NO_PEER'];

/** The next step of a refusal follows its last semicolon; that of an adapter from elsewhere may have none. */
function causeAndFix(message: string): readonly [cause: string, fix: string] {
  const end = message.lastIndexOf('; ');
  return end < 0 ? [message, 'correct what the message names'] : [message.slice(0, end), message.slice(end + 2)];
}

const promiseChecks: readonly GatewayApiCheck[] = [
  {
    code: 'MC5101',
    severity: 'error',
    title: 'A selected Gateway or Service cannot use the certificate',
    *run(world) {
      for (const { object, input } of world.promises) {
        if (fields(object.spec).paused === true) continue;
        for (const { outcome, route } of gatewayApiRoutes.judge(input, observedBy(world, input)).verdicts) {
          if (!('code' in outcome) || UNDECIDED.includes(outcome.code)) continue;
          const [cause, fix] = causeAndFix(outcome.message);
          yield { object: route, message: `${describe(refOf(object))}: ${cause} (${outcome.code})`, fix };
        }
      }
    },
  },
  {
    code: 'MC5102',
    severity: 'warning',
    title: 'The MeshCertificate selects no Gateway or no Service',
    *run(world) {
      for (const { object, input } of world.promises) {
        const { routes } = observedBy(world, input);
        const { config, meta } = input;
        for (const [kind, selector, places] of [
          ['Gateway', config.gateways?.selector, gatewayPlaces(config, meta.namespace)],
          ['Service', config.services?.selector, servicePlaces(config, meta.namespace)],
          ['Backend', config.backends?.selector, backendPlaces(config, meta.namespace)],
        ] as const) {
          if (!selector || !world.known(kind) || routes.some((one) => one.kind === kind)) continue;
          if (!places.every((place) => wasRead(world.snapshot, place))) continue;
          const labels = Object.entries(selector.matchLabels).map(([key, value]) => `${key}=${value}`);
          yield {
            object,
            message: `no ${kind} in its namespaces has the label ${labels.join(',')}: ${kind === 'Gateway' ? 'nothing presents the certificate, and no policy is written' : 'no upstream is verified'}`,
            fix: `label one, or correct spec.gatewayApi.${kind.toLowerCase()}s`,
          };
        }
      }
    },
  },
];

const CHECKS: readonly GatewayApiCheck[] = [
  ...policyChecks,
  ...clientChecks,
  ...bundleChecks,
  ...backendChecks,
  ...promiseChecks,
];

export const gatewayApiDiagnosis: Diagnosis = {
  resources: [
    ...Object.values(KINDS),
    CORE_RESOURCES.endpointSlices,
    { ...KINDS.envoyProxies, kind: 'BackendTrafficPolicy', plural: 'backendtrafficpolicies' },
  ],
  checks: CHECKS,
  areas: [
    { prefix: 'MC15', name: 'BackendTLSPolicies' },
    { prefix: 'MC16', name: 'client certificates of Gateways' },
    { prefix: 'MC17', name: 'roots of BackendTLSPolicies' },
    { prefix: 'MC18', name: 'routes of Gateways' },
    { prefix: 'MC51', name: 'MeshCertificates for Gateway API' },
  ],
  objectsToRead,
  diagnose,
  served: [
    ...[KINDS.policies, KINDS.gateways, KINDS.classes, KINDS.httpRoutes].map((resource) => ({
      resource,
      fix: FIX,
      experimental,
    })),
    { resource: KINDS.envoyProxies, fix: 'install the CRDs of Envoy Gateway' },
  ],
};
