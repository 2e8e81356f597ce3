import { CONSENT_ANNOTATION, consents } from '../../core/consent.ts';
import { emergencyAt } from '../../core/schedule.ts';
import { toRfc3339 } from '../../core/status.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { containerFields } from '../../mesh/cluster.ts';
import {
  type Check,
  type CheckedObjects,
  type ClientTls,
  type Finding,
  runChecks,
  type Severity,
} from '../../mesh/object-check.ts';
import {
  describe,
  fields,
  hasLabels,
  type KubeObject,
  type ObjectRef,
  OWNER_LABEL,
  refOf,
  text,
} from '../../objects/objects.ts';
import type { Certificate } from '../../pki/certificate.ts';
import { authorityOf, findPath, MOST_IN_ORDER, reachesRoot } from '../../pki/chain.ts';
import { describeKeyType, type KeyType } from '../../pki/key-type.ts';
import {
  type ClusterSnapshot,
  type Diagnosis,
  type GatewaySettings,
  objectsOf,
  type SnapshotObjects,
} from '../gateway.ts';
import { decodeData, ownerLabel, parsedValue, readPair, type SecretPair } from '../publication.ts';
import { BATCH_GAP_MS, contextNameProblem, EMISSARY_RESOURCES, secretNameProblem } from './config.ts';
import {
  answersTo,
  type ContextReading,
  type ContextSpec,
  contextSpec,
  DEFAULT_ENV,
  type EffectiveUpstream,
  type EmissaryEnv,
  effectiveUpstream,
  findGateways,
  inOrder,
  isConnector,
  type MappingSpec,
  mappingSpec,
  moduleSettings,
  namespacing,
  parseService,
  type ReadMapping,
  type Resolver,
  readContexts,
  readSecretFiles,
  resolversIn,
  SECRET_TYPES,
  type SecretRef,
  secretRef,
  seesMapping,
  shippingNamespacing,
  visible,
} from './reading.ts';

function diagnose(snapshot: ClusterSnapshot, { id, namespace }: GatewaySettings): Finding[] {
  const env: Partial<EmissaryEnv> = {
    ...(id === undefined ? {} : { ambassadorId: id }),
    ...(namespace === undefined ? {} : { namespace }),
  };
  const gateways = findGateways(snapshot.objects);
  const worlds =
    gateways.length > 0
      ? gateways.map(({ object, env: found }) => worldOf(snapshot, { ...found, ...env }, object))
      : [worldOf(snapshot, { ...DEFAULT_ENV, ...env }, undefined)];
  return worlds.flatMap((world) => [
    ...runChecks(OWN, world),
    ...snapshot.adapters.flatMap(({ mesh, checks = [] }) => runChecks(checks, objectsFor(mesh, world))),
  ]);
}

function objectsToRead(object: KubeObject): readonly ObjectRef[] {
  if (object.kind !== EMISSARY_RESOURCES.tlsContexts.kind) return [];
  const { secret, caSecret, crlSecret } = contextSpec(object);
  const { namespace = '' } = object.metadata;
  return [secret, caSecret, crlSecret].flatMap((name) => {
    if (name === undefined) return [];
    const dot = name.lastIndexOf('.');
    const places = [
      { namespace, name },
      ...(dot < 0 ? [] : [{ namespace: name.slice(dot + 1), name: name.slice(0, dot) }]),
    ];
    return places.map((place) => ({ apiVersion: 'v1', kind: 'Secret', ...place }));
  });
}

type EmissaryCheck = Check<InterpretedCluster>;

interface SeenMapping extends ReadMapping {
  readonly spec: MappingSpec;
  /** The Service behind it, as far as the name shows. */
  readonly service: { readonly name: string; readonly namespace: string };
}

interface SeenContext {
  readonly object: KubeObject;
  readonly spec: ContextSpec;
  readonly reading: ContextReading;
  /** Whether a Mapping of this gateway names it. */
  readonly used: boolean;
  readonly secret: SecretRef | undefined;
  readonly caSecret: SecretRef | undefined;
  /** The content of its Secrets; absent if they are missing or were not read. */
  readonly pair: SecretPair | undefined;
  /** Determined from the form of the identity, or otherwise from the MeshCertificate that writes it. */
  readonly mesh: string | undefined;
}

/** What a MeshCertificate will write, once an agent runs. */
interface Promised {
  readonly object: KubeObject;
  readonly mesh: string | undefined;
  /** Whether it has a context for each target, whose names begin with `contextName-`. */
  readonly perTarget: boolean;
  readonly namespace: string;
  readonly secretName: string;
  readonly contextName: string;
}

/** One gateway's view of a snapshot, with all values that more than one check needs. */
interface InterpretedCluster extends SnapshotObjects {
  readonly snapshot: ClusterSnapshot;
  readonly env: EmissaryEnv;
  /** The Deployment or DaemonSet of the gateway, if it was found. */
  readonly gateway: KubeObject | undefined;
  /** Contexts that this gateway reads and that originate TLS. */
  readonly contexts: readonly SeenContext[];
  /** In the order in which the gateway makes their clusters. */
  readonly mappings: readonly SeenMapping[];
  readonly promises: readonly Promised[];
}

function worldOf(snapshot: ClusterSnapshot, given: EmissaryEnv, gateway: KubeObject | undefined): InterpretedCluster {
  const objects = objectsOf(snapshot);
  const { all, find } = objects;
  const env: EmissaryEnv = {
    ...given,
    module: given.module ?? moduleSettings(all('Module'), given),
    resolvers: resolversIn(snapshot.objects, given),
  };
  const readings = readContexts(all('TLSContext'), all('Secret'), env);
  const mappings = inOrder(
    [...all('Mapping'), ...all('TCPMapping')]
      .filter((mapping) => seesMapping(mapping, env))
      .map((object) => seenMapping(object, effectiveUpstream(object, readings, [], env), env)),
  );
  const promises = all('MeshCertificate')
    .filter((object) => snapshot.uses?.(object, 'emissary') !== false)
    .map((object) => promiseOf(object, snapshot.adapters));
  const named = new Set(mappings.map(({ spec }) => spec.tls));
  const contexts = [...readings].flatMap(([name, reading]) => {
    const { object } = reading;
    const spec = contextSpec(object);
    const used = named.has(name);
    if (spec.hosts.length > 0 && !used) return [];
    const refOf = (wanted: string | undefined) =>
      wanted === undefined ? undefined : secretRef(wanted, object, namespacing(spec, env));
    const [secret, caSecret] = [refOf(spec.secret), refOf(spec.caSecret)];
    const pair = readPair(secret && find('Secret', secret), caSecret && find('Secret', caSecret));
    const [leaf] = parsedValue(pair?.chain) ?? [];
    const mesh = leaf && snapshot.adapters.find((adapter) => adapter.names?.(leaf.names))?.mesh;
    const promise = promises.find((one) => one.namespace === secret?.namespace && one.secretName === secret.name);
    return [{ object, spec, reading, used, secret, caSecret, pair, mesh: mesh ?? promise?.mesh }];
  });
  return { ...objects, snapshot, env, gateway, contexts, mappings, promises };
}

function seenMapping(object: KubeObject, upstream: EffectiveUpstream, env: EmissaryEnv): SeenMapping {
  const [name = '', namespace = env.namespace] = upstream.host.split('.');
  return { object, spec: mappingSpec(object), upstream, service: { name, namespace } };
}

function promiseOf(object: KubeObject, adapters: readonly Adapter[]): Promised {
  const spec = fields(object.spec);
  const { name, namespace = '' } = object.metadata;
  const adapter = adapters.find(({ mesh }) => spec[mesh] !== undefined);
  return {
    object,
    mesh: adapter?.mesh,
    perTarget: adapter?.sniPerTarget === true,
    namespace,
    secretName: text(spec.secretName) ?? `${name}-identity`,
    contextName: text(fields(spec.tlsContext).name) ?? name,
  };
}

/** Whether a context of this name will be written for it. */
const willWrite = ({ contextName, perTarget }: Promised, context: string): boolean =>
  contextName === context || (perTarget && context.startsWith(`${contextName}-`));

/** The input of the checks of a mesh's adapter. */
function objectsFor(mesh: string, { contexts, mappings, all, find }: InterpretedCluster): CheckedObjects {
  const byName = new Map(contexts.filter((one) => one.mesh === mesh).map((one) => [one.reading.name, clientTls(one)]));
  const routes = mappings.flatMap(({ object, spec, upstream, service }) => {
    const tls = typeof spec.tls === 'string' ? byName.get(spec.tls) : undefined;
    const namesPort = parseService(spec.service).port !== undefined;
    return tls ? [{ object, tls, service: spec.service, namesPort, port: upstream.port, upstream: service }] : [];
  });
  return { tls: [...byName.values()], routes, all, find };
}

const clientTls = ({ object, spec, pair }: SeenContext): ClientTls => ({
  object,
  sni: spec.sni,
  alpnProtocols: (spec.alpnProtocols ?? '').split(',').map((one) => one.trim()),
  maxTlsVersion: spec.maxTlsVersion,
  keyType: parsedValue(pair?.key)?.keyType.type,
});

/** What happens when Envoy does not load a part of the configuration. */
const FROZEN =
  'Envoy refuses it, Emissary discards the whole configuration, and every later change of any object is blocked';

/** What an unusable context does, as the end of a sentence. */
const HARM = 'requests of Mappings that name this context are sent in plaintext, or with TLS without verification';

/** What a Secret without the key that Emissary needs of it does to a context, as the end of a sentence. */
function harmOf({ withoutFile }: ContextReading): string {
  if (withoutFile.length === 0) return HARM;
  return `it has another key that Emissary reads, so as soon as a Mapping names this context, Emissary configures ${withoutFile.join(' and ')} without a file. ${FROZEN}`;
}

/** What the gateway does with a Mapping whose context it cannot use, in words. */
const insteadOf = ({ mode, host, port }: EffectiveUpstream): string =>
  mode === 'plaintext'
    ? `requests go to ${host}:${port} in plaintext`
    : `requests go to ${host}:${port} without a client certificate and without verifying the server`;

const gatewayChecks: readonly EmissaryCheck[] = [
  {
    code: 'MC1401',
    severity: 'error',
    title: 'This Emissary does not notice that the Istio files of its sidecar rotate',
    *run({ gateway, env }) {
      if (!gateway || !env.istioSecretDir || !env.version || !olderThan(env.version, [4, 1, 0])) return;
      yield {
        object: gateway,
        message: `Emissary ${env.version} with AMBASSADOR_ISTIO_SECRET_DIR keeps an expired certificate until something else changes (fixed in 4.1.0)`,
        fix: 'let meshcert publish a Secret, and remove the variable and the sidecar; or upgrade to 4.1.0',
      };
    },
  },
  {
    code: 'MC1402',
    severity: 'warning',
    title: 'The gateway batches changes for longer than the agent separates its writes',
    *run({ gateway, env }) {
      if (!gateway || env.batchMs * 2 <= BATCH_GAP_MS) return;
      yield {
        object: gateway,
        message: `AMBASSADOR_RECONFIG_MAX_DELAY is ${env.batchMs / 1000} s: when a Secret and a Mapping change in one batch, the other Mappings keep the old certificate until the next batch without a Mapping`,
        fix: 'set AMBASSADOR_RECONFIG_MAX_DELAY to 1',
      };
    },
  },
  {
    code: 'MC1403',
    severity: 'error',
    title: 'AMBASSADOR_RECONFIG_MAX_DELAY must be above zero',
    *run({ gateway, env }) {
      if (!gateway || env.batchMs > 0) return;
      yield {
        object: gateway,
        message:
          'Emissary exits at its start ("interval must be positive"), so the gateway does not come back after its next restart',
        fix: 'set it to 1, or remove it',
      };
    },
  },
  {
    code: 'MC1404',
    severity: 'warning',
    title: 'The old Consul connector is still running',
    *run({ all }) {
      for (const object of [...all('Deployment'), ...all('DaemonSet')]) {
        if (!containerFields(object).some(isConnector)) continue;
        yield {
          object,
          message:
            'consul_connect_integration writes the same Secret without roots and without checks; two writers of one Secret overwrite each other',
          fix: 'run meshcert agent --consul-connector with its environment instead, and delete the connector (docs/migrate-consul-connector.md)',
        };
      }
    },
  },
  {
    code: 'MC1405',
    severity: 'note',
    title: 'Objects in annotations are not checked',
    *run({ all }) {
      for (const object of all('Service')) {
        const config = object.metadata.annotations?.['getambassador.io/config'];
        if (!config || !/kind:\s*(Mapping|TCPMapping|TLSContext)\b/.test(config)) continue;
        yield {
          object,
          message: 'its annotation getambassador.io/config holds Mappings or TLSContexts, which doctor does not check',
          fix: 'create them as objects of their own',
        };
      }
    },
  },
  {
    code: 'MC1406',
    severity: 'warning',
    title: 'The gateway has a sidecar of the mesh',
    *run({ gateway, contexts, snapshot }) {
      if (!gateway || !contexts.some(({ used }) => used)) return;
      for (const { title, pods } of snapshot.adapters) {
        const fix = pods?.intercepts?.(gateway);
        if (fix === undefined) continue;
        yield {
          object: gateway,
          message: `its ${title} sidecar intercepts outgoing connections, so the gateway's TLS is sent inside the sidecar's TLS, which upstreams do not expect`,
          fix,
        };
      }
    },
  },
  {
    code: 'MC2005',
    severity: 'warning',
    title: 'The certificate comes from the files of the sidecar, without roots',
    *run({ contexts, env }) {
      for (const { object, secret, spec } of contexts) {
        if (secret?.name !== 'istio-certs' || !env.istioSecretDir || spec.caSecret) continue;
        yield {
          object,
          message:
            'Emissary creates istio-certs from key.pem and cert-chain.pem and ignores root-cert.pem: the upstream is not verified, and files that change more than 5 s apart are missed',
          fix: 'let meshcert publish the certificate, and name its Secrets as secret and ca_secret',
        };
      }
    },
  },
];

function olderThan(version: string, than: readonly number[]): boolean {
  const parts = version.split('.').map(Number);
  for (const [at, wanted] of than.entries()) {
    const part = parts[at] ?? 0;
    if (part !== wanted) return part < wanted;
  }
  return false;
}

const mappingsNaming = ({ mappings }: InterpretedCluster, name: string) =>
  mappings.filter(({ spec }) => spec.tls === name);

const contextChecks: readonly EmissaryCheck[] = [
  {
    code: 'MC1001',
    severity: 'error',
    title: 'A Mapping names a TLSContext that does not exist',
    *run(world) {
      for (const mapping of world.mappings) {
        const { tls } = mapping.spec;
        // MC1305 covers this case.
        if (typeof tls !== 'string' || tls === 'true' || !world.known('TLSContext')) continue;
        if (!world.snapshot.whole.has('TLSContext') && world.promises.some((one) => willWrite(one, tls))) continue;
        if (mapping.upstream.context || world.all('TLSContext').some(({ metadata }) => metadata.name === tls)) continue;
        if (world.contexts.some(({ reading }) => reading.name === tls)) continue;
        yield {
          object: mapping.object,
          message: `it names the TLSContext ${tls}, which does not exist: ${insteadOf(mapping.upstream)}`,
          fix: `create the TLSContext ${tls}, or correct spec.tls`,
        };
      }
    },
  },
  {
    code: 'MC1002',
    severity: 'error',
    title: 'The TLSContext of a Mapping is not for this gateway',
    *run(world) {
      for (const mapping of world.mappings) {
        const { tls } = mapping.spec;
        if (typeof tls !== 'string' || mapping.upstream.context) continue;
        const all = world.all('TLSContext').filter(({ metadata }) => metadata.name === tls);
        const seen = all.filter((one) => visible(one, world.env));
        if (all.length === 0 || seen.some((one) => answersTo(contextSpec(one).ambassadorId, world.env.ambassadorId)))
          continue;
        const why =
          seen.length > 0
            ? `its ambassador_id does not name ${world.env.ambassadorId}`
            : world.env.singleNamespace && all.every(({ metadata }) => metadata.namespace !== world.env.namespace)
              ? `the gateway watches only the namespace ${world.env.namespace}`
              : `its labels do not match AMBASSADOR_LABEL_SELECTOR=${world.env.labelSelector}`;
        yield {
          object: mapping.object,
          message: `its TLSContext ${tls} exists, but this gateway does not use it (${why}): ${insteadOf(mapping.upstream)}`,
          fix: 'give the TLSContext the ambassador_id, the namespace and the labels of this gateway',
        };
      }
    },
  },
  {
    code: 'MC1003',
    severity: 'error',
    title: 'Two TLSContexts have the same name',
    *run({ contexts, all, env }) {
      const seen = all('TLSContext').filter(
        (one) => visible(one, env) && answersTo(contextSpec(one).ambassadorId, env.ambassadorId),
      );
      for (const name of new Set(seen.map(({ metadata }) => metadata.name))) {
        const same = seen.filter(({ metadata }) => metadata.name === name);
        const [first, ...others] = same.sort((a, b) => compare(a.metadata.namespace, b.metadata.namespace));
        if (!first || !contexts.some(({ reading }) => reading.name === name)) continue;
        for (const object of others) {
          yield {
            object,
            message: `${describe(refOf(first))} has the same name and comes first, so every Mapping with tls: ${name} uses that one, and Emissary reports no error`,
            fix: 'rename one of the two: names of TLSContexts are global across namespaces',
          };
        }
      }
    },
  },
  {
    code: 'MC1004',
    severity: 'error',
    title: 'cert_required is set on a TLSContext that originates TLS',
    *run({ contexts }) {
      for (const { object, spec, used } of contexts) {
        if (spec.certRequired === undefined || !used) continue;
        yield {
          object,
          message:
            'cert_required is for clients of the gateway; here it makes Envoy refuse the whole configuration, and every later change of any object is blocked',
          fix: 'remove cert_required; the upstream decides whether it requires a certificate',
        };
      }
    },
  },
  {
    code: 'MC1005',
    severity: 'warning',
    title: 'The upstream is not verified',
    *run(world) {
      for (const { object, spec, reading, pair } of world.contexts) {
        if (spec.caSecret ?? spec.caCertChainFile ?? pair?.roots) continue;
        if (mappingsNaming(world, reading.name).length === 0 && spec.secret === undefined) continue;
        yield {
          object,
          message: 'it has no ca_secret, so the gateway accepts any server as the upstream',
          fix: 'name a Secret with the roots of the mesh under tls.crt as ca_secret',
        };
      }
    },
  },
  {
    code: 'MC1006',
    severity: 'error',
    title: 'ca_secret without a client certificate',
    *run({ contexts }) {
      for (const { object, spec } of contexts) {
        if (!spec.caSecret || spec.secret || spec.certChainFile) continue;
        yield {
          object,
          message:
            'ca_secret alone makes the context unusable: "cannot validate client certs without TLS termination". Mappings that name it get plaintext, or TLS without verification',
          fix: 'also name a Secret with certificate and key as secret, even if the upstream requires none',
        };
      }
    },
  },
  {
    code: 'MC1007',
    severity: 'error',
    title: 'A TLSContext names both a Secret and files, or only one of the two files',
    *run({ contexts }) {
      for (const { object, spec } of contexts) {
        const both = spec.secret && spec.certChainFile;
        const half = spec.certChainFile && !spec.privateKeyFile;
        if (!both && !half) continue;
        yield {
          object,
          message: `${both ? 'secret and cert_chain_file cannot both be set' : 'cert_chain_file needs private_key_file'}, so Emissary refuses the context`,
          fix: 'keep secret, and remove the files',
        };
      }
    },
  },
  {
    code: 'MC1008',
    severity: 'warning',
    title: 'Certificates come from files, which the gateway does not watch',
    *run({ contexts }) {
      for (const { object, spec, used } of contexts) {
        if (!used || !(spec.certChainFile ?? spec.caCertChainFile)) continue;
        yield {
          object,
          message:
            'Emissary reads files when its configuration changes, not when the files change: it uses a rotated certificate late or never',
          fix: 'use secret and ca_secret',
        };
      }
    },
  },
  {
    code: 'MC1009',
    severity: 'error',
    title: 'min_tls_version is above max_tls_version',
    *run({ contexts }) {
      for (const { object, spec } of contexts) {
        if (!spec.minTlsVersion || !spec.maxTlsVersion || spec.minTlsVersion <= spec.maxTlsVersion) continue;
        yield {
          object,
          message: `${spec.minTlsVersion} is above ${spec.maxTlsVersion}: every handshake fails`,
          fix: 'swap them, or remove one',
        };
      }
    },
  },
  {
    code: 'MC1010',
    severity: 'error',
    title: 'The name of an originating TLSContext ties it to a Host',
    *run({ contexts, all, env }) {
      for (const { object, spec } of contexts) {
        const { name } = object.metadata;
        const host = name.endsWith('-context') && hostTiedTo(name, all('Host'), env);
        if (!host || spec.hosts.length > 0) continue;
        const title = describe(refOf(host));
        const own = text(fields(fields(host.spec).tlsSecret).name);
        yield {
          object,
          message:
            spec.secret === undefined || spec.secret === own
              ? `because of its name ${name}, Emissary also uses it for the clients of ${title}`
              : `because of its name ${name}, Emissary uses it as the TLS settings of ${title}. Its secret ${spec.secret} differs from the Host's ${own}, so Emissary drops the Host`,
          fix: 'rename the TLSContext, or name another one in spec.tlsContext of the Host',
        };
      }
    },
  },
  {
    code: 'MC1011',
    severity: 'error',
    title: 'The revocation list of a TLSContext is missing',
    *run({ contexts, known }) {
      for (const { object, spec, reading } of contexts) {
        const isMissing =
          reading.withoutFile.includes('crl') || reading.errors.some((error) => error.includes('revocation'));
        if (!isMissing || !known('Secret')) continue;
        yield {
          object,
          message: `crl_secret ${spec.crlSecret} has no crl.pem: ${harmOf(reading)}`,
          fix: 'create the Secret with the key crl.pem, or remove crl_secret',
        };
      }
    },
  },
  {
    code: 'MC1012',
    severity: 'error',
    title: 'A TLSContext has no certificate at all',
    *run({ mappings, contexts }) {
      for (const { object, reading } of contexts) {
        if (!reading.errors.some((error) => error.includes('no certificate information'))) continue;
        const user = mappings.find(({ spec }) => spec.tls === reading.name);
        if (!user) continue;
        yield {
          object,
          message: `it names neither a Secret nor files, so Emissary treats it as not defined: for ${describe(refOf(user.object))} ${insteadOf(user.upstream)}`,
          fix: 'name secret and ca_secret',
        };
      }
    },
  },
];

/** The Host whose clients get a context of this name: one with a certificate and without its own settings. */
function hostTiedTo(context: string, hosts: readonly KubeObject[], env: EmissaryEnv): KubeObject | undefined {
  return hosts.find((host) => {
    const { ambassador_id, tlsSecret, tlsContext, tls } = fields(host.spec);
    const seen = visible(host, env) && answersTo(ambassador_id, env.ambassadorId);
    const settings = text(fields(tlsContext).name) ?? tls;
    return (
      seen && `${host.metadata.name}-context` === context && text(fields(tlsSecret).name) && settings === undefined
    );
  });
}

const compare = (a = '', b = ''): number => (a < b ? -1 : a > b ? 1 : 0);

const RESOLVERS = ['KubernetesServiceResolver', 'KubernetesEndpointResolver', 'ConsulResolver'];

/** Whether a resolver that is not among the objects does not exist. Files with one are taken to have all. */
const knowsResolvers = ({ snapshot, known }: InterpretedCluster): boolean =>
  snapshot.whole.size > 0 ? RESOLVERS.every((kind) => snapshot.whole.has(kind)) : RESOLVERS.some(known);

function fixOf(resolver: Resolver): string {
  if (resolver === 'unknown')
    return 'create the resolver with the ambassador_id of this gateway, or correct the name; a ConsulResolver needs a datacenter';
  return resolver === 'consul'
    ? 'write the name of the service that the ConsulResolver looks up, without a namespace'
    : 'set resolver: endpoint as well, or remove load_balancer';
}

const withTls = (mappings: readonly SeenMapping[]) => mappings.filter(({ spec }) => spec.tls !== undefined);

const mappingChecks: readonly EmissaryCheck[] = [
  {
    code: 'MC1301',
    severity: 'warning',
    title: 'Without https://, a missing certificate means plaintext',
    *run({ mappings }) {
      for (const { object, spec } of withTls(mappings)) {
        const { scheme, host, port = 443 } = parseService(spec.service);
        if (scheme !== undefined) continue;
        yield {
          object,
          message: `service ${spec.service} has no scheme: when its TLSContext or Secret is missing or unusable, requests are sent in plaintext`,
          fix: `write https://${host}:${port}: the worst case is then a failed handshake`,
        };
      }
    },
  },
  {
    code: 'MC1302',
    severity: 'warning',
    title: 'http:// and a TLSContext contradict each other',
    *run({ mappings }) {
      for (const { object, spec } of withTls(mappings)) {
        if (parseService(spec.service).scheme !== 'http') continue;
        yield {
          object,
          message: `service ${spec.service} says http, and spec.tls says TLS: Emissary uses TLS, posts an error, and falls back to plaintext when the context is missing`,
          fix: 'write https://',
        };
      }
    },
  },
  {
    code: 'MC1303',
    severity: 'error',
    title: 'Two Mappings with different TLSContexts share one cluster',
    *run({ mappings }) {
      const first = new Map<string, SeenMapping>();
      for (const mapping of mappings) {
        if (mapping.upstream.dropped !== undefined) continue;
        const before = first.get(mapping.upstream.cluster);
        if (!before) first.set(mapping.upstream.cluster, mapping);
        else if (before.spec.tls !== mapping.spec.tls) {
          const services = [...new Set([before.spec.service, mapping.spec.service])].join(' and ');
          yield {
            object: mapping.object,
            message: `it shares the cluster of ${describe(refOf(before.object))} (${services}): the TLSContext ${String(before.spec.tls ?? 'of neither')} serves both, ${String(mapping.spec.tls ?? 'none')} is ignored`,
            fix: 'give both Mappings the same TLSContext, or write the host differently in one of them (name.namespace and name.namespace.svc)',
          };
        }
      }
    },
  },
  {
    code: 'MC1304',
    severity: 'error',
    title: 'The service of a Mapping cannot be read',
    *run({ mappings }) {
      for (const { object, spec, upstream } of withTls(mappings)) {
        const { errors } = parseService(spec.service);
        if (errors.length === 0) continue;
        yield {
          object,
          message: `${errors.join('; ')}: requests go to ${upstream.host}:${upstream.port}`,
          fix: 'write https://NAME.NAMESPACE:PORT with a numeric port',
        };
      }
    },
  },
  {
    code: 'MC1305',
    severity: 'error',
    title: 'spec.tls is true instead of the name of a TLSContext',
    *run({ mappings }) {
      for (const { object, spec, upstream } of mappings) {
        if (spec.tls === true) {
          yield {
            object,
            severity: 'warning',
            message:
              'the boolean of v2 means TLS without a TLSContext: the gateway sends no certificate and accepts any server as the upstream',
            fix: 'name a TLSContext',
          };
        } else if (spec.tls === 'true' && !upstream.context) {
          yield {
            object,
            message: `Emissary reads "true" as the name of a TLSContext, which does not exist: ${insteadOf(upstream)}`,
            fix: 'name a TLSContext, and write https:// before the service',
          };
        }
      }
    },
  },
  {
    code: 'MC1306',
    severity: 'note',
    title: 'Whether a rotation interrupts requests was not seen with the endpoints of a ConsulResolver',
    *run({ mappings, env }) {
      if (env.edsBypass) return;
      for (const { object, upstream } of withTls(mappings)) {
        if (upstream.resolver !== 'consul') continue;
        yield {
          object,
          message:
            'its endpoints come from a ConsulResolver. Users of older releases saw 503 while Envoy warmed the changed cluster; with the endpoints of Kubernetes no request failed in our runs, and a ConsulResolver was not run',
          fix: 'watch one rotation; if requests fail, set AMBASSADOR_EDS_BYPASS=true on the gateway',
        };
      }
    },
  },
  {
    code: 'MC1307',
    severity: 'note',
    title: 'The gateway accepts any workload of the mesh as the upstream',
    *run({ mappings, contexts }) {
      const [first] = contexts.filter(({ used, reading }) => used && reading.usable && reading.ca);
      const count = mappings.filter(({ upstream }) => upstream.mode === 'mtls').length;
      if (!first || count === 0) return;
      yield {
        object: first.object,
        message: `Emissary configures Envoy to verify the chain of the upstream and not its name: ${count} Mapping${count === 1 ? '' : 's'} would accept any workload of the mesh`,
        fix: 'Emissary has no setting for this; if you need the check, use a gateway that compares URI names (Gateway API BackendTLSPolicy)',
      };
    },
  },
  {
    code: 'MC1308',
    severity: 'error',
    title: 'Emissary drops the Mapping',
    *run(world) {
      for (const { object, spec, upstream } of withTls(world.mappings)) {
        const { dropped, resolver } = upstream;
        if (dropped === undefined || (spec.resolver === undefined && !world.known('Module'))) continue;
        if (resolver === 'unknown' && !knowsResolvers(world)) continue;
        yield {
          object,
          message: `${dropped}: the Mapping has no route, and only the diagnostics of Emissary show it`,
          fix: fixOf(resolver),
        };
      }
    },
  },
];

const meshCertificateChecks: readonly EmissaryCheck[] = [
  {
    code: 'MC5001',
    severity: 'error',
    title: 'Two MeshCertificates write the same object',
    *run({ promises }) {
      const owners = new Map<string, string>();
      for (const { object, namespace, secretName, contextName } of promises) {
        for (const key of [`Secret ${namespace}/${secretName}`, `TLSContext ${contextName}`]) {
          const earlier = owners.get(key);
          owners.set(key, earlier ?? describe(refOf(object)));
          if (earlier === undefined) continue;
          yield {
            object,
            message: `${key} is also written by ${earlier}; the agent refuses this one${key.startsWith('TLS') ? ' (names of TLSContexts are global)' : ''}`,
            fix: 'give one of them other names (secretName, tlsContext.name)',
          };
        }
      }
    },
  },
  {
    code: 'MC5002',
    severity: 'error',
    title: 'An object that the MeshCertificate would write belongs to another owner',
    *run({ promises, find }) {
      for (const { object, namespace, secretName, contextName } of promises) {
        const own = ownerLabel(object.metadata);
        for (const [kind, name] of [
          ['Secret', secretName],
          ['TLSContext', contextName],
        ] as const) {
          const existing = find(kind, { name, namespace });
          if (!existing || existing.metadata.labels?.[OWNER_LABEL] === own) continue;
          yield {
            object,
            message: `${describe(refOf(existing))} exists and is not its own (${OWNER_LABEL} is ${existing.metadata.labels?.[OWNER_LABEL] ?? 'absent'}); the agent never overwrites it, so nothing is published`,
            fix: 'choose another name, or hand the object over (docs/migrate-consul-connector.md); do not delete it while a gateway refers to it',
          };
        }
      }
    },
  },
  {
    code: 'MC5003',
    severity: 'error',
    title: 'The gateway would misread a name',
    *run({ promises }) {
      for (const { object, secretName, contextName } of promises) {
        const caSecret = text(fields(object.spec).caSecretName) ?? `${object.metadata.name}-ca`;
        const problems = [secretNameProblem(secretName), secretNameProblem(caSecret), contextNameProblem(contextName)];
        for (const message of problems) {
          if (message !== undefined) yield { object, message, fix: 'choose a name of letters, digits and dashes' };
        }
      }
    },
  },
  {
    code: 'MC5004',
    severity: 'warning',
    title: 'Deleting the MeshCertificate would leave Mappings without their Secret',
    *run({ promises, mappings }) {
      for (const { object, contextName } of promises) {
        if (fields(object.spec).deletionPolicy !== 'Delete') continue;
        const users = mappings.filter(({ spec }) => spec.tls === contextName);
        const [first] = users;
        if (!first) continue;
        yield {
          object,
          message: `deletionPolicy is Delete, and ${users.length} Mapping${users.length === 1 ? '' : 's'} (such as ${describe(refOf(first.object))}) name its TLSContext: without it they fall back to plaintext or to no verification`,
          fix: 'keep Retain, and use meshcert offboard to take a gateway out of the mesh',
        };
      }
    },
  },
  {
    code: 'MC5005',
    severity: 'warning',
    title: 'The MeshCertificate reaches no Mapping',
    *run({ promises, mappings, all }) {
      if (all('Mapping').length + all('TCPMapping').length === 0) return;
      for (const promise of promises) {
        const { object, contextName } = promise;
        const wanted = fields(fields(fields(fields(object.spec).mappings).selector).matchLabels);
        const selects = Object.keys(wanted).length > 0;
        const reached = mappings.some(
          ({ spec, object: mapping }) =>
            (typeof spec.tls === 'string' && willWrite(promise, spec.tls)) || (selects && hasLabels(mapping, wanted)),
        );
        if (reached) continue;
        yield {
          object,
          message: `no Mapping names the TLSContext ${contextName}, and no Mapping is selected: the certificate is published and not used`,
          fix: `set tls: ${contextName} on Mappings, or spec.mappings.selector here`,
        };
      }
    },
  },
  {
    code: 'MC5006',
    severity: 'error',
    title: 'The MeshCertificate is not valid',
    *run({ all, snapshot }) {
      for (const object of all('MeshCertificate')) {
        for (const message of snapshot.validate?.(object) ?? []) {
          yield { object, message, fix: 'see docs/reference, or meshcert schema' };
        }
      }
    },
  },
  {
    code: 'MC5007',
    severity: 'error',
    title: 'A selected Mapping is not served over mTLS',
    *run({ promises, mappings, snapshot }) {
      for (const { object, namespace } of promises) {
        const { selector, namespaces } = fields(fields(object.spec).mappings);
        const wanted = fields(fields(selector).matchLabels);
        const places = Array.isArray(namespaces) ? namespaces.map(String) : [namespace];
        if (Object.keys(wanted).length === 0 || fields(object.spec).paused === true) continue;
        for (const { object: mapping, upstream, spec } of mappings) {
          const { namespace: place = '' } = mapping.metadata;
          if (!hasLabels(mapping, wanted) || !(places.includes('*') || places.includes(place))) continue;
          // Before the objects are applied, the agent has not set spec.tls yet.
          const applied = snapshot.whole.has('Mapping');
          if (upstream.mode === 'mtls' || (upstream.mode === 'tls-unverified' && !applied)) continue;
          const https = parseService(spec.service).scheme === 'https';
          yield {
            object: mapping,
            message: `${describe(refOf(object))} selects it, and ${insteadOf(upstream)}`,
            fix: !consents(mapping, namespace)
              ? `it does not consent to MeshCertificates of another namespace; its owner can annotate it: ${CONSENT_ANNOTATION}=${namespace}`
              : https
                ? 'find out why spec.tls is not set, or not usable: status.mappings of the MeshCertificate (meshcert status)'
                : `write https://${upstream.host}:${upstream.port} as its service; without https:// the agent does not set spec.tls`,
          };
        }
      }
    },
  },
];

const DAY = 86_400_000;
/** How long before its end a root causes a warning: replacing one takes weeks. */
const ROOT_WARNING_MS = 60 * DAY;
const RSA_LEAST_BITS = 2048;
const CURVES = ['P-256', 'P-384'];

interface JudgedPair {
  readonly pair: SecretPair;
  /** The identity Secret, or the context if there is none. */
  readonly secret: KubeObject;
  readonly caSecret: KubeObject;
}

function* pairs(world: InterpretedCluster): Generator<JudgedPair> {
  const seen = new Set<KubeObject>();
  for (const { pair, secret, caSecret, object } of world.contexts) {
    const found = secret && world.find('Secret', secret);
    if (!pair || (found && seen.has(found))) continue;
    if (found) seen.add(found);
    yield { pair, secret: found ?? object, caSecret: (caSecret && world.find('Secret', caSecret)) ?? found ?? object };
  }
}

const certificateName = ({ subject, names }: Certificate): string =>
  names.uris[0] ?? names.dns[0] ?? (subject || 'no name');

/** The key types that Envoy loads for its own side, and that an Envoy with default settings accepts from clients. */
function keyProblem(type: KeyType): { readonly severity?: Severity; readonly message: string } | undefined {
  if (type.type === 'other' && type.name === 'ed25519')
    return {
      message: 'the key is Ed25519: Envoy loads it, but sidecars, which are also Envoys, refuse it from clients',
    };
  if (type.type === 'ec' && type.curve === 'P-521')
    return {
      severity: 'warning',
      message: 'the key is P-521, which sidecars refuse from clients in TLS 1.3',
    };
  if (type.type === 'ec' && CURVES.includes(type.curve)) return undefined;
  if (type.type === 'rsa' && type.bits >= RSA_LEAST_BITS) return undefined;
  return { message: `the key is ${describeKeyType(type)}. ${FROZEN}` };
}

/** The agent overwrites what somebody else changes in a Secret that it publishes. */
const isPublished = ({ metadata }: KubeObject): boolean => metadata.labels?.[OWNER_LABEL] !== undefined;
const PUBLISHED_FIX =
  'meshcert publishes this Secret: find out why it was not renewed (meshcert status), and do not edit it';

/** What an ending root does to its successor in the bundle, as the end of a sentence about the successor. */
function hides(isOrdered: boolean, isOver: boolean): string {
  const refuses = isOrdered
    ? 'Envoy finds the expired one first and refuses every handshake'
    : `Envoy, which sorts bundles of more than ${MOST_IN_ORDER} roots, can find the expired one first and refuse every handshake`;
  const place = isOrdered ? 'comes after it in the bundle' : 'is in the bundle too';
  return `${place}: ${isOver ? '' : 'from then on '}${refuses}`;
}

const pairChecks: readonly EmissaryCheck[] = [
  {
    code: 'MC1201',
    severity: 'error',
    title: 'Certificate, key or roots cannot be parsed',
    *run(world) {
      for (const { pair, secret, caSecret } of pairs(world)) {
        const parts = [
          ['tls.crt', pair.chain, secret],
          ['tls.key', pair.key, secret],
          ['the roots', pair.roots, caSecret],
        ] as const;
        for (const [what, part, object] of parts) {
          if (!part || !('problem' in part)) continue;
          yield {
            object,
            message: `${what}: ${part.problem}. ${FROZEN}`,
            fix: 'write PEM with one private key and nothing else',
          };
        }
      }
    },
  },
  {
    code: 'MC1202',
    severity: 'error',
    title: 'The key does not belong to the certificate',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        const [leaf, key] = [parsedValue(pair.chain)?.[0], parsedValue(pair.key)];
        if (!leaf || !key || leaf.publicKeyFingerprint === key.publicKeyFingerprint) continue;
        yield {
          object: secret,
          message: `tls.key does not belong to tls.crt. ${FROZEN}`,
          fix: 'write both in one update',
        };
      }
    },
  },
  {
    code: 'MC1203',
    severity: 'error',
    title: 'The gateway or the sidecars do not accept this type of key',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        const key = parsedValue(pair.key);
        const problem = key && keyProblem(key.keyType);
        if (!problem) continue;
        yield { object: secret, ...problem, fix: 'use ECDSA P-256, or RSA with 2048 bits or more' };
      }
    },
  },
  {
    code: 'MC1204',
    severity: 'warning',
    title: 'The key starts with an EC PARAMETERS block',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        if (!/^\s*-----BEGIN EC PARAMETERS-----/.test(pair.keyPem ?? '')) continue;
        yield {
          object: secret,
          severity: world.env.forceSecretValidation ? 'error' : 'warning',
          message:
            'Emissary parses the first PEM block of tls.key as a key and reports this Secret as invalid; with AMBASSADOR_FORCE_SECRET_VALIDATION it withholds it, which makes its Mappings plaintext',
          fix: 'write the key as PKCS#8, one block',
        };
      }
    },
  },
  {
    code: 'MC1205',
    severity: 'error',
    title: 'A certificate of the chain has expired',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, secret } of pairs(world)) {
        for (const [at, one] of (parsedValue(pair.chain) ?? []).entries()) {
          if (now < one.notAfter) continue;
          const what = at === 0 ? 'the leaf' : 'an intermediate';
          yield {
            object: secret,
            message: `${what} (${certificateName(one)}) expired at ${toRfc3339(one.notAfter)}: new handshakes fail, and open connections hide it for a while`,
            fix:
              at === 0
                ? 'find out why it was not renewed: meshcert status, meshcert renew'
                : isPublished(secret)
                  ? PUBLISHED_FIX
                  : 'remove expired intermediates from tls.crt',
          };
        }
      }
    },
  },
  {
    code: 'MC1206',
    severity: 'warning',
    title: 'The leaf is in the last tenth of its lifetime',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, secret } of pairs(world)) {
        const leaf = parsedValue(pair.chain)?.[0];
        if (!leaf || now >= leaf.notAfter || now < emergencyAt(leaf)) continue;
        yield {
          object: secret,
          message: `it expires at ${toRfc3339(leaf.notAfter)} and should have been renewed already: renewal does not work`,
          fix: 'find out why: meshcert status, then the log of the agent',
        };
      }
    },
  },
  {
    code: 'MC1207',
    severity: 'error',
    title: 'The leaf is not valid yet',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, secret } of pairs(world)) {
        const leaf = parsedValue(pair.chain)?.[0];
        if (!leaf || now >= leaf.notBefore) continue;
        yield {
          object: secret,
          message: `it is valid from ${toRfc3339(leaf.notBefore)} on: upstreams refuse it until then`,
          fix: 'correct the clocks of the CA and of the nodes',
        };
      }
    },
  },
  {
    code: 'MC1208',
    severity: 'warning',
    title: 'The identity does not chain to the roots of its TLSContext',
    *run(world) {
      for (const { pair, secret } of pairs(world)) {
        const [[leaf, ...between] = [], roots] = [parsedValue(pair.chain), parsedValue(pair.issuers)];
        if (!leaf || !roots?.some(({ isCa }) => isCa)) continue;
        const path = findPath(leaf, between, roots, world.snapshot.now);
        if (reachesRoot(path)) continue;
        yield {
          object: secret,
          message: `no path leads from the leaf to a root of ca_secret: either intermediates are missing in tls.crt, or upstreams of the same mesh will not verify`,
          fix: 'write the whole chain, and the roots of the mesh that issued it',
        };
      }
    },
  },
  {
    code: 'MC1209',
    severity: 'error',
    title: 'A trusted root has expired or expires soon',
    *run(world) {
      const { now } = world.snapshot;
      for (const { pair, caSecret } of pairs(world)) {
        const roots = parsedValue(pair.roots) ?? [];
        const alive = roots.filter(({ notAfter }) => now < notAfter);
        const isOrdered = roots.length <= MOST_IN_ORDER;
        for (const [at, root] of roots.entries()) {
          const left = root.notAfter - now;
          const life = root.notAfter - root.notBefore;
          if (left > Math.min(ROOT_WARNING_MS, life / 5) || !root.isCa) continue;
          const isHidden = (isOrdered ? roots.slice(at + 1) : roots).some(
            (other) => other !== root && authorityOf(root) === authorityOf(other) && other.notAfter > root.notAfter,
          );
          const harm =
            alive.length === 0
              ? ', and no other root is left: no upstream can be verified'
              : isHidden
                ? `, and its successor with the same subject and key ${hides(isOrdered, left <= 0)}`
                : '';
          yield {
            object: caSecret,
            severity: harm === '' ? 'warning' : 'error',
            message: `the root ${certificateName(root)} ${left <= 0 ? 'expired' : 'expires'} at ${toRfc3339(root.notAfter)}${harm}`,
            fix: isHidden
              ? isOrdered
                ? 'remove it from the bundle, or put its successor before it'
                : `remove it from the bundle; another order helps only up to ${MOST_IN_ORDER} roots`
              : left <= 0
                ? isPublished(caSecret)
                  ? PUBLISHED_FIX
                  : alive.length === 0
                    ? 'put the current roots of the mesh in its place; without any root, Mappings that name the TLSContext get plaintext, or TLS without verification'
                    : 'remove it from the bundle'
                : 'rotate the root of the mesh: trust the new one first, sign with it later',
          };
        }
      }
    },
  },
];

const nameOf = ({ namespace, name }: SecretRef): string => `${namespace}/${name}`;

/** The Secrets that a context names, by the field that names them. */
function* secretsOf({ secret, caSecret }: SeenContext): Generator<{ field: string; ref: SecretRef }> {
  if (secret) yield { field: 'secret', ref: secret };
  if (caSecret) yield { field: 'ca_secret', ref: caSecret };
}

/** Existing Secrets, each once, with the context that names it. */
function* referencedSecrets(
  world: InterpretedCluster,
): Generator<{ context: SeenContext; field: string; secret: KubeObject }> {
  const seen = new Set<KubeObject>();
  for (const context of world.contexts) {
    for (const { field, ref } of secretsOf(context)) {
      const secret = world.find('Secret', ref);
      if (!secret || seen.has(secret)) continue;
      seen.add(secret);
      yield { context, field, secret };
    }
  }
}

const secretChecks: readonly EmissaryCheck[] = [
  {
    code: 'MC1101',
    severity: 'error',
    title: 'A TLSContext names a Secret that does not exist',
    *run(world) {
      if (!world.known('Secret')) return;
      for (const context of world.contexts) {
        for (const { field, ref } of secretsOf(context)) {
          const shadow =
            ref.name === 'istio-certs' && world.env.istioSecretDir && ref.namespace === world.env.namespace;
          if (world.find('Secret', ref) || shadow || literalOf(world, context, field)) continue;
          if (!world.snapshot.whole.has('Secret') && world.promises.some((one) => one.namespace === ref.namespace))
            continue;
          yield {
            object: context.object,
            message: `${field} names the Secret ${nameOf(ref)}, which does not exist: ${HARM}`,
            fix: `create the Secret first, then the TLSContext; never delete a Secret that a TLSContext names`,
          };
        }
      }
    },
  },
  {
    code: 'MC1102',
    severity: 'error',
    title: 'Emissary does not read Secrets of this type',
    *run(world) {
      for (const { secret } of referencedSecrets(world)) {
        const type = String(secret.type ?? 'Opaque');
        if (SECRET_TYPES.includes(type)) continue;
        yield {
          object: secret,
          message: `it has the type ${type}, which Emissary ignores silently, as if it did not exist: ${HARM}`,
          fix: `use one of ${SECRET_TYPES.join(', ')}`,
        };
      }
    },
  },
  {
    code: 'MC1103',
    severity: 'error',
    title: 'The identity Secret lacks its certificate or its key',
    *run(world) {
      for (const { field, secret, context } of referencedSecrets(world)) {
        if (field !== 'secret' || !SECRET_TYPES.includes(String(secret.type ?? 'Opaque'))) continue;
        const files = readSecretFiles(secret);
        if (files?.certificate && files.key) continue;
        const lacks = files?.certificate ? 'tls.key' : 'tls.crt';
        yield {
          object: secret,
          message: `it has no readable ${lacks} (base64 of UTF-8 text): ${harmOf(context.reading)}`,
          fix: `write tls.crt and tls.key in one update`,
        };
      }
    },
  },
  {
    code: 'MC1104',
    severity: 'error',
    title: 'The CA Secret has its roots under a key that Emissary does not read',
    *run(world) {
      for (const { field, secret, context } of referencedSecrets(world)) {
        if (field !== 'ca_secret' || readSecretFiles(secret)?.certificate) continue;
        const has = Object.keys(decodeData(secret)).join(', ') || 'nothing';
        yield {
          object: secret,
          message: `Emissary reads tls.crt of a CA Secret, and this one has ${has}: ${harmOf(context.reading)}`,
          fix: 'put the roots under tls.crt (under ca.crt as well, if other gateways read it)',
        };
      }
    },
  },
  {
    code: 'MC1105',
    severity: 'error',
    title: 'ca_secret holds no CA certificate',
    *run(world) {
      for (const { object, spec, pair } of world.contexts) {
        const roots = parsedValue(pair?.roots);
        if (!spec.caSecret || !roots || roots.some(({ isCa }) => isCa)) continue;
        yield {
          object,
          message: `ca_secret ${spec.caSecret} holds only end-entity certificates, so only these certificates are trusted: every handshake with another upstream certificate fails`,
          fix: 'name a Secret with the roots of the mesh; the identity Secret is not one',
        };
      }
    },
  },
  {
    code: 'MC1106',
    severity: 'warning',
    title: 'The roots are in the identity Secret, where Emissary misses a change of the roots alone',
    *run(world) {
      for (const { field, secret, context } of referencedSecrets(world)) {
        if (field !== 'secret' || context.spec.caSecret || !readSecretFiles(secret)?.root) continue;
        yield {
          object: secret,
          message:
            'root-cert.pem is not part of the name under which Emissary stores this Secret: when only the roots change, Envoy keeps the old ones until the leaf changes too',
          fix: 'put the roots into a Secret of their own, under tls.crt, and name it as ca_secret',
        };
      }
    },
  },
  {
    code: 'MC1107',
    severity: 'error',
    title: 'Only one half of the gateway reads a name with a dot as name and namespace',
    *run(world) {
      const { env } = world;
      for (const context of world.contexts) {
        const { spec, object } = context;
        if (namespacing(spec, env) === shippingNamespacing(spec, env)) continue;
        for (const name of [spec.secret, spec.caSecret]) {
          if (!name?.includes('.')) continue;
          yield {
            object,
            message: `the Module "ambassador" exists and does not set defaults.tls_secret_namespacing, so one half of the gateway looks for a Secret called ${name} and the other for ${name.slice(0, name.lastIndexOf('.'))} in another namespace: ${HARM}`,
            fix: 'set secret_namespacing: true on the TLSContext, or keep Secret and TLSContext in one namespace',
          };
        }
      }
    },
  },
  {
    code: 'MC1108',
    severity: 'error',
    title: 'The gateway looks for a Secret whose name has a dot in another namespace',
    *run(world) {
      for (const context of world.contexts) {
        for (const field of ['secret', 'ca_secret']) {
          const literal = literalOf(world, context, field);
          if (!literal) continue;
          yield {
            object: context.object,
            message: `${describe(refOf(literal))} exists, but Emissary reads what follows the last dot as a namespace and finds nothing: ${HARM}`,
            fix: 'rename the Secret without dots, or set secret_namespacing: false on the TLSContext',
          };
        }
      }
    },
  },
  {
    code: 'MC1109',
    severity: 'error',
    title: 'The gateway does not see the Secret',
    *run(world) {
      for (const { secret } of referencedSecrets(world)) {
        if (visible(secret, world.env)) continue;
        const { env } = world;
        const why =
          env.singleNamespace && secret.metadata.namespace !== env.namespace
            ? `the gateway watches only the namespace ${env.namespace} (AMBASSADOR_SINGLE_NAMESPACE)`
            : `its labels do not match AMBASSADOR_LABEL_SELECTOR=${env.labelSelector}`;
        yield {
          object: secret,
          message: `${why}: ${HARM}`,
          fix: 'move or label it; spec.labels of a MeshCertificate are put on everything that it writes',
        };
      }
    },
  },
  {
    code: 'MC1110',
    severity: 'warning',
    title: 'Files of the sidecar replace the Secret istio-certs',
    *run({ all, env, contexts }) {
      if (!env.istioSecretDir) return;
      for (const object of all('Secret')) {
        if (object.metadata.name !== 'istio-certs' || object.metadata.namespace !== env.namespace) continue;
        if (!contexts.some(({ secret }) => secret?.name === 'istio-certs')) continue;
        yield {
          object,
          message:
            'AMBASSADOR_ISTIO_SECRET_DIR is set: as soon as key.pem and cert-chain.pem exist in that directory, the gateway uses them under this name and not this Secret; without them, it uses this Secret',
          fix: 'rename the Secret, or remove the variable',
        };
      }
    },
  },
  {
    code: 'MC1111',
    severity: 'warning',
    title: 'A Secret that a TLSContext names is deleted together with its owner',
    *run(world) {
      for (const { secret } of referencedSecrets(world)) {
        const owner = secret.metadata.ownerReferences?.[0];
        if (!owner) continue;
        yield {
          object: secret,
          message: `it is deleted together with ${owner.kind} ${owner.name}; after that, ${HARM}`,
          fix: 'remove metadata.ownerReferences',
        };
      }
    },
  },
];

/** The Secret with exactly the name in the context, including dots, if it is not the one that is looked up. */
function literalOf(
  world: InterpretedCluster,
  { spec, object, secret, caSecret }: SeenContext,
  field: string,
): KubeObject | undefined {
  const [name, ref] = field === 'secret' ? [spec.secret, secret] : [spec.caSecret, caSecret];
  if (!name?.includes('.') || !ref || ref.name === name || world.find('Secret', ref)) return undefined;
  return world.find('Secret', { name, namespace: object.metadata.namespace ?? '' });
}

const OWN: readonly EmissaryCheck[] = [
  ...contextChecks,
  ...secretChecks,
  ...pairChecks,
  ...mappingChecks,
  ...gatewayChecks,
  ...meshCertificateChecks,
];

export const emissaryDiagnosis: Diagnosis = {
  resources: Object.values(EMISSARY_RESOURCES),
  checks: OWN,
  areas: [
    { prefix: 'MC10', name: 'TLSContexts' },
    { prefix: 'MC11', name: 'Secrets' },
    { prefix: 'MC12', name: 'certificates and keys' },
    { prefix: 'MC13', name: 'Mappings' },
    { prefix: 'MC14', name: 'gateway' },
    { prefix: 'MC50', name: 'MeshCertificates' },
  ],
  objectsToRead,
  diagnose,
  served: [
    {
      resource: EMISSARY_RESOURCES.tlsContexts,
      fix: 'install the definitions of Emissary 3.x or 4.x (chart emissary-crds, or emissary-crds-chart)',
    },
  ],
};
