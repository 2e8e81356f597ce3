import type { Readable } from 'node:stream';
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
import { ApiConnections, type ApiRequest, type ApiResponse } from './connections.ts';
import type { Access, Credentials } from './credentials.ts';
import { KubeError } from './error.ts';

export interface Exchange {
  readonly called: RequestContext;
  readonly method: ApiRequest['method'];
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
  /** Reads, writes, and watches that open, each in flight at a time; further ones wait. Leases do not count. */
  readonly concurrency: number;
  /** Called with the limit on concurrent writes, whenever it changes. */
  readonly limited?: ((limit: number) => void) | undefined;
  /** Called for each request that was answered, with its HTTP status, and for each that was not, with 0. */
  readonly answered: (called: RequestContext, status: number) => void;
  /** Called with the time of the server's clock, in epoch ms, cut to whole seconds. */
  readonly dated?: ((serverMs: number) => void) | undefined;
}

const ACCEPTS: RequestContext = { verb: 'get', object: '/version' };

const isElection = ({ called }: Exchange): boolean => called.rule?.resource === 'leases';

/** HTTP exchanges with deadlines, authentication, and a second attempt after a 401. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #pace: Pace;
  /** A Lease that waits behind other requests is lost, so those about Leases have a connection of their own. */
  #connections: { readonly shared: ApiConnections; readonly leases: ApiConnections } | undefined;

  constructor(options: TransportOptions) {
    this.#options = options;
    const { clock, concurrency: most, limited } = options;
    this.#pace = new Pace({ clock, most, limited });
  }

  /** For the whole exchange of a request, and for the response head of a watch. */
  get deadlineMs(): number {
    return this.#options.deadlineMs;
  }

  /** The decoded body of a 2xx; throws KubeError for any other status. */
  async json(exchange: Exchange, signal?: AbortSignal): Promise<unknown> {
    const kind = exchange.method === 'GET' ? 'read' : 'write';
    using turn = this.#turnNow(exchange, kind) ?? (await this.#turnLater(exchange, kind, signal));
    return await this.#timed(exchange, signal, async (limit) => {
      const response = await this.#answered(exchange, turn, limit);
      return json(exchange.called, await text(exchange.called, response));
    });
  }

  /** The open body of a 2xx. The deadline covers the head only; `signal` cuts the body. */
  async open(exchange: Exchange, signal: AbortSignal): Promise<Readable> {
    using turn = this.#turnNow(exchange, 'watch') ?? (await this.#turnLater(exchange, 'watch', signal));
    const { body } = await this.#timed(exchange, signal, (limit) => this.#answered(exchange, turn, limit));
    const cut = () => body.destroy();
    if (signal.aborted) cut();
    signal.addEventListener('abort', cut, { once: true });
    body.once('close', () => signal.removeEventListener('abort', cut));
    return body;
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
      // A client certificate belongs to its connection, and kube-apiserver ends a connection that brought a token that it
      // does not accept.
      using apart = new ApiConnections({ ...access, tls: { ca, servername, rejectUnauthorized } }, this.#options);
      const headers = { authorization: `Bearer ${token}`, accept: 'application/json', ...this.#identification };
      const request: ApiRequest = { method: 'GET', path: '/version', headers, body: undefined };
      const response = await apart.send(request, limit).catch((error: unknown) => {
        throw errorFromSocket(called, error);
      });
      const { status } = response;
      const body = await text(called, response);
      if (status === 401) return false;
      if (status === 403 || (status >= 200 && status < 300)) return true;
      throw errorFromStatus(called, status, decoded(body), response.headers['retry-after']);
    });
  }

  close(): void {
    this.#pace.close();
    this.#disconnect();
  }

  #turnNow(exchange: Exchange, kind: RequestKind): Turn | undefined {
    return isElection(exchange) ? undefined : this.#pace.takeNow(kind);
  }

  /** A request about a Lease needs no turn: a holder that waits loses it. */
  async #turnLater(exchange: Exchange, kind: RequestKind, signal: AbortSignal | undefined): Promise<Turn | undefined> {
    if (isElection(exchange)) return undefined;
    const late = () => errorFromWait(exchange.called, this.#options.deadlineMs);
    return this.#within(late, signal, (limit) => this.#pace.take(kind, limit));
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

  async #answered(exchange: Exchange, turn: Turn | undefined, limit: AbortSignal): Promise<ApiResponse> {
    const { credentials } = this.#options;
    let renewed = false;
    for (;;) {
      const response = await this.#send(exchange, turn, limit);
      const { status, headers } = response;
      turn?.answered(status, retryAfterMs(headers['retry-after'], undefined));
      if (status >= 200 && status < 300) return response;
      const body = decoded(await text(exchange.called, response));
      if (status !== 401 || renewed) throw errorFromStatus(exchange.called, status, body, headers['retry-after']);
      renewed = true;
      credentials.renew();
    }
  }

  async #send(exchange: Exchange, turn: Turn | undefined, limit: AbortSignal): Promise<ApiResponse> {
    const access = await this.#access(exchange.called);
    const { method, path } = exchange;
    const body = exchange.body === undefined ? undefined : JSON.stringify(exchange.body);
    const content =
      body === undefined
        ? {}
        : { 'content-type': exchange.contentType ?? 'application/json', 'content-length': Buffer.byteLength(body) };
    const headers = { ...access.headers, accept: 'application/json', ...content, ...this.#identification };
    try {
      const { shared, leases } = this.#current(access);
      const connections = isElection(exchange) ? leases : shared;
      const response = await connections.send({ method, path, headers, body }, limit);
      this.#options.answered(exchange.called, response.status);
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

  get #identification() {
    return { 'user-agent': this.#options.userAgent };
  }

  async #access(called: RequestContext): Promise<Access> {
    try {
      return await this.#options.credentials.current();
    } catch (error) {
      throw errorFromCredentials(called, error);
    }
  }

  #current(access: Access) {
    if (this.#connections?.shared.generation !== access.generation) {
      this.#disconnect();
      this.#connections = {
        shared: new ApiConnections(access, this.#options),
        leases: new ApiConnections(access, this.#options),
      };
    }
    return this.#connections;
  }

  #disconnect(): void {
    this.#connections?.shared[Symbol.dispose]();
    this.#connections?.leases[Symbol.dispose]();
    this.#connections = undefined;
  }
}

/** A page of a list has a hundred objects of up to several hundred kilobytes. */
const LARGEST_ANSWER = 32 * 1024 * 1024;

async function text(called: RequestContext, { body }: ApiResponse): Promise<string> {
  const bytes = await bounded(body, LARGEST_ANSWER).catch((error: unknown) => {
    throw errorFromSocket(called, error);
  });
  if (bytes) return bytes.toString();
  body.destroy();
  throw errorFromSize(called, LARGEST_ANSWER);
}

/** An HTTP/2 stream that is reset ends like one that is complete: what is not JSON may have been cut. */
function json(called: RequestContext, body: string): unknown {
  try {
    return JSON.parse(body);
  } catch (error) {
    throw errorFromSocket(called, error);
  }
}

/** Of an error. */
function decoded(body: string): unknown {
  try {
    return JSON.parse(body);
  } catch {
    // Not from the API server but, for example, a proxy's error page. Its text is not quoted.
    return {};
  }
}

/** Until a watch is open it counts, apart: a kind that is not answered holds up no other request. */
type RequestKind = 'read' | 'write' | 'watch';

interface PaceOptions {
  readonly clock: Clock;
  /** Limit on concurrent reads, on watches that open, and on concurrent writes when the API server does not ask for less. */
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
  readonly #waiting: Readonly<Record<RequestKind, WaitingList<undefined, Turn>>>;
  readonly #underWay = { read: 0, write: 0, watch: 0 };
  #state: Concurrency;

  constructor(options: PaceOptions) {
    this.#options = options;
    const list = (kind: RequestKind) =>
      new WaitingList<undefined, Turn>((waiting) => this.#admit(kind, waiting), options.clock);
    this.#waiting = { read: list('read'), write: list('write'), watch: list('watch') };
    this.#state = startingConcurrency(options.most);
    options.limited?.(Math.floor(this.#state.limit));
  }

  /** A turn if the request may be sent now. Dispose it when the request is over. */
  takeNow(kind: RequestKind): Turn | undefined {
    return this.#leftMs > 0 || this.#isFull(kind) ? undefined : this.#turn(kind);
  }

  /** Resolves when the request may be sent, in order of arrival among its kind; rejects with the signal's reason. */
  take(kind: RequestKind, signal: AbortSignal): Promise<Turn> {
    return this.#waiting[kind].join(undefined, signal);
  }

  /** Leaves no timer behind. */
  close(): void {
    for (const list of Object.values(this.#waiting)) list.close();
  }

  #turn(kind: RequestKind): Turn {
    const { clock, most, limited } = this.#options;
    const sentAt = clock.monotonic();
    this.#underWay[kind] += 1;
    const ended = once(() => {
      this.#underWay[kind] -= 1;
      for (const list of Object.values(this.#waiting)) list.look();
    });
    return {
      answered: (status, retryAfterMs) => {
        const isBusy = status === 429 || (status === 503 && retryAfterMs !== undefined);
        if (kind !== 'write' && !isBusy) return;
        const before = this.#state.limit;
        const answer = { sentAt, now: clock.monotonic(), status, retryAfterMs, underWay: this.#underWay.write };
        this.#state = answered(this.#state, answer, most);
        if (Math.floor(this.#state.limit) !== Math.floor(before)) limited?.(Math.floor(this.#state.limit));
      },
      [Symbol.dispose]: () => ended[Symbol.dispose](),
    };
  }

  get #leftMs(): number {
    return this.#state.heldUntil - this.#options.clock.monotonic();
  }

  #isFull(kind: RequestKind): boolean {
    return this.#underWay[kind] >= (kind === 'write' ? Math.floor(this.#state.limit) : this.#options.most);
  }

  #admit(kind: RequestKind, waiting: Iterable<Waiting<undefined, Turn>>): number | undefined {
    if (this.#leftMs > 0) return this.#leftMs;
    for (const { admit } of waiting) {
      if (this.#isFull(kind)) break;
      admit(this.#turn(kind));
    }
    return undefined;
  }
}
