import { type IncomingMessage, Agent as PlainAgent, request as plainRequest, type RequestOptions } from 'node:http';
import { Agent, type AgentOptions, request as tlsRequest } from 'node:https';
import { createSecureContext } from 'node:tls';
import type { Clock } from '../../async/clock.ts';
import { bounded, type Waiting, WaitingList } from '../../async/limits.ts';
import { limitedTo, once } from '../../async/linked-signal.ts';
import { answered, type Concurrency, startingConcurrency } from '../../core/concurrency.ts';
import {
  errorFromCredentials,
  errorFromSize,
  errorFromSocket,
  errorFromStatus,
  errorFromWait,
  type RequestContext,
  retryAfterMs,
} from './classify.ts';
import type { Access, Credentials } from './credentials.ts';
import { KubeError } from './error.ts';
import { connectThrough, errorFromSilence } from './proxy.ts';

export interface Exchange {
  readonly called: RequestContext;
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: object | undefined;
  readonly contentType?: string;
}

interface TransportOptions {
  readonly credentials: Credentials;
  readonly userAgent: string;
  readonly clock: Clock;
  /** For the whole exchange of a request, and for the response head of a watch. */
  readonly deadlineMs: number;
  /** Connections for requests that are neither watches nor about Leases; further requests wait for their turn. */
  readonly concurrency: number;
  /** Called with the limit on concurrent writes, whenever it changes. */
  readonly limited?: ((limit: number) => void) | undefined;
  /** Called for each request that was answered, with its HTTP status, and for each that was not, with 0. */
  readonly answered: (called: RequestContext, status: number) => void;
  /** Called with the time of the server's clock, in epoch ms, cut to whole seconds. */
  readonly dated?: ((serverMs: number) => void) | undefined;
}

const ACCEPTS: RequestContext = { verb: 'get', object: '/version' };

const isWrite = ({ method }: Exchange): boolean => method !== 'GET';
const isElection = ({ called }: Exchange): boolean => called.rule?.resource === 'leases';

/** HTTP exchanges over kept-alive connections, with deadlines, authentication, and a second attempt after a 401. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #pace: Pace;
  #connections: ApiConnections | undefined;

  constructor(options: TransportOptions) {
    this.#options = options;
    const { clock, concurrency: most, limited } = options;
    this.#pace = new Pace({ clock, most, limited });
  }

  /** The decoded body of a 2xx; throws KubeError for any other status. */
  async json(exchange: Exchange, signal?: AbortSignal): Promise<unknown> {
    using turn = this.#turnNow(exchange) ?? (await this.#turnLater(exchange, signal));
    return await this.#timed(exchange, signal, async (limit) => {
      const response = await this.#answered(exchange, turn ? 'requests' : 'unqueued', turn, limit);
      return decoded(await text(exchange.called, response));
    });
  }

  /** The open body of a 2xx. The deadline covers the head only; `signal` cuts the body. */
  async open(exchange: Exchange, signal: AbortSignal): Promise<IncomingMessage> {
    using turn = this.#turnNow(exchange) ?? (await this.#turnLater(exchange, signal));
    const response = await this.#timed(exchange, signal, (limit) => this.#answered(exchange, 'unqueued', turn, limit));
    const cut = () => response.destroy();
    if (signal.aborted) cut();
    signal.addEventListener('abort', cut, { once: true });
    response.once('close', () => signal.removeEventListener('abort', cut));
    return response;
  }

  /** The bearer token of our own credentials, or the empty string. */
  async bearerToken(): Promise<string> {
    const { headers } = await this.#access(ACCEPTS);
    return /^Bearer (.*)$/i.exec(String(headers.authorization ?? ''))?.[1] ?? '';
  }

  /** Whether the API server authenticates this bearer token, sent without any of our other credentials. */
  async accepts(token: string, signal?: AbortSignal): Promise<boolean> {
    const called = ACCEPTS;
    return await this.#timed({ called, method: 'GET', path: '/version' }, signal, async (limit) => {
      const access = await this.#access(called);
      const { ca, servername, rejectUnauthorized } = access.tls;
      // A client certificate belongs to its connection, so the token travels over another one.
      const isShared = access.tls.cert === undefined && access.tls.pfx === undefined;
      using apart = isShared
        ? undefined
        : this.#connectionsTo({ ...access, tls: { ca, servername, rejectUnauthorized } }, called);
      const { unqueued } = apart ?? this.#current(access);
      const headers = { authorization: `Bearer ${token}`, accept: 'application/json' };
      const options = { ...this.#request(access, 'GET', '/version', headers), agent: unqueued };
      const response = await requestOnce(access, options, undefined, limit).catch((error: unknown) => {
        throw errorFromSocket(called, error);
      });
      const body = decoded(await text(called, response));
      const { statusCode = 0 } = response;
      if (statusCode === 401) return false;
      if (statusCode === 403 || (statusCode >= 200 && statusCode < 300)) return true;
      throw errorFromStatus(called, statusCode, body, response.headers['retry-after']);
    });
  }

  close(): void {
    this.#pace.close();
    this.#connections?.[Symbol.dispose]();
    this.#connections = undefined;
  }

  #turnNow(exchange: Exchange): Turn | undefined {
    return isElection(exchange) ? undefined : this.#pace.takeNow(isWrite(exchange));
  }

  /** A request about a Lease needs no turn: a holder that waits loses it. */
  async #turnLater(exchange: Exchange, signal: AbortSignal | undefined): Promise<Turn | undefined> {
    if (isElection(exchange)) return undefined;
    const late = () => errorFromWait(exchange.called, this.#options.deadlineMs);
    return this.#within(late, signal, (limit) => this.#pace.take(isWrite(exchange), limit));
  }

  #timed<T>(
    { called }: Exchange,
    signal: AbortSignal | undefined,
    work: (limit: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const late = () => errorFromSocket(called, new Error(`no answer within ${this.#options.deadlineMs / 1000} s`));
    return this.#within(late, signal, work);
  }

  async #within<T>(
    tooLate: () => KubeError,
    signal: AbortSignal | undefined,
    work: (limit: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const { clock, deadlineMs } = this.#options;
    using limit = limitedTo(clock, deadlineMs, tooLate, signal);
    try {
      return await work(limit.signal);
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (limit.signal.aborted) throw limit.signal.reason;
      throw error;
    }
  }

  async #answered(
    exchange: Exchange,
    pool: ConnectionPool,
    turn: Turn | undefined,
    limit: AbortSignal,
  ): Promise<IncomingMessage> {
    const { credentials } = this.#options;
    let renewed = false;
    for (;;) {
      const response = await this.#send(exchange, pool, turn, limit);
      const { statusCode = 0, headers } = response;
      turn?.answered(statusCode, retryAfterMs(headers['retry-after'], undefined));
      if (statusCode >= 200 && statusCode < 300) return response;
      const body = decoded(await text(exchange.called, response));
      if (statusCode !== 401 || renewed)
        throw errorFromStatus(exchange.called, statusCode, body, headers['retry-after']);
      renewed = true;
      credentials.renew();
    }
  }

  async #send(
    exchange: Exchange,
    pool: ConnectionPool,
    turn: Turn | undefined,
    limit: AbortSignal,
  ): Promise<IncomingMessage> {
    const access = await this.#access(exchange.called);
    const body = exchange.body === undefined ? undefined : JSON.stringify(exchange.body);
    const headers = {
      ...access.headers,
      accept: 'application/json',
      ...(body === undefined
        ? {}
        : { 'content-type': exchange.contentType ?? 'application/json', 'content-length': Buffer.byteLength(body) }),
    };
    const request = this.#request(access, exchange.method, exchange.path, headers);
    try {
      const options = { ...request, agent: this.#current(access)[pool] };
      const response = await requestOnce(access, options, body, limit);
      this.#options.answered(exchange.called, response.statusCode ?? 0);
      const date = Date.parse(response.headers.date ?? '');
      if (!Number.isNaN(date)) this.#options.dated?.(date);
      return response;
    } catch (error) {
      this.#options.answered(exchange.called, 0);
      // Our own deadline passed: a silent server gets fewer requests too.
      const isSilent = limit.reason instanceof KubeError;
      if (!limit.aborted || isSilent) turn?.answered(0, undefined);
      throw errorFromSocket(exchange.called, error);
    }
  }

  #request(access: Access, method: string, path: string, headers: Readonly<Record<string, string | number>>) {
    const { pathname, hostname, port } = access.server;
    return {
      method,
      path: (pathname === '/' ? '' : pathname.replace(/\/$/, '')) + path,
      host: hostname.replace(/^\[|\]$/g, ''),
      port,
      headers: { ...headers, 'user-agent': this.#options.userAgent },
    };
  }

  async #access(called: RequestContext): Promise<Access> {
    try {
      return await this.#options.credentials.current();
    } catch (error) {
      throw errorFromCredentials(called, error);
    }
  }

  #current(access: Access): ApiConnections {
    if (this.#connections?.generation === access.generation) return this.#connections;
    this.#connections?.[Symbol.dispose]();
    this.#connections = new ApiConnections(access, this.#options);
    return this.#connections;
  }

  #connectionsTo(access: Access, called: RequestContext): ApiConnections {
    try {
      return new ApiConnections(access, this.#options);
    } catch (error) {
      throw errorFromSocket(called, error);
    }
  }
}

function requestOnce(
  access: Access,
  options: RequestOptions,
  body: string | undefined,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const start = access.server.protocol === 'http:' ? plainRequest : tlsRequest;
    const attempt = () => {
      if (signal.aborted) return reject(signal.reason);
      const request = start(options);
      const abort = () => {
        request.destroy(signal.reason);
        // A request that has no connection yet says nothing of its end.
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      request.on('response', resolve);
      request.on('error', (error: NodeJS.ErrnoException) => {
        // A kept-alive connection that the server has just closed: a read can safely be repeated.
        const stale = request.reusedSocket && error.code === 'ECONNRESET' && options.method === 'GET';
        if (stale && !signal.aborted) attempt();
        else reject(error);
      });
      request.end(body);
    };
    attempt();
  });
}

/** A page of a list has a hundred objects of up to several hundred kilobytes. */
const LARGEST_ANSWER = 32 * 1024 * 1024;

async function text(called: RequestContext, response: IncomingMessage): Promise<string> {
  const bytes = await bounded(response, LARGEST_ANSWER);
  if (bytes) return bytes.toString();
  response.destroy();
  throw errorFromSize(called, LARGEST_ANSWER);
}

function decoded(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    // Not from the API server but, for example, a proxy's error page. Its text is not quoted.
    return {};
  }
}

/** Short enough that the server (kube-apiserver: 90 s or more) never closes an idle connection first. */
const IDLE_MS = 30_000;

/**
 * Requests that wait for one of a few connections, and those that never wait: watches stay open, and a Lease that waits
 * is lost.
 */
type ConnectionPool = 'requests' | 'unqueued';

interface ConnectionsOptions {
  readonly clock: Clock;
  /** Of a request. A connection through a proxy gets half of it, so that the error names the proxy. */
  readonly deadlineMs: number;
  /** Of the pool `requests`. */
  readonly concurrency: number;
}

/** Kept-alive connections to one server as one user, directly or through a proxy, until disposed of. */
class ApiConnections implements Disposable, Record<ConnectionPool, PlainAgent> {
  readonly generation: number;
  readonly requests: PlainAgent;
  readonly unqueued: PlainAgent;
  readonly #end = new AbortController();

  constructor(access: Access, options: ConnectionsOptions) {
    this.generation = access.generation;
    const isPlain = access.server.protocol === 'http:';
    const shared: AgentOptions = {
      ...access.tls,
      keepAlive: true,
      timeout: IDLE_MS,
      scheduling: 'lifo',
      // Otherwise each connection would read the CA and the client certificate again: by names, each object is watched
      // over a connection of its own.
      ...(isPlain ? {} : { secureContext: createSecureContext(access.tls) }),
    };
    const newAgent = (maxSockets: number) => {
      const agent = isPlain ? new PlainAgent({ ...shared, maxSockets }) : new Agent({ ...shared, maxSockets });
      // One server for each agent: otherwise Node would compute a name from all of its addresses and certificates at
      // each request.
      agent.getName = () => 'api';
      if (access.proxy) this.#leadThrough(access.proxy, agent, options);
      return agent;
    };
    this.requests = newAgent(options.concurrency);
    this.unqueued = newAgent(Number.POSITIVE_INFINITY);
  }

  [Symbol.dispose](): void {
    this.#end.abort(new Error('the connections are no longer needed'));
    this.requests.destroy();
    this.unqueued.destroy();
  }

  /** Only the first hop differs: the agent makes TLS, keeps connections and counts them as without a proxy. */
  #leadThrough(proxy: URL, agent: PlainAgent, { clock, deadlineMs }: ConnectionsOptions): void {
    const direct = agent.createConnection.bind(agent);
    const connect = async (options: RequestOptions) => {
      const target = { host: options.host ?? '', port: Number(options.port) };
      const limitMs = deadlineMs / 2;
      const late = () => errorFromSilence(proxy, limitMs);
      using limit = limitedTo(clock, limitMs, late, this.#end.signal);
      const socket = await connectThrough(proxy, target, limit.signal);
      if (!(agent instanceof Agent)) return socket;
      const stream = direct({ ...options, socket } as RequestOptions);
      if (!stream) throw new TypeError('no TLS over the connection through the proxy');
      return stream;
    };
    agent.createConnection = (options, opened) => {
      connect(options).then(
        (stream) => opened?.(null, stream),
        (error) => opened?.(error, undefined as never),
      );
      return undefined;
    };
  }
}

interface PaceOptions {
  readonly clock: Clock;
  /** Limit on concurrent writes when the API server does not ask for less. */
  readonly most: number;
  /** Called with the limit whenever it changes, and initially. */
  readonly limited?: ((limit: number) => void) | undefined;
}

interface Turn extends Disposable {
  /** Records a response by its status; 0 when there was none. */
  answered(status: number, retryAfterMs: number | undefined): void;
}

/** Delays requests as the API server asks: writes by a limit that adapts, and all of them for `Retry-After`. */
export class Pace {
  readonly #options: PaceOptions;
  /** Apart, so that what ends does not look at all writes that wait: there may be thousands. */
  readonly #reads: WaitingList<undefined, Turn>;
  readonly #writes: WaitingList<undefined, Turn>;
  #state: Concurrency;
  #underWay = 0;

  constructor(options: PaceOptions) {
    this.#options = options;
    this.#reads = new WaitingList((waiting) => this.#admit(false, waiting), options.clock);
    this.#writes = new WaitingList((waiting) => this.#admit(true, waiting), options.clock);
    this.#state = startingConcurrency(options.most);
    options.limited?.(Math.floor(this.#state.limit));
  }

  /** A turn if the request may be sent now. Dispose it when the request is over. */
  takeNow(isWrite: boolean): Turn | undefined {
    return this.#leftMs > 0 || this.#isFull(isWrite) ? undefined : this.#turn(isWrite);
  }

  /** Resolves when the request may be sent, in order of arrival among reads or writes; rejects with the signal's reason. */
  take(isWrite: boolean, signal: AbortSignal): Promise<Turn> {
    return (isWrite ? this.#writes : this.#reads).join(undefined, signal);
  }

  /** Leaves no timer behind. */
  close(): void {
    this.#reads.close();
    this.#writes.close();
  }

  #turn(isWrite: boolean): Turn {
    const { clock, most, limited } = this.#options;
    const sentAt = clock.monotonic();
    if (isWrite) this.#underWay += 1;
    const ended = once(() => {
      if (isWrite) this.#underWay -= 1;
      this.#reads.look();
      this.#writes.look();
    });
    return {
      answered: (status, retryAfterMs) => {
        const isBusy = status === 429 || (status === 503 && retryAfterMs !== undefined);
        if (!isWrite && !isBusy) return;
        const before = this.#state.limit;
        const answer = { sentAt, now: clock.monotonic(), status, retryAfterMs, underWay: this.#underWay };
        this.#state = answered(this.#state, answer, most);
        if (Math.floor(this.#state.limit) !== Math.floor(before)) limited?.(Math.floor(this.#state.limit));
      },
      [Symbol.dispose]: () => ended[Symbol.dispose](),
    };
  }

  get #leftMs(): number {
    return this.#state.heldUntil - this.#options.clock.monotonic();
  }

  #isFull(isWrite: boolean): boolean {
    return isWrite && this.#underWay >= Math.floor(this.#state.limit);
  }

  #admit(isWrite: boolean, waiting: Iterable<Waiting<undefined, Turn>>): number | undefined {
    if (this.#leftMs > 0) return this.#leftMs;
    for (const { admit } of waiting) {
      if (this.#isFull(isWrite)) break;
      admit(this.#turn(isWrite));
    }
    return undefined;
  }
}
