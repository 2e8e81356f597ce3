import { rootCertificates } from 'node:tls';
import { UnderWay } from '../../src/async/latest-value.ts';
import { limitedTo, linkedTo, unlessAborted } from '../../src/async/linked-signal.ts';
import type { Destination, Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { acceptToken, describeClaims, readClaims } from '../../src/mesh/input.ts';
import { holdSecret } from '../../src/mesh/secrets.ts';
import { type ConsulConfig, type ConsulTls, destinationsOf, type LoginConfig } from './config.ts';

/** A Consul ACL token obtained by login. */
export interface LoginToken {
  readonly secret: string;
  /** Milliseconds from its creation; absent when the method sets no TTL, or over gRPC, which does not report it. */
  readonly lifeMs?: number | undefined;
}

/** How one protocol logs in and out. */
export interface LoginPort {
  login(config: LoginConfig, bearer: string, signal: AbortSignal): Promise<LoginToken>;
  /** Resolves when servers that have not replicated the new token yet can no longer answer "ACL not found" for it. */
  settled(token: string, signal: AbortSignal): Promise<void>;
  logout(token: string, signal: AbortSignal): Promise<void>;
}

/** The source of ACL tokens for requests. */
export interface ConsulTokens extends AsyncDisposable {
  /** The token to send now; `undefined`: send none. */
  get(signal: AbortSignal): Promise<string | undefined>;
  /** Consul does not know this token. True when `get` may now return another one. */
  rejected(token: string | undefined): boolean;
  /** Epoch milliseconds after which the current token must not be relied on. */
  readonly goodUntil: number | undefined;
}

/** Remaining share of a token's life when the next login is due. */
const RENEW_BEFORE = 0.25;
/** Limit for the logout at the end, so that it does not delay a stop. */
const LOGOUT_MS = 5_000;

export function openTokens(
  config: Pick<ConsulConfig, 'auth' | 'http' | 'grpc'>,
  host: Host,
  port: LoginPort,
): ConsulTokens {
  const { auth } = config;
  if (auth?.login) return new LoginTokens(auth.login, destinationsOf(config), host, port);
  const file = auth?.tokenFile;
  const fixed = auth?.token?.reveal();
  return {
    async get(signal) {
      if (file !== undefined) return readToken(host, file, signal);
      return fixed === undefined ? undefined : acceptToken('spec.consul.auth.token', fixed);
    },
    rejected: () => false,
    goodUntil: undefined,
    async [Symbol.asyncDispose]() {},
  };
}

/** Sends a token, and once more with a new one when Consul no longer knows it. */
export async function authorised<T>(
  tokens: ConsulTokens,
  signal: AbortSignal,
  send: (token: string | undefined) => Promise<T>,
): Promise<T> {
  for (let again = false; ; again = true) {
    const token = await tokens.get(signal);
    try {
      return await send(token);
    } catch (error) {
      const unknown = error instanceof MeshError && error.code === 'ERR_MESH_TOKEN';
      if (!unknown || again || !tokens.rejected(token)) throw error;
    }
  }
}

async function readToken(host: Host, path: string, signal: AbortSignal): Promise<string> {
  const text = await firstOf((stop) => host.file(path, stop), signal);
  if (text?.trim()) {
    const token = acceptToken(`the Consul token file ${path}`, text);
    if (!readClaims(token)) return token;
    throw new MeshError(
      'ERR_MESH_TOKEN',
      `the Consul token file ${path} has a JWT, which is no Consul token, so it is not sent; to log in with it, name the file in auth.login.tokenFile`,
      { retry: 'never' },
    );
  }
  throw new MeshError('ERR_MESH_TOKEN', `the Consul token file ${path} is missing or empty; mount the token there`);
}

/** Logs in at first use, again before the token expires or when Consul forgot it, and logs out of replaced tokens. */
class LoginTokens implements ConsulTokens {
  readonly #config: LoginConfig;
  readonly #destinations: readonly Destination[];
  readonly #host: Host;
  readonly #port: LoginPort;
  readonly #underWay = new UnderWay();
  #current: (LoginToken & { readonly renewAt: number }) | undefined;
  #pending: Promise<string> | undefined;

  constructor(config: LoginConfig, destinations: readonly Destination[], host: Host, port: LoginPort) {
    this.#config = config;
    this.#destinations = destinations;
    this.#host = host;
    this.#port = port;
  }

  get goodUntil(): number | undefined {
    return this.#current?.renewAt;
  }

  async get(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    const current = this.#current;
    if (current && this.#host.clock.now() < current.renewAt) {
      holdSecret(current.secret);
      return current.secret;
    }
    this.#pending ??= this.#login().finally(() => {
      this.#pending = undefined;
    });
    return unlessAborted(this.#pending, signal);
  }

  rejected(token: string | undefined): boolean {
    if (token === undefined) return false;
    if (this.#current?.secret === token) this.#current = undefined;
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the adapter was closed'));
    await this.#pending?.catch(() => undefined);
    const token = this.#current?.secret;
    this.#current = undefined;
    if (token !== undefined) await this.#logout(token);
  }

  async #login(): Promise<string> {
    using work = this.#underWay.begin();
    const { signal } = work;
    const { tokenFile, serviceAccount, audience } = this.#config;
    const { clock, namespace } = this.#host;
    const old = this.#current?.secret;
    const bearer = await this.#host.token(
      {
        audience,
        destinations: this.#destinations,
        ...(tokenFile === undefined ? {} : { file: tokenFile }),
        ...(serviceAccount === undefined ? {} : { serviceAccount: { name: serviceAccount, namespace } }),
      },
      signal,
    );
    const token = await this.#loggedIn(bearer, signal);
    acceptToken(`the token that Consul answered to the login with ${this.#config.method}`, token.secret, token.lifeMs);
    const renewAt = clock.now() + (token.lifeMs ?? Number.POSITIVE_INFINITY) * (1 - RENEW_BEFORE);
    try {
      await this.#port.settled(token.secret, signal);
    } catch (error) {
      await this.#logout(token.secret);
      throw error;
    }
    this.#current = { ...token, renewAt };
    if (old !== undefined && old !== token.secret) void this.#logout(old);
    return token.secret;
  }

  /** Consul gives the same answer to every bearer token that it refuses; the token's claims show the likely reason. */
  async #loggedIn(bearer: string, signal: AbortSignal): Promise<LoginToken> {
    try {
      return await this.#port.login(this.#config, bearer, signal);
    } catch (cause) {
      if (!(cause instanceof MeshError) || cause.code !== 'ERR_MESH_DENIED') throw cause;
      const { message, code, retry } = cause;
      throw new MeshError(code, `${message}; it is ${describeClaims(readClaims(bearer))}`, { retry, cause });
    }
  }

  /** A token that Consul already forgot is no failure; one that cannot be logged out is reported. */
  async #logout(token: string): Promise<void> {
    using over = limitedTo(this.#host.clock, LOGOUT_MS, () => new Error('logout took too long'));
    try {
      await this.#port.logout(token, over.signal);
    } catch (error) {
      const gone = error instanceof MeshError && (error.code === 'ERR_MESH_TOKEN' || error.code === 'ERR_MESH_DENIED');
      if (!gone) this.#host.log.warn({ error }, 'an ACL token that is no longer used could not be logged out');
    }
  }
}

/** The PEM that Consul's API certificates are verified against, as it is now. */
export async function apiCa(tls: ConsulTls | undefined, host: Host, signal: AbortSignal): Promise<string> {
  const ca = tls?.ca;
  if (!ca) return rootCertificates.join('\n');
  if (ca.inline !== undefined) return ca.inline;
  if (ca.file !== undefined) {
    const text = await firstOf((stop) => host.file(ca.file as string, stop), signal);
    if (text) return text;
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `the CA file ${ca.file} of Consul's API is missing, empty or not readable; mount it there`,
    );
  }
  const ref = { name: ca.configMap?.name ?? '', namespace: ca.configMap?.namespace ?? host.namespace };
  const key = ca.configMap?.key ?? '';
  const data = await firstOf((stop) => host.configMap(ref, stop), signal);
  const text = data?.[key];
  if (text) return text;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `ConfigMap ${ref.namespace}/${ref.name} ${data ? `has no key ${key}` : 'does not exist'}; it should hold the CA of Consul's API`,
  );
}

/** The first value of a stream that would continue. */
async function firstOf<T>(open: (signal: AbortSignal) => AsyncIterable<T>, signal: AbortSignal): Promise<T> {
  using enough = linkedTo(signal);
  try {
    for await (const value of open(enough.signal)) return value;
  } finally {
    enough.abort(new Error('the first value was enough'));
  }
  signal.throwIfAborted();
  throw new MeshError('ERR_MESH_BAD_RESPONSE', 'a stream ended before its first value');
}
