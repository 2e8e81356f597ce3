import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import { isIP } from 'node:net';
import { z } from 'zod';
import type { Clock } from '../../src/async/clock.ts';
import { bounded, TokenBucket } from '../../src/async/limits.ts';
import { limitedTo, linkedTo } from '../../src/async/linked-signal.ts';
import { asError } from '../../src/async/retrying.ts';
import { type SharedHandle, sharing } from '../../src/async/sharing.ts';
import { Trigger, unlessFired } from '../../src/async/trigger.ts';
import type { Checking, Host, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath, reachesRootInTime } from '../../src/pki/chain.ts';
import { apiCa, authorised, type ConsulTokens, type LoginPort, type LoginToken, openTokens } from './access.ts';
import { type ConsulConfig, checkTrustDomain, type HttpConfig, type LoginConfig, wrongName } from './config.ts';
import { connectionError, HTTP_LOGIN_ROWS, httpError, RetryWindow, type Row } from './errors.ts';
import {
  answered,
  examineConsul,
  parsed,
  presentable,
  type ReceivedLeaf,
  readLeaf,
  readRoots,
  sameTrust,
  staleReason,
  type Trust,
} from './protocol.ts';

/**
 * After a change of the CA, agents request new leaves at a random moment within this time; this source does the same.
 */
const SPREAD_MS = 30_000;
const GREETING_MS = 10_000;

/**
 * Identities from the HTTP API, where the Consul agent makes key and leaf. What was learned survives a failed stream.
 */
export class HttpSource implements Source, Checking {
  /** Agents renew by 90 % of a leaf's life at the latest. */
  readonly overdue = 0.92;
  readonly #config: ConsulConfig;
  readonly #host: Host;
  readonly #agent: ConsulAgent;
  #trust: Trust | undefined;
  #leaf: ReceivedLeaf | undefined;
  #yielded: Identity | undefined;
  readonly #window = new RetryWindow();

  constructor(config: ConsulConfig & { http: NonNullable<ConsulConfig['http']> }, host: Host) {
    this.#config = config;
    this.#host = host;
    this.#agent = new ConsulAgent(config, host);
  }

  async *watch(signal: AbortSignal): AsyncGenerator<Identity> {
    using inner = linkedTo(signal);
    const stop = inner.signal;
    const changed = new Trigger();
    const leafDue = new Trigger();
    let failure: { error: unknown } | undefined;
    const run = (loop: Promise<void>) =>
      loop.catch((error) => {
        if (stop.aborted) return;
        failure ??= { error };
        changed.fire();
      });
    this.#yielded = undefined;
    const loops = [run(this.#followRoots(changed, leafDue, stop)), run(this.#followLeaf(changed, leafDue, stop))];
    try {
      while (!signal.aborted) {
        await changed.wait(stop);
        if (failure) throw failure.error;
        yield* this.#news(leafDue, stop);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      inner.abort(new Error('the watch ended'));
      await Promise.all(loops);
    }
  }

  check(examiner: Examiner): Promise<void> {
    const { http, tokens } = this.#agent;
    let trust: Trust | undefined;
    return examineConsul(examiner, {
      connection: (signal) =>
        answered(
          http.request({ path: '/v1/agent/connect/ca/roots', timeoutMs: GREETING_MS }, signal),
          `Consul at ${http.address}`,
        ),
      token: (signal) => tokens.get(signal),
      roots: async (signal) => {
        trust = readRoots(this.#agent.rootsName, await this.#agent.roots().next(0, signal));
        checkTrustDomain(this.#config, trust.trustDomain);
        return trust;
      },
      leaf: async (signal) => {
        const [leaf] = readLeaf(this.#agent.leafName, await this.#agent.leaf().next(0, signal)).certificates;
        const wrong = trust && wrongName(this.#config, leaf, trust.trustDomain);
        if (wrong) throw new MeshError('ERR_MESH_BAD_RESPONSE', wrong);
        return leaf;
      },
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#agent[Symbol.asyncDispose]();
  }

  async #followRoots(changed: Trigger, leafDue: Trigger, signal: AbortSignal): Promise<void> {
    const query = this.#agent.roots();
    using _parsed = this.#parsed();
    for (;;) {
      const body = await query.next(this.#agent.patience(LONGEST_WAIT_MS), signal);
      if (!this.#learn(body)) continue;
      changed.fire();
      void this.#spreadRenewal(leafDue, signal);
    }
  }

  /** The parsed last answer, shared by all followers of this agent. */
  #parsed(): SharedHandle<LastRead<string, Trust>> {
    const share = this.#host.share ?? sharing();
    return share(this.#agent.rootsName, () => new LastRead());
  }

  /** True when the answer says something new. */
  #learn(body: string): boolean {
    using parsed = this.#parsed();
    const trust = parsed.value.read(body, (text) => readRoots(this.#agent.rootsName, text));
    checkTrustDomain(this.#config, trust.trustDomain);
    const same = this.#trust !== undefined && sameTrust(this.#trust, trust);
    this.#trust = trust;
    return !same;
  }

  /**
   * Requests a new leaf soon when the new roots made the current one stale, and at once when it is no longer usable.
   */
  async #spreadRenewal(leafDue: Trigger, signal: AbortSignal): Promise<void> {
    try {
      const chain = this.#chain();
      const [leaf] = chain;
      if (!leaf || !this.#stale()) return;
      const { clock, random } = this.#host;
      const useful = findPath(leaf, chain.slice(1), this.#trust?.roots ?? [], clock.now()).ok;
      await clock.sleep(useful ? random() * SPREAD_MS : 0, signal);
      if (this.#stale()) leafDue.fire();
    } catch (error) {
      if (!signal.aborted) this.#host.report(asError(error));
    }
  }

  async #followLeaf(changed: Trigger, leafDue: Trigger, signal: AbortSignal): Promise<void> {
    const { clock } = this.#host;
    const query = this.#agent.leaf();
    for (let known = false; ; known = true) {
      const leaf = known ? this.#leaf?.certificates[0] : undefined;
      const step = leaf ? nextLeafStep(leaf, clock.now()) : { block: 0 };
      try {
        const body = await unlessFired(leafDue, signal, async (stop) => {
          if ('sleep' in step) await clock.sleep(step.sleep, stop);
          return query.next('block' in step ? this.#agent.patience(step.block) : 0, stop);
        });
        const next = readLeaf(this.#agent.leafName, body ?? (await query.next(0, signal)));
        const same = this.#leaf?.certificates[0].fingerprint === next.certificates[0].fingerprint;
        this.#leaf = next;
        this.#window.reset();
        if (!known || !same || this.#chain().length !== this.#yielded?.chain.length) changed.fire();
      } catch (error) {
        await this.#endure(error, signal);
      }
    }
  }

  /** While signing is rate-limited the current leaf stays in use; any other error ends the stream. */
  async #endure(error: unknown, signal: AbortSignal): Promise<void> {
    if (!(error instanceof MeshError) || error.code !== 'ERR_MESH_RATE_LIMITED') throw error;
    const { clock, random } = this.#host;
    const afterMs = this.#window.next(clock.monotonic(), random);
    const leaf = this.#leaf?.certificates[0];
    if (!leaf || leaf.notAfter <= clock.now()) {
      throw new MeshError(error.code, error.message, { retry: { afterMs }, cause: error });
    }
    this.#host.report(error);
    await clock.sleep(afterMs, signal);
  }

  /** What changed since the last value: new roots with the old leaf before the new leaf. */
  async *#news(leafDue: Trigger, signal: AbortSignal): AsyncGenerator<Identity> {
    if (!this.#trust || !this.#leaf) return;
    if (this.#stale()) {
      const newer = this.#learn(await this.#agent.roots().next(0, signal));
      if (newer) void this.#spreadRenewal(leafDue, signal);
    }
    const { roots } = this.#trust;
    if (this.#yielded && !sameCertificates(this.#yielded.roots, roots)) {
      this.#yielded = { ...this.#yielded, roots };
      yield this.#yielded;
    }
    const next = this.#identity(this.#leaf, this.#trust);
    const last = this.#yielded;
    if (last && sameCertificates(last.chain, next.chain) && sameCertificates(last.roots, next.roots)) return;
    this.#yielded = next;
    yield next;
  }

  #identity({ key, certificates }: ReceivedLeaf, trust: Trust): Identity {
    const now = this.#host.clock.now();
    const [leaf] = certificates;
    const chain = presentable(certificates, trust, now);
    const wrong = wrongName(this.#config, leaf, trust.trustDomain);
    const path = findPath(leaf, chain.slice(1), trust.roots, now);
    if (!wrong && reachesRootInTime(path)) return { id: leaf.names.uris[0] ?? '', key, chain, roots: trust.roots };
    const broken = path.ok ? '' : `its chain fails at ${path.at.subject || path.at.fingerprint} (${path.reason})`;
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${this.#agent.leafName}: ${wrong ?? broken}; the request is repeated. If this lasts, compare service, datacenter and the cluster's CA`,
    );
  }

  #chain(): Certificate[] {
    return this.#leaf && this.#trust ? presentable(this.#leaf.certificates, this.#trust, this.#host.clock.now()) : [];
  }

  #stale(): string | undefined {
    return this.#trust && staleReason(this.#config, this.#chain(), this.#trust, this.#host.clock.now());
  }
}

function sameCertificates(a: Identity['chain'], b: Identity['chain']): boolean {
  return a.length === b.length && a.every((each, at) => each.fingerprint === b[at]?.fingerprint);
}

/** Roots and leaves have some KiB, Vault chains several tens; a Secret holds no more than this. */
const LARGEST_ANSWER = 1024 * 1024;
const LARGEST_ERROR = 16 * 1024;

interface HttpRequest {
  readonly method?: 'GET' | 'POST' | 'PUT';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly token?: string | undefined;
  readonly body?: object;
  readonly timeoutMs: number;
  /** What statuses mean for this request only. */
  readonly meaning?: readonly Row[];
}

export interface HttpAnswer {
  readonly body: string;
  /** `X-Consul-Index` as received. */
  readonly index: string | undefined;
}

/** One Consul HTTP API: requests in, text or a MeshError out. Tokens travel in a header only. */
class ConsulHttp {
  readonly #host: Host;
  readonly #config: HttpConfig;
  readonly #socketPath: string | undefined;
  readonly #url: URL | undefined;
  #agent: Agent | undefined;
  #ca: string | undefined;

  constructor(config: HttpConfig, host: Host) {
    this.#config = config;
    this.#host = host;
    if (config.address.startsWith('unix://')) this.#socketPath = config.address.slice('unix://'.length);
    else this.#url = new URL(config.address);
  }

  get address(): string {
    return this.#config.address;
  }

  async request(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    const what = `Consul at ${this.address}: ${request.method ?? 'GET'} ${request.path}`;
    const agent = await this.#connection(signal);
    using late = limitedTo(this.#host.clock, request.timeoutMs, () => new Error('timed out'), signal);
    try {
      const answer = await this.#send(request, agent, late.signal);
      const status = answer.statusCode ?? 0;
      const ok = status >= 200 && status < 300;
      const body = ok ? await read(answer) : await beginning(answer);
      if (!ok) throw httpError(what, status, body, request.meaning);
      const index = answer.headers['x-consul-index'];
      return { body, index: typeof index === 'string' ? index : undefined };
    } catch (error) {
      signal.throwIfAborted();
      if (late.signal.aborted) {
        const seconds = Math.round(request.timeoutMs / 1000);
        throw new MeshError('ERR_MESH_TIMEOUT', `${what}: no answer in ${seconds} s; is the agent overloaded?`);
      }
      throw error instanceof MeshError ? error : connectionError(what, error);
    }
  }

  close(): void {
    this.#agent?.destroy();
    this.#agent = undefined;
  }

  /** The keep-alive agent, created again when the CA changed: index and leaf belong to one server. */
  async #connection(signal: AbortSignal): Promise<Agent> {
    if (this.#url?.protocol !== 'https:') {
      this.#agent ??= new Agent({ keepAlive: true });
      return this.#agent;
    }
    const ca = await apiCa(this.#config.tls, this.#host, signal);
    if (!this.#agent || this.#ca !== ca) {
      this.#agent?.destroy();
      const wanted = this.#config.tls?.serverName ?? bare(this.#url.hostname);
      this.#agent = new TlsAgent({ keepAlive: true, ca, ...(isIP(wanted) ? {} : { servername: wanted }) });
      this.#ca = ca;
    }
    return this.#agent;
  }

  #send({ method = 'GET', path, query = {}, token, body }: HttpRequest, agent: Agent, signal: AbortSignal) {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, value);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const options: RequestOptions = {
      method,
      agent,
      signal,
      path: search.size > 0 ? `${path}?${search}` : path,
      headers: {
        accept: 'application/json',
        ...(token === undefined ? {} : { 'x-consul-token': token }),
        ...(text === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
      },
      ...(this.#socketPath === undefined
        ? { host: bare(this.#url?.hostname ?? ''), port: this.#url?.port }
        : { socketPath: this.#socketPath }),
    };
    return new Promise<IncomingMessage>((resolve, reject) => {
      const sent = (this.#url?.protocol === 'https:' ? tlsRequest : request)(options, resolve);
      sent.on('error', reject);
      sent.end(text);
    });
  }
}

/** `[::1]` → `::1`. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '');
}

/** The beginning of an error body shows the cause. */
async function beginning(answer: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of answer as AsyncIterable<Buffer>) {
    text += part.toString('latin1');
    if (text.length > LARGEST_ERROR) break;
  }
  return Buffer.from(text.slice(0, LARGEST_ERROR), 'latin1').toString('utf8');
}

async function read(answer: IncomingMessage): Promise<string> {
  const bytes = await bounded(withinWire(answer), LARGEST_ANSWER);
  if (bytes) return bytes.toString('utf8');
  throw tooLarge();
}

/** In chunks of a byte, an answer costs six times its size to read, and far more to concatenate. */
async function* withinWire(answer: IncomingMessage): AsyncGenerator<Buffer> {
  const { socket } = answer;
  const start = socket.bytesRead;
  for await (const part of answer as AsyncIterable<Buffer>) {
    if (socket.bytesRead - start > LARGEST_ANSWER) throw tooLarge();
    yield part;
  }
}

function tooLarge(): MeshError {
  const what = `an answer of more than ${LARGEST_ANSWER} bytes, or in too many pieces`;
  return new MeshError('ERR_MESH_BAD_RESPONSE', `${what}; is this the HTTP API of Consul?`);
}

/** Below 5 min, the common limit of Consul, of proxies and of Node. */
const LONGEST_WAIT_MS = 4 * 60_000;
/**
 * Servers add up to a sixteenth of the wait, and hold a request while there is no leader: for `rpc_hold_timeout` (7 s),
 * and then for one more pause of at most the same length. A client that gives up before that never learns that the
 * leader is missing.
 */
const SLACK_MS = 20_000;

/** Consul's advice for blocking queries, whatever the cause of the spinning. */
export const PACE = { burst: 2, refillMs: 15_000 };

interface Ask {
  /** `index` and `wait` as they go into the query; absent: answer at once. */
  readonly query: { readonly index?: string; readonly wait?: string };
  readonly timeoutMs: number;
}

/**
 * Consul's rules for blocking queries, for one path: the index is opaque, it is reset when it went backwards or after
 * an error, and the loop is rate-limited whatever the server does.
 */
export class BlockingQuery {
  readonly #ask: (ask: Ask, signal: AbortSignal) => Promise<HttpAnswer>;
  readonly #bucket: TokenBucket;
  #index: bigint | undefined;

  constructor(ask: (ask: Ask, signal: AbortSignal) => Promise<HttpAnswer>, clock: Clock) {
    this.#ask = ask;
    this.#bucket = new TokenBucket({ clock, ...PACE });
  }

  /** The next answer that is at most `waitMs` old; an answer does not prove a change. */
  async next(waitMs: number, signal: AbortSignal): Promise<string> {
    await this.#bucket.take(signal);
    const before = this.#index;
    this.#index = undefined;
    const wait = Math.max(1, Math.round(Math.min(waitMs, LONGEST_WAIT_MS) / 1000));
    const blocks = before !== undefined && waitMs > 0;
    const answer = await this.#ask(
      blocks
        ? { query: { index: `${before}`, wait: `${wait}s` }, timeoutMs: (wait * 1000 * 17) / 16 + SLACK_MS }
        : { query: {}, timeoutMs: SLACK_MS },
      signal,
    );
    const after = parseIndex(answer.index);
    if (after !== undefined && (before === undefined || after >= before)) this.#index = after;
    return answer.body;
  }
}

/** At least 1: an index of 0 would turn every request into a plain one. */
function parseIndex(text: string | undefined): bigint | undefined {
  if (text === undefined || !/^\d{1,20}$/.test(text)) return undefined;
  const value = BigInt(text);
  return value < 1n ? 1n : value;
}

/**
 * Agents renew at a random point in 60–90 % of a leaf's life; past this share we request without waiting for a
 * notification.
 */
const DUE = 0.7;
/** Once a leaf is due, the interval between requests. */
const POLL_SHARE = 0.02;
const SHORTEST_POLL_MS = 15_000;
/** Below this lifetime an agent makes a new leaf at every request: then we request one only when it is due. */
const SHORT_LIFE_MS = 10 * 60_000;

/** What to do next about a leaf: block on the index this long, or sleep and then request the current one. */
type LeafStep = { readonly block: number } | { readonly sleep: number };

export function nextLeafStep(leaf: Certificate, now: number): LeafStep {
  const life = leaf.notAfter - leaf.notBefore;
  const left = leaf.notBefore + life * DUE - now;
  if (left <= 0) return { sleep: Math.min(Math.max(life * POLL_SHARE, SHORTEST_POLL_MS), LONGEST_WAIT_MS) };
  if (life < SHORT_LIFE_MS) return { sleep: Math.min(left, LONGEST_WAIT_MS) };
  return { block: Math.min(left, LONGEST_WAIT_MS) };
}

const TIMEOUT_MS = 30_000;
/**
 * A follower that is asked before it has the token caches for 30 s that it does not exist: use stale reads until it is
 * there.
 */
const SETTLE_EVERY_MS = 100;
const SETTLE_TRIES = 20;

const loginAnswer = z.object({
  SecretID: z.string().min(1),
  CreateTime: z.string().nullish(),
  ExpirationTime: z.string().nullish(),
});
/** Consul grants no shorter life; a shorter one is a clock error, and would make us log in again and again. */
const SHORTEST_LIFE_MS = 60_000;

class HttpLogin implements LoginPort {
  readonly #http: ConsulHttp;
  readonly #host: Host;

  constructor(http: ConsulHttp, host: Host) {
    this.#http = http;
    this.#host = host;
  }

  async login(config: LoginConfig, bearer: string, signal: AbortSignal): Promise<LoginToken> {
    const what = `Consul at ${this.#http.address}: login with ${config.method}`;
    const query = { dc: config.datacenter, ns: config.namespace };
    const body = { AuthMethod: config.method, BearerToken: bearer, Meta: config.meta };
    const answer = await this.#http.request(
      { method: 'POST', path: '/v1/acl/login', query, body, timeoutMs: TIMEOUT_MS, meaning: HTTP_LOGIN_ROWS },
      signal,
    );
    const { SecretID: secret, CreateTime, ExpirationTime } = parsed(what, loginAnswer, answer.body);
    // Both times are Consul's, since its clock may differ from ours.
    const lifeMs = Date.parse(ExpirationTime ?? '') - Date.parse(CreateTime ?? '');
    return Number.isNaN(lifeMs) ? { secret } : { secret, lifeMs: Math.max(lifeMs, SHORTEST_LIFE_MS) };
  }

  async settled(token: string, signal: AbortSignal): Promise<void> {
    const path = '/v1/acl/token/self';
    for (let tries = 1; ; tries++) {
      try {
        await this.#http.request({ path, query: { stale: '' }, token, timeoutMs: TIMEOUT_MS }, signal);
        return;
      } catch (error) {
        if (!(error instanceof MeshError) || error.code !== 'ERR_MESH_TOKEN' || tries >= SETTLE_TRIES) throw error;
        await this.#host.clock.sleep(SETTLE_EVERY_MS, signal);
      }
    }
  }

  async logout(token: string, signal: AbortSignal): Promise<void> {
    await this.#http.request({ method: 'POST', path: '/v1/acl/logout', token, timeoutMs: TIMEOUT_MS }, signal);
  }
}

/** Lower bound even when the token is about to be replaced; the loop would spin otherwise. */
const SHORTEST_WAIT_MS = 5_000;

/** An agent's HTTP API with our token: the two Connect paths, read at once or by blocking query. */
class ConsulAgent implements AsyncDisposable {
  readonly http: ConsulHttp;
  readonly tokens: ConsulTokens;
  readonly #config: ConsulConfig;
  readonly #host: Host;

  constructor(config: ConsulConfig & { http: NonNullable<ConsulConfig['http']> }, host: Host) {
    this.#config = config;
    this.#host = host;
    this.http = new ConsulHttp(config.http, host);
    this.tokens = openTokens(config, host, new HttpLogin(this.http, host));
  }

  get rootsName(): string {
    return `Consul at ${this.http.address}: roots`;
  }

  get leafName(): string {
    return `Consul at ${this.http.address}: leaf of ${this.#config.service}`;
  }

  roots(): BlockingQuery {
    return this.#query('/v1/agent/connect/ca/roots', { dc: this.#config.datacenter });
  }

  leaf(): BlockingQuery {
    const { service, datacenter, namespace, partition } = this.#config;
    const path = `/v1/agent/connect/ca/leaf/${encodeURIComponent(service)}`;
    return this.#query(path, { dc: datacenter, ns: namespace, partition });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tokens[Symbol.asyncDispose]();
    this.http.close();
  }

  #query(path: string, query: Readonly<Record<string, string | undefined>>): BlockingQuery {
    return new BlockingQuery(
      ({ query: waits, timeoutMs }, signal) =>
        authorised(this.tokens, signal, (token) =>
          this.http.request({ path, query: { ...query, ...waits }, token, timeoutMs }, signal),
        ),
      this.#host.clock,
    );
  }

  /** The longest time that a request may block so that its token is still valid when it is answered. */
  patience(waitMs: number): number {
    const { goodUntil } = this.tokens;
    if (goodUntil === undefined || !Number.isFinite(goodUntil)) return waitMs;
    return Math.min(waitMs, Math.max(goodUntil - this.#host.clock.now(), SHORTEST_WAIT_MS));
  }
}
