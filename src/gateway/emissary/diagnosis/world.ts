import type { KubeObject } from '../../../core/object.ts';
import type { Adapter } from '../../../mesh/adapter.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import type { CheckedObjects, ClientTls } from '../../../mesh/object-check.ts';
import { type ClusterSnapshot, objectsOf, type SnapshotObjects } from '../../diagnosis.ts';
import { parsedValue, readPair, type SecretPair } from '../../pair.ts';
import {
  type ContextReading,
  moduleSettings,
  namespacing,
  readContexts,
  type SecretRef,
  secretRef,
} from '../reading/context.ts';
import type { EmissaryEnv } from '../reading/env.ts';
import { type ContextSpec, contextSpec, type MappingSpec, mappingSpec } from '../reading/kinds.ts';
import {
  type EffectiveUpstream,
  effectiveUpstream,
  inOrder,
  type ReadMapping,
  resolversIn,
  seesMapping,
} from '../reading/reading.ts';
import { parseService } from '../reading/service.ts';

export interface SeenMapping extends ReadMapping {
  readonly spec: MappingSpec;
  /** The Service behind it, as far as the name shows. */
  readonly service: { readonly name: string; readonly namespace: string };
}

export interface SeenContext {
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
export interface Promised {
  readonly object: KubeObject;
  readonly mesh: string | undefined;
  /** Whether it has a context for each target, whose names begin with `contextName-`. */
  readonly perTarget: boolean;
  readonly namespace: string;
  readonly secretName: string;
  readonly contextName: string;
}

/** One gateway's view of a snapshot, with all values that more than one check needs. */
export interface InterpretedCluster extends SnapshotObjects {
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

export function worldOf(
  snapshot: ClusterSnapshot,
  given: EmissaryEnv,
  gateway: KubeObject | undefined,
): InterpretedCluster {
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
export const willWrite = ({ contextName, perTarget }: Promised, context: string): boolean =>
  contextName === context || (perTarget && context.startsWith(`${contextName}-`));

/** The input of the checks of a mesh's adapter. */
export function objectsFor(mesh: string, { contexts, mappings, all, find }: InterpretedCluster): CheckedObjects {
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
export const FROZEN =
  'Envoy refuses it, Emissary discards the whole configuration, and every later change of any object is blocked';

/** What an unusable context does, as the end of a sentence. */
export const HARM =
  'requests of Mappings that name this context are sent in plaintext, or with TLS without verification';

/** What a Secret without the key that Emissary needs of it does to a context, as the end of a sentence. */
export function harmOf({ withoutFile }: ContextReading): string {
  if (withoutFile.length === 0) return HARM;
  return `it has another key that Emissary reads, so as soon as a Mapping names this context, Emissary configures ${withoutFile.join(' and ')} without a file. ${FROZEN}`;
}

/** What the gateway does with a Mapping whose context it cannot use, in words. */
export const insteadOf = ({ mode, host, port }: EffectiveUpstream): string =>
  mode === 'plaintext'
    ? `requests go to ${host}:${port} in plaintext`
    : `requests go to ${host}:${port} without a client certificate and without verifying the server`;
