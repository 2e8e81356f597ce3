import type { KubeObject } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import { answersTo, type EmissaryEnv, type ModuleSettings, selects } from './env.ts';
import { type ContextSpec, contextSpec, loadBalancer } from './kinds.ts';
import { passesValidation, readSecretFiles, type SecretFiles } from './secret-file.ts';

export interface PemFile {
  /** As in Envoy's configuration; the directory is internal to Emissary, the file name is `secretFileName`. */
  readonly path: string;
  /** Absent for a path in the gateway's own pod that is unknown here. */
  readonly pem: string | undefined;
}

/** What only the gateway's own pod knows. */
export interface PodFiles {
  /** PEM text by path; a path that is not here does not exist. */
  readonly files: ReadonlyMap<string, string>;
  /** The Secret `istio-certs` that Emissary synthesizes from the files of its sidecar, as soon as there are some. */
  readonly madeUp?: KubeObject | undefined;
}

/** A part of a TLS context, by its field in Envoy's configuration. */
export type TlsPart = 'certificate_chain' | 'trusted_ca' | 'crl';

/** One TLSContext as the gateway reads it. */
export interface ContextReading {
  /** Under which Mappings find it. */
  readonly name: string;
  readonly namespace: string;
  readonly object: KubeObject;
  readonly spec: ContextSpec;
  /** False: Mappings that name it are served as if it did not exist. */
  readonly usable: boolean;
  readonly certificate: PemFile | undefined;
  readonly key: PemFile | undefined;
  readonly ca: PemFile | undefined;
  readonly crl: PemFile | undefined;
  /**
   * Parts that Emissary configures without a file, because their Secret has another key that it reads. Envoy refuses
   * the whole configuration.
   */
  readonly withoutFile: readonly TlsPart[];
  readonly errors: readonly string[];
}

export interface SecretRef {
  readonly name: string;
  readonly namespace: string;
}

const BASE = '/tmp/ambassador/snapshots';

/**
 * The contexts that this gateway sees, by the name under which Mappings find them. Names are global: if two contexts
 * have the same name, the one in the alphabetically first namespace gets it, the other becomes `name.namespace`, and
 * nothing is reported. Without `pod`, files that a context names are assumed to exist.
 */
export function readContexts(
  contexts: readonly KubeObject[],
  secrets: readonly KubeObject[],
  env: EmissaryEnv,
  pod?: PodFiles,
): ReadonlyMap<string, ContextReading> {
  const seen = contexts
    .filter((context) => visible(context, env) && answersTo(contextSpec(context).ambassadorId, env.ambassadorId))
    .sort((a, b) => compare(a.metadata.namespace ?? '', b.metadata.namespace ?? ''));
  const shipped = shippedSecrets(seen, env);
  const files = new Map<string, SecretFiles>();
  // The Secret of a sidecar's files comes last, and so replaces a real one of its name.
  const taken = [...secrets.filter((one) => visible(one, env)), ...(pod?.madeUp ? [pod.madeUp] : [])];
  for (const secret of taken) {
    const key = keyOf({ name: secret.metadata.name, namespace: secret.metadata.namespace ?? '' });
    const read = shipped.has(key) ? readSecretFiles(secret) : undefined;
    if (read && !(env.forceSecretValidation && !passesValidation(read))) files.set(key, read);
  }
  const named = new Map<string, ContextReading>();
  for (const context of seen) {
    const { name, namespace = '' } = context.metadata;
    const reading = readContext(context, named.has(name) ? `${name}.${namespace}` : name, files, env, pod);
    named.set(reading.name, reading);
  }
  return named;
}

/** Where a context's Secret is looked up: if namespacing is on, the part after the last dot is the namespace. */
export function secretRef(name: string, context: KubeObject, namespacing: boolean): SecretRef {
  const dot = namespacing ? name.lastIndexOf('.') : -1;
  if (dot < 0) return { name, namespace: context.metadata.namespace ?? '' };
  return { name: name.slice(0, dot), namespace: name.slice(dot + 1) };
}

/** Namespacing in the half of the gateway that reads Secrets into files. */
export function namespacing(spec: ContextSpec, env: EmissaryEnv): boolean {
  return spec.secretNamespacing ?? env.module?.tlsSecretNamespacing ?? true;
}

/**
 * Namespacing in the half that decides which Secrets it gets: off as soon as there is a Module, unless configured
 * otherwise.
 */
export function shippingNamespacing(spec: ContextSpec, env: EmissaryEnv): boolean {
  return spec.secretNamespacing ?? (env.module ? (env.module.tlsSecretNamespacing ?? false) : true);
}

function shippedSecrets(contexts: readonly KubeObject[], env: EmissaryEnv): ReadonlySet<string> {
  return new Set(
    contexts.flatMap((context) => {
      const spec = contextSpec(context);
      return [spec.secret, spec.caSecret, spec.crlSecret].flatMap((name) =>
        name === undefined ? [] : [keyOf(secretRef(name, context, shippingNamespacing(spec, env)))],
      );
    }),
  );
}

function readContext(
  object: KubeObject,
  name: string,
  secrets: ReadonlyMap<string, SecretFiles>,
  env: EmissaryEnv,
  pod: PodFiles | undefined,
): ContextReading {
  const spec = contextSpec(object);
  const { namespace = '' } = object.metadata;
  const errors: string[] = [];
  const withoutFile: TlsPart[] = [];
  const find = (wanted: string) => secrets.get(keyOf(secretRef(wanted, object, namespacing(spec, env))));
  const decoded = (of: SecretFiles | undefined, pem: string | undefined, extension: string): PemFile | undefined =>
    of && pem !== undefined
      ? { path: `${BASE}/${of.namespace}/secrets-decoded/${of.name}/${of.stem}.${extension}`, pem }
      : undefined;
  const onDisk = (path: string | undefined): PemFile | undefined => {
    if (path === undefined) return undefined;
    if (pod && !pod.files.has(path)) errors.push(`${name}: found no file ${path}`);
    return { path, pem: pod?.files.get(path) };
  };

  const sources = [
    ...[spec.secret, spec.caSecret, spec.crlSecret],
    ...[spec.certChainFile, spec.privateKeyFile, spec.caCertChainFile],
  ];
  if (sources.every((source) => source === undefined)) errors.push(`${name}: no certificate information at all`);
  if (spec.secret && spec.certChainFile) errors.push(`${name}: exactly one of secret and cert_chain_file may be set`);
  if (spec.certChainFile && !spec.privateKeyFile) errors.push(`${name}: cert_chain_file needs private_key_file`);
  const identity = spec.secret ? find(spec.secret) : undefined;
  if (spec.secret && !identity) errors.push(`${name}: found no certificate in ${spec.secret}`);
  else if (spec.secret && !identity?.key) errors.push(`${name}: found no private key in ${spec.secret}`);
  else if (spec.secret && !identity?.certificate) withoutFile.push('certificate_chain');
  const certificate = decoded(identity, identity?.certificate, 'crt') ?? onDisk(spec.certChainFile);
  const key = decoded(identity, identity?.key, 'key') ?? onDisk(spec.privateKeyFile);
  const ca = spec.caSecret ? find(spec.caSecret) : undefined;
  const beside = onDisk(spec.caCertChainFile) ?? decoded(identity, identity?.root, 'root.crt');
  if ((spec.caSecret || beside) && !certificate) errors.push(`${name}: roots without a certificate`);
  else if (spec.caSecret && !ca) errors.push(`${name}: found no validation certificate in ${spec.caSecret}`);
  else if (spec.caSecret && !ca?.certificate) withoutFile.push('trusted_ca');
  const crl = spec.crlSecret ? find(spec.crlSecret) : undefined;
  if (spec.crlSecret && !crl) errors.push(`${name}: found no revocation list in ${spec.crlSecret}`);
  else if (spec.crlSecret && !crl?.user) withoutFile.push('crl');
  if (spec.hosts.length > 0 && !certificate) errors.push(`${name}: hosts without a certificate`);

  return {
    name,
    namespace,
    object,
    spec,
    certificate,
    key,
    ca: spec.caSecret ? decoded(ca, ca?.certificate, 'crt') : beside,
    crl: decoded(crl, crl?.user, 'user'),
    usable: errors.length === 0,
    withoutFile,
    errors,
  };
}

export function visible(object: KubeObject, env: EmissaryEnv): boolean {
  if (env.singleNamespace && object.metadata.namespace !== env.namespace) return false;
  return selects(env.labelSelector, object.metadata.labels);
}

const keyOf = ({ namespace, name }: SecretRef): string => `${namespace}/${name}`;
const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** The settings in this gateway's Module named `ambassador`, or undefined when there is none. */
export function moduleSettings(modules: readonly KubeObject[], env: EmissaryEnv): ModuleSettings | undefined {
  const module = modules.find(
    (one) => one.metadata.name === 'ambassador' && answersTo(fields(one.spec).ambassador_id, env.ambassadorId),
  );
  if (!module) return undefined;
  const config = fields(fields(module.spec).config);
  const namespacing = fields(config.defaults).tls_secret_namespacing;
  return {
    tlsSecretNamespacing: typeof namespacing === 'boolean' ? namespacing : undefined,
    resolvesInOwnNamespace: config.use_ambassador_namespace_for_service_resolution === true,
    resolver: text(config.resolver),
    loadBalancer: loadBalancer(config.load_balancer),
    circuitBreakers: config.circuit_breakers,
  };
}
