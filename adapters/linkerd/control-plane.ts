import { parse, YAMLParseError } from 'yaml';
import { mapStream, type StreamTransform } from '../../src/async/latest-value.ts';
import { asError } from '../../src/async/retrying.ts';
import { type SharedHandle, sharing } from '../../src/async/sharing.ts';
import type { ConfigMapRef, Host } from '../../src/mesh/adapter.ts';
import type { ListedTarget, TargetRefusal, TargetRules, Workload } from '../../src/mesh/cluster.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { requireShallowYaml } from '../../src/mesh/input.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import { type Certificate, parseCertificates } from '../../src/pki/certificate.ts';
import { identityOf, isLabel, type LinkerdConfig } from './config.ts';

/** What must be known about an installation of Linkerd before the first request. */
export interface ControlPlane {
  readonly namespace: string;
  readonly trustDomain: string;
  /** `host:port` of the identity service. */
  readonly address: string;
  /** Ports that proxies pass through unread unless a pod configures otherwise. */
  readonly opaquePorts: PortSet;
  /** Ports that never reach a proxy unless a pod configures otherwise. */
  readonly skippedPorts: PortSet;
}

/** The chart's `proxy.opaquePorts`: protocols in which the server speaks first. */
const DEFAULT_OPAQUE = '25,587,3306,4444,5432,6379,9300,11211';
/** The chart's `proxyInit.ignoreInboundPorts`: those of Galera. */
const DEFAULT_SKIPPED = '4567,4568';
const LONGEST_VALUES = 1024 * 1024;

export const controlPlane: ObjectReader<ControlPlane> = {
  ref: (config) => ({ name: 'linkerd-config', namespace: config.controlPlaneNamespace }),
  decidedBy: ({ trustDomain, clusterDomain, address }) => [trustDomain, clusterDomain, address],
  read: readControlPlane,
};

/**
 * Reads ConfigMap linkerd-config, `undefined` if it does not exist: then the configuration must name both domains. The
 * trust domain is the cluster domain unless Linkerd names another.
 */
export function readControlPlane(
  config: LinkerdConfig,
  data: Readonly<Record<string, string>> | undefined,
): ControlPlane {
  const namespace = config.controlPlaneNamespace;
  const values = readValues(namespace, data?.values);
  const clusterDomain = config.clusterDomain ?? text(values.clusterDomain);
  const trustDomain = config.trustDomain ?? text(values.identityTrustDomain) ?? text(values.clusterDomain);
  if (trustDomain === undefined || (clusterDomain === undefined && config.address === undefined)) {
    const lacking = trustDomain === undefined ? 'trustDomain' : 'clusterDomain (or address)';
    const state = data === undefined ? 'does not exist' : 'does not contain it';
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `ConfigMap ${namespace}/linkerd-config ${state}, and spec.linkerd has no ${lacking}; correct controlPlaneNamespace, or set ${lacking}`,
    );
  }
  return {
    namespace,
    trustDomain,
    address: config.address ?? identityAddress(namespace, clusterDomain ?? ''),
    opaquePorts: parsePorts(text(record(values.proxy).opaquePorts) ?? DEFAULT_OPAQUE),
    skippedPorts: parsePorts(text(record(values.proxyInit).ignoreInboundPorts) ?? DEFAULT_SKIPPED),
  };
}

/** `host:port` of the identity service, unless the configuration names another. */
export const identityAddress = (controlPlaneNamespace: string, clusterDomain: string): string =>
  `linkerd-identity-headless.${controlPlaneNamespace}.svc.${clusterDomain}:8080`;

function readValues(namespace: string, yaml: string | undefined): Readonly<Record<string, unknown>> {
  try {
    if (yaml !== undefined && yaml.length > LONGEST_VALUES) throw new RangeError('more than 1 MiB');
    requireShallowYaml(yaml ?? '');
    return record(yaml === undefined ? {} : parse(yaml, { maxAliasCount: 100 }));
  } catch (cause) {
    // The parser's own message would quote the text.
    const at = cause instanceof YAMLParseError ? cause.linePos?.[0] : undefined;
    const why = at ? ` (line ${at.line}, column ${at.col})` : cause instanceof RangeError ? ` (${cause.message})` : '';
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `key "values" of ConfigMap ${namespace}/linkerd-config is not YAML${why}; repair it, or set trustDomain and clusterDomain`,
    );
  }
}

const record = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : typeof value === 'number' ? String(value) : undefined;

/** Ports of a Linkerd annotation or value: single ones and ranges. */
type PortSet = readonly (readonly [first: number, last: number])[];

/** `"25,587, 4000-4010"`; entries that are not ports, such as names, are dropped: Linkerd ignores them too. */
function parsePorts(text: string): PortSet {
  return text.split(',').flatMap((part) => {
    const [, first, last = first] = /^\s*(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(part) ?? [];
    return first === undefined ? [] : [[Number(first), Number(last)] as const];
  });
}

const hasPort = (ports: PortSet, port: number): boolean => ports.some(([first, last]) => first <= port && port <= last);

type Data = Readonly<Record<string, string>> | undefined;

/** How one ConfigMap of Linkerd's is read. */
interface ObjectReader<T> {
  readonly ref: (config: LinkerdConfig) => ConfigMapRef;
  /** The parts of the configuration that affect the result. */
  readonly decidedBy: (config: LinkerdConfig) => readonly (string | undefined)[];
  /** Throws for data that it cannot use. */
  readonly read: (config: LinkerdConfig, data: Data) => T;
}

/**
 * A ConfigMap through a reader. While it is watched, the last valid value is remembered and an invalid one is reported;
 * otherwise each call reads it again. A ConfigMap with many watchers is read once.
 */
export class WatchedConfigMap<T> implements StreamTransform<Data, T> {
  readonly #host: Pick<Host, 'configMap' | 'report' | 'share'>;
  readonly #config: LinkerdConfig;
  readonly #reader: ObjectReader<T>;
  /** Set while it is watched. */
  #read: SharedHandle<LastRead<Data, T>> | undefined;
  #latest: { readonly value: T } | undefined;

  constructor(host: Pick<Host, 'configMap' | 'report' | 'share'>, config: LinkerdConfig, reader: ObjectReader<T>) {
    this.#host = host;
    this.#config = config;
    this.#reader = reader;
  }

  async current(signal: AbortSignal): Promise<T> {
    if (this.#latest) return this.#latest.value;
    for await (const data of this.#data(signal)) return this.#reader.read(this.#config, data);
    signal.throwIfAborted();
    throw new TypeError('a watched ConfigMap has a state');
  }

  changes(signal: AbortSignal): AsyncIterable<T> {
    return mapStream(this.#data(signal), this);
  }

  read(data: Data): T | undefined {
    this.#read ??= (this.#host.share ?? sharing())(this.#key, () => new LastRead());
    try {
      const value = this.#read.value.read(data, () => this.#reader.read(this.#config, data));
      if (this.#latest?.value !== value) this.#latest = { value };
      return value;
    } catch (error) {
      this.#host.report(asError(error));
      return undefined;
    }
  }

  over(): void {
    this.#read?.[Symbol.dispose]();
    this.#read = undefined;
    this.#latest = undefined;
  }

  get #key(): string {
    const { namespace, name } = this.#reader.ref(this.#config);
    return `linkerd ConfigMap ${JSON.stringify([namespace, name, ...this.#reader.decidedBy(this.#config)])}`;
  }

  #data(signal: AbortSignal): AsyncIterable<Data> {
    return this.#host.configMap(this.#reader.ref(this.#config), signal);
  }
}

export const trustRoots: ObjectReader<readonly Certificate[]> = {
  ref: (config) => ({ name: config.trustRoots.configMap, namespace: config.controlPlaneNamespace }),
  decidedBy: (config) => [config.trustRoots.key],
  read: readRoots,
};

/** The trust roots, at least one; text, keys and duplicates between them are skipped. */
function readRoots(config: LinkerdConfig, data: Readonly<Record<string, string>> | undefined): readonly Certificate[] {
  const { key, configMap } = config.trustRoots;
  const title = `ConfigMap ${config.controlPlaneNamespace}/${configMap}`;
  if (data === undefined) {
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `${title} with Linkerd's trust roots does not exist; with an external CA, let trust-manager write it or name it in trustRoots.configMap`,
    );
  }
  const pem = data[key];
  if (pem === undefined || pem.trim() === '') {
    const keys = Object.keys(data).join(', ') || 'no key';
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `${title} has no trust root under ${key} but ${keys}; name the key in trustRoots.key`,
    );
  }
  try {
    return parseCertificates(pem);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MeshError('ERR_MESH_CONFIG', `key ${key} of ${title} cannot be read as certificates: ${why}; repair it`, {
      cause,
    });
  }
}

/** Where proxies accept each other's connections: another protocol, announced by ALPN and a header. */
const PROXY_PORT = 4143;
/** The proxy's own control and admin ports, which are never redirected to it. */
const PROXY_OWN_PORTS = '4190,4191';
const CONTROL_PLANE_LABEL = 'linkerd.io/control-plane-ns';
const OPAQUE_ANNOTATION = 'config.linkerd.io/opaque-ports';
const SKIP_ANNOTATION = 'config.linkerd.io/skip-inbound-ports';

/** How Linkerd's proxies are named, and on which ports they do not terminate TLS for clients outside the mesh. */
export function targetRules(config: LinkerdConfig, plane: ControlPlane): TargetRules {
  const listed = (config.targets ?? []).map(
    ({ serviceAccount, namespace, name, contextName }): ListedTarget => ({
      id: identityOf({ name: serviceAccount, namespace }, plane),
      serviceAccount,
      namespace,
      name,
      contextName,
    }),
  );
  return {
    listed,
    discover: config.discover ?? listed.length === 0,
    identify: (workload, port) =>
      refusal(workload, port, plane) ?? {
        id: identityOf({ name: workload.serviceAccount, namespace: workload.namespace }, plane),
      },
  };
}

function refusal(workload: Workload, port: number, plane: ControlPlane): TargetRefusal | undefined {
  const pod = `Pod ${workload.namespace}/${workload.name}`;
  const controlPlane = workload.labels[CONTROL_PLANE_LABEL];
  if (controlPlane === undefined) {
    const message = `${pod} has no Linkerd proxy, so nothing terminates TLS there; inject it (linkerd.io/inject: enabled) and restart it`;
    return { code: 'ERR_TARGET_UNMESHED', message };
  }
  if (controlPlane !== plane.namespace) {
    const message = `${pod} belongs to the control plane in ${controlPlane}, not ${plane.namespace}; use a MeshCertificate for that one`;
    return { code: 'ERR_TARGET_OTHER_MESH', message };
  }
  if (port === PROXY_PORT) {
    const message = `port ${PROXY_PORT} of ${pod} accepts only Linkerd's own proxies; use the application's port`;
    return { code: 'ERR_TARGET_PROXY_PORT', message };
  }
  const skipped = workload.annotations[SKIP_ANNOTATION];
  if (
    hasPort(parsePorts(PROXY_OWN_PORTS), port) ||
    hasPort(skipped === undefined ? plane.skippedPorts : parsePorts(skipped), port)
  ) {
    const message = `port ${port} of ${pod} bypasses its proxy, so nothing terminates TLS there; remove it from ${SKIP_ANNOTATION}, or use another port`;
    return { code: 'ERR_TARGET_SKIPPED_PORT', message };
  }
  const opaque = workload.annotations[OPAQUE_ANNOTATION];
  if (hasPort(opaque === undefined ? plane.opaquePorts : parsePorts(opaque), port)) {
    const message = `port ${port} of ${pod} is opaque, so its proxy passes TLS on to the application; remove it from ${OPAQUE_ANNOTATION} (set it to "" when the default lists it), or use another port`;
    return { code: 'ERR_TARGET_OPAQUE_PORT', message };
  }
  if (!isLabel(workload.serviceAccount)) {
    const message = `Linkerd gives no identity to ServiceAccount ${workload.namespace}/${workload.serviceAccount} of ${pod}, since it has a dot in its name; use another account`;
    return { code: 'ERR_TARGET_NAME', message };
  }
  return undefined;
}
