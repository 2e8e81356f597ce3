import { createSecureContext } from 'node:tls';
import {
  type ContextReading,
  type EmissaryEnv,
  effectiveUpstream,
  inOrder,
  mappingSpec,
  moduleSettings,
  type PemFile,
  type PodFiles,
  readContexts,
  resolversIn,
  seesMapping,
  type TlsPart,
} from '../../src/gateway/emissary/reading.ts';

import { type KubeObject, keyOf, refOf } from '../../src/objects/objects.ts';

import { PrivateKey } from '../../src/pki/key.ts';
import { describeKeyType, type KeyType } from '../../src/pki/key-type.ts';

export interface EnvoySnapshot {
  readonly mappings: readonly KubeObject[];
  readonly contexts: readonly KubeObject[];
  readonly secrets: readonly KubeObject[];
  readonly modules: readonly KubeObject[];
  readonly resolvers: readonly KubeObject[];
}

/** The kinds that a gateway reads, in its sort order. */
export const snapshotOf = (objects: readonly KubeObject[]): EnvoySnapshot => {
  const of = (...kinds: readonly string[]) => objects.filter(({ kind }) => kinds.includes(kind));
  return {
    mappings: of('Mapping', 'TCPMapping'),
    contexts: of('TLSContext'),
    secrets: of('Secret'),
    modules: of('Module'),
    resolvers: of('ConsulResolver', 'KubernetesEndpointResolver', 'KubernetesServiceResolver'),
  };
};

/** Envoy's configuration of one upstream. */
export interface ClusterConfig {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly tls: EnvoyTls | undefined;
}

export interface EnvoyTls {
  readonly certificate: PemFile | undefined;
  readonly key: PemFile | undefined;
  readonly ca: PemFile | undefined;
  readonly crl: PemFile | undefined;
  readonly withoutFile: readonly TlsPart[];
  readonly sni: string | undefined;
  readonly alpn: string | undefined;
  readonly min: string | undefined;
  readonly max: string | undefined;
  readonly certRequired: boolean | undefined;
}

export interface EnvoyRoute {
  readonly mapping: string;
  readonly prefix: string;
  readonly rewrite: string;
  readonly cluster: string;
}

export interface Configuration {
  readonly clusters: ReadonlyMap<string, ClusterConfig>;
  readonly routes: readonly EnvoyRoute[];
  readonly contexts: readonly ContextReading[];
  /** Object and sentence, as the diagnostics show them. */
  readonly errors: readonly (readonly [string, string])[];
}

export const EMPTY: Configuration = { clusters: new Map(), routes: [], contexts: [], errors: [] };

/** The configuration that a newly started gateway would make of these objects. */
export function configure(snapshot: EnvoySnapshot, given: EmissaryEnv, pod?: PodFiles): Configuration {
  const env: EmissaryEnv = {
    ...given,
    module: moduleSettings(snapshot.modules, given),
    resolvers: resolversIn(snapshot.resolvers, given),
  };
  const contexts = readContexts(snapshot.contexts, snapshot.secrets, env, pod);
  const clusters = new Map<string, ClusterConfig>();
  const routes: EnvoyRoute[] = [];
  const errors: [string, string][] = [];
  for (const context of contexts.values()) {
    for (const error of context.errors) errors.push([`${context.name}.${context.namespace}`, error]);
  }
  const read = snapshot.mappings
    .filter((mapping) => seesMapping(mapping, env))
    .map((object) => ({ object, upstream: effectiveUpstream(object, contexts, [], env) }));
  for (const { object: mapping, upstream } of inOrder(read)) {
    for (const error of [...upstream.errors, ...(upstream.dropped === undefined ? [] : [upstream.dropped])])
      errors.push([`${mapping.metadata.name}.${mapping.metadata.namespace}`, error]);
    if (upstream.dropped !== undefined) continue;
    if (!clusters.has(upstream.cluster)) {
      const { cluster: name, host, port, mode, context } = upstream;
      clusters.set(name, { name, host, port, tls: mode === 'plaintext' ? undefined : tlsOf(context) });
    }
    if (mapping.kind === 'TCPMapping') continue;
    const { prefix, rewrite } = mappingSpec(mapping);
    routes.push({ mapping: keyOf(refOf(mapping)), prefix, rewrite, cluster: upstream.cluster });
  }
  routes.sort((a, b) => b.prefix.length - a.prefix.length);
  return { clusters, routes, contexts: [...contexts.values()], errors };
}

/**
 * Emissary's incremental reconfigure: as soon as a Mapping changed in a batch, the clusters of all other Mappings are
 * reused from the cache, whatever else changed with it.
 */
export function reconfigure(
  before: Configuration,
  fresh: Configuration,
  changedMappings: ReadonlySet<string>,
): Configuration {
  if (changedMappings.size === 0) return fresh;
  const touched = new Set(
    [...before.routes, ...fresh.routes]
      .filter(({ mapping }) => changedMappings.has(mapping))
      .map(({ cluster }) => cluster),
  );
  const clusters = new Map<string, ClusterConfig>();
  for (const [name, cluster] of fresh.clusters) {
    clusters.set(name, touched.has(name) ? cluster : (before.clusters.get(name) ?? cluster));
  }
  return { ...fresh, clusters };
}

/** Why `envoy --mode validate` would refuse this; then no part of it takes effect. */
export function refusal(configuration: Configuration): string | undefined {
  for (const { name, tls } of configuration.clusters.values()) {
    if (!tls) continue;
    if (tls.certRequired !== undefined)
      return `${name}: require_client_certificate is not a field of an upstream's TLS context`;
    if (tls.withoutFile.length > 0) return `${name}: ${tls.withoutFile.join(', ')} has no file`;
    try {
      createSecureContext({ cert: tls.certificate?.pem, key: tls.key?.pem, ca: tls.ca?.pem });
      const type = tls.key?.pem === undefined ? undefined : PrivateKey.fromPem(tls.key.pem).keyType;
      if (type && !loads(type)) return `${name}: a key of the type ${describeKeyType(type)} is not loaded`;
    } catch (error) {
      return `${name}: ${error instanceof Error ? error.message : String(error)}`;
    }
  }
  return undefined;
}

/** Like a real Envoy, which also loads Ed25519. */
const loads = (type: KeyType): boolean =>
  (type.type === 'rsa' && type.bits >= 2048) ||
  (type.type === 'ec' && ['P-256', 'P-384', 'P-521'].includes(type.curve)) ||
  (type.type === 'other' && type.name === 'ed25519');

/** As Envoy sees it: files by their names. Equal text means that nothing is reloaded. */
export function asEnvoySees({ tls, ...rest }: ClusterConfig): string {
  if (!tls) return JSON.stringify(rest);
  const { certificate, key, ca, crl, ...parameters } = tls;
  return JSON.stringify({
    ...rest,
    tls: { ...parameters, files: [certificate?.path, key?.path, ca?.path, crl?.path] },
  });
}

function tlsOf(context: ContextReading | undefined): EnvoyTls {
  const spec = context?.spec;
  return {
    certificate: context?.certificate,
    key: context?.key,
    ca: context?.ca,
    crl: context?.crl,
    withoutFile: context?.withoutFile ?? [],
    sni: spec?.sni,
    alpn: spec?.alpnProtocols,
    min: spec?.minTlsVersion,
    max: spec?.maxTlsVersion,
    certRequired: spec?.certRequired,
  };
}
