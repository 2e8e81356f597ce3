import { createHash } from 'node:crypto';
import type { AgentOptions } from 'node:https';
import { delimiter, dirname, resolve } from 'node:path';
import type { KubeConfig, User } from '@kubernetes/client-node';
import { parse } from 'yaml';
import type { Clock } from '../../async/clock.ts';
import { holdSecret } from '../../mesh/secrets.ts';
import { KubeconfigError, KubeError } from './error.ts';
import { parseProxy } from './proxy.ts';
import { FileError, readRegularFile } from './regular-file.ts';

/** How to reach the API server and as which user. */
export interface Access {
  readonly server: URL;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly tls: Pick<AgentOptions, 'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'servername' | 'rejectUnauthorized'>;
  /** `proxy-url` of the kubeconfig's cluster. Variables of the environment, such as HTTPS_PROXY, are not used. */
  readonly proxy: URL | undefined;
  /** Changes whenever `server`, `tls` or `proxy` does: then new connections are needed. */
  readonly generation: number;
}

export interface Impersonation {
  readonly user: string;
  readonly groups: readonly string[];
}

/** Token files are read and exec plugins run again this often; client-node re-reads files each minute at most. */
const FRESH_MS = 10_000;

/** KubeConfig's authentication, refreshed every few seconds and immediately after a 401. */
export class Credentials {
  readonly #load: () => Promise<KubeConfig>;
  readonly #clock: Clock;
  #config: Promise<KubeConfig> | undefined;
  #access: Promise<Access> | undefined;
  #askedAt = 0;
  #material = '';
  #generation = 0;

  readonly #impersonate: Impersonation | undefined;

  constructor(load: () => Promise<KubeConfig>, clock: Clock, impersonate?: Impersonation) {
    this.#load = load;
    this.#impersonate = impersonate;
    this.#clock = clock;
  }

  current(): Promise<Access> {
    const now = this.#clock.monotonic();
    if (!this.#access || now - this.#askedAt > FRESH_MS) {
      this.#askedAt = now;
      this.#access = this.#ask();
      this.#access.catch(() => this.renew());
    }
    return this.#access;
  }

  /** Forgets everything: the next call reads files and runs plugins again. */
  renew(): void {
    this.#config = undefined;
    this.#access = undefined;
  }

  async #ask(): Promise<Access> {
    this.#config ??= this.#load();
    const config = await this.#config;
    const cluster = config.getCurrentCluster();
    if (!cluster)
      throw new KubeconfigError(
        'the kubeconfig has no current context with a cluster: set current-context, or name one with --context',
      );
    const proxy = cluster.proxyUrl ? parseProxy(cluster.proxyUrl) : undefined;
    const options: Parameters<KubeConfig['applyToHTTPSOptions']>[0] & AgentOptions = { headers: {} };
    await config.applyToHTTPSOptions(options);
    const { ca, cert, key, pfx, passphrase, servername, rejectUnauthorized, auth } = options;
    if (passphrase) holdSecret(passphrase);
    const tls = defined({ ca, cert, key, pfx, passphrase, servername, rejectUnauthorized });
    const material = createHash('sha256')
      .update(JSON.stringify([cluster.server, tls, proxy]))
      .digest('hex');
    if (material !== this.#material) this.#generation += 1;
    this.#material = material;
    return {
      server: new URL(cluster.server),
      headers: { ...headersOf(options.headers, auth), ...impersonation(this.#impersonate) },
      tls,
      proxy,
      generation: this.#generation,
    };
  }
}

/** Node rejects such a header at each request; this error names the cause, and not the value. */
function sendable(name: string, value: string): string {
  if (/^[ -~]*$/.test(value)) return value;
  throw new TypeError(
    `the ${name} header of the kubeconfig's user has a line break or a character that is not printable ASCII: put one token there, on one line`,
  );
}

function impersonation(as: Impersonation | undefined): Record<string, string | string[]> {
  if (!as) return {};
  return { 'impersonate-user': as.user, ...(as.groups.length > 0 ? { 'impersonate-group': [...as.groups] } : {}) };
}

function headersOf(headers: unknown, basic: string | null | undefined): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers ?? {}))
    if (value !== undefined) result[name.toLowerCase()] = sendable(name, String(value).trim());
  const { authorization } = result;
  if (authorization !== undefined) holdSecret(authorization.replace(/^\S+\s+/, ''));
  if (basic) {
    result.authorization = `Basic ${Buffer.from(basic).toString('base64')}`;
    // The base64 form too, which is what is sent.
    holdSecret(basic);
    holdSecret(basic.slice(basic.indexOf(':') + 1));
  }
  return result;
}

function defined<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as never;
}

interface KubeConfigChoice {
  /** Path of a file. */
  readonly kubeconfig?: string | undefined;
  /** Wins over the path. */
  readonly kubeconfigText?: string | undefined;
  readonly context?: string | undefined;
}

/** The server that client-node uses when it found no configuration at all. */
const NOTHING_FOUND = 'http://localhost:8080';

/** For the start of a long-lived process: without a usable kubeconfig there is nothing to retry. */
export async function requireKubeconfig(choice: KubeConfigChoice): Promise<void> {
  try {
    const cluster = (await kubeConfigLoader(choice)()).getCurrentCluster();
    if (!cluster)
      throw new KubeconfigError('the kubeconfig has no current context with a cluster; name one with --context');
    if (!URL.canParse(cluster.server))
      throw new KubeconfigError('the server of the kubeconfig is not a URL; correct it');
    if (cluster.proxyUrl) parseProxy(cluster.proxyUrl);
  } catch (cause) {
    if (!(cause instanceof KubeconfigError)) throw cause;
    throw new KubeError('ERR_KUBE_CONFIG', cause.message, { status: 0, cause });
  }
}

/**
 * Reads the kubeconfig at each call. The library is loaded at the first one, since loading takes most of a start.
 * Throws KubeconfigError when there is no usable kubeconfig.
 */
export function kubeConfigLoader(choice: KubeConfigChoice): () => Promise<KubeConfig> {
  return async () => {
    const config = await read(choice);
    if (choice.context !== undefined) {
      if (!config.getContextObject(choice.context)) {
        const names = config.getContexts().map(({ name }) => name);
        const known = names.length === 0 ? '' : `; it has ${names.join(', ')}`;
        throw new KubeconfigError(`the kubeconfig has no context "${choice.context}"${known}`);
      }
      config.setCurrentContext(choice.context);
    }
    return config;
  };
}

async function read({ kubeconfig, kubeconfigText }: KubeConfigChoice): Promise<KubeConfig> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const load = (text: string, folder: string, place: string): KubeConfig => {
    const config = new KubeConfig();
    try {
      config.loadFromString(text);
      config.makePathsAbsolute(folder);
      config.users = withTokenFiles(config.users, text, folder);
    } catch {
      throw new KubeconfigError(
        `${place} is not a kubeconfig: it is not YAML, or a cluster, user or context lacks a name`,
      );
    }
    return config;
  };
  if (kubeconfigText !== undefined) return load(kubeconfigText, '.', 'the text');
  const paths = (kubeconfig ?? '').split(delimiter).filter((path) => path !== '');
  if (paths.length === 0) {
    const config = new KubeConfig();
    config.loadFromDefault();
    if (config.getCurrentCluster()?.server === NOTHING_FOUND) throw new KubeconfigError(NO_KUBECONFIG);
    return config;
  }
  const [first, ...others] = (await Promise.all(paths.map((path) => textOf(path, paths.length > 1)))).flatMap(
    (text, index) => {
      const path = paths[index] ?? '';
      return text === undefined ? [] : [load(text, dirname(path), path)];
    },
  );
  if (!first) throw new KubeconfigError(`none of ${paths.join(', ')} exists: correct KUBECONFIG or --kubeconfig`);
  for (const other of others) add(first, other);
  return first;
}

/** An earlier file wins, as with kubectl. */
function add(first: KubeConfig, other: KubeConfig): void {
  const unknown = <T extends { readonly name: string }>(known: readonly T[], more: readonly T[]) =>
    more.filter(({ name }) => !known.some((one) => one.name === name));
  first.clusters = [...first.clusters, ...unknown(first.clusters, other.clusters)];
  first.users = [...first.users, ...unknown(first.users, other.users)];
  first.contexts = [...first.contexts, ...unknown(first.contexts, other.contexts)];
  if (!first.currentContext) first.currentContext = other.currentContext;
}

const NO_KUBECONFIG = 'no kubeconfig: set KUBECONFIG, pass --kubeconfig, or run in a pod with a ServiceAccount';

/** A kubeconfig of a thousand clusters has 3 MB; a device never ends. */
const LARGEST = 16 * 1024 * 1024;

/** Of several files, absent ones are skipped, as kubectl does. */
async function textOf(path: string, mayBeAbsent: boolean): Promise<string | undefined> {
  try {
    return await readRegularFile(path, LARGEST);
  } catch (error) {
    if (!(error instanceof FileError)) throw error;
    if (mayBeAbsent && error.isAbsent) return undefined;
    throw new KubeconfigError(`the kubeconfig ${path} ${error.message}; set KUBECONFIG or pass --kubeconfig`);
  }
}

/** Supports `tokenFile` as kubectl does; client-node reads such a file only for the pod's own ServiceAccount. */
function withTokenFiles(users: User[], text: string, folder: string): User[] {
  if (!text.includes('tokenFile')) return users;
  const entries: { name?: string; user?: { tokenFile?: string } }[] = parse(text)?.users ?? [];
  return users.map((user) => {
    const tokenFile = entries.find((entry) => entry.name === user.name)?.user?.tokenFile;
    if (tokenFile === undefined) return user;
    return { ...user, authProvider: { name: 'tokenFile', config: { tokenFile: resolve(folder, tokenFile) } } };
  });
}
