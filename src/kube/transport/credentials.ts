import { createHash } from 'node:crypto';
import type { AgentOptions } from 'node:https';
import type { KubeConfig } from '@kubernetes/client-node';
import type { Clock } from '../../async/clock.ts';
import { holdSecret } from '../../mesh/secrets.ts';
import { KubeconfigError } from './error.ts';
import { parseProxy } from './proxy.ts';

/** How to reach the API server and as which user. */
export interface Access {
  readonly server: URL;
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
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

function impersonation(as: Impersonation | undefined): Record<string, string | readonly string[]> {
  if (!as) return {};
  return { 'impersonate-user': as.user, ...(as.groups.length > 0 ? { 'impersonate-group': as.groups } : {}) };
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
