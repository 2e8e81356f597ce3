import { type OutgoingHttpHeaders, Agent as PlainAgent, request as plainRequest } from 'node:http';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type IncomingHttpHeaders,
} from 'node:http2';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import { isIP, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Clock } from '../../async/clock.ts';
import { type LinkedSignal, limitedTo, linkedTo, unlessAborted } from '../../async/linked-signal.ts';
import type { Access } from './credentials.ts';
import { connectThrough, errorFromSilence } from './proxy.ts';

/** A request to the API server; the path begins at the server's root. */
export interface ApiRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly headers: OutgoingHttpHeaders;
  readonly body: string | undefined;
}

/** The head of a response, and its open body. */
export interface ApiResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Readable;
}

interface ConnectionsOptions {
  readonly clock: Clock;
  /** Of a request. A connection gets half of it, so that the error names what does not answer. */
  readonly deadlineMs: number;
}

interface Opening {
  readonly done: Promise<void>;
  readonly stop: LinkedSignal;
  /** Requests that need it. */
  waiting: number;
}

/** Of a request, where it is safe to repeat it. */
const MOST_ATTEMPTS = 3;

/**
 * Connections to one server as one user, directly or through a proxy, until disposed of: HTTP/2 where the server agrees
 * to it, otherwise HTTP/1.1.
 */
export class ApiConnections implements Disposable {
  readonly generation: number;
  readonly #access: Access;
  readonly #options: ConnectionsOptions;
  readonly #end = new AbortController();
  #sessions: readonly Session[] = [];
  #opening: Opening | undefined;
  /** Set once the server has not agreed to HTTP/2. */
  #agent: PlainAgent | undefined;

  constructor(access: Access, options: ConnectionsOptions) {
    this.generation = access.generation;
    this.#access = access;
    this.#options = options;
    if (access.server.protocol === 'http:') this.#agent = this.#newAgent();
  }

  [Symbol.dispose](): void {
    this.#end.abort(new Error('the connections are no longer needed'));
    for (const session of this.#sessions) session[Symbol.dispose]();
    this.#agent?.destroy();
  }

  /** Resolves with the head of the response. The signal cuts the body too. Rejects with the cause of the failure. */
  async send(request: ApiRequest, signal: AbortSignal): Promise<ApiResponse> {
    const { pathname } = this.#access.server;
    const sent = { ...request, path: (pathname === '/' ? '' : pathname.replace(/\/$/, '')) + request.path };
    for (let attempt = 1; ; ) {
      if (this.#agent) return await this.#sendByHttp1(sent, this.#agent, signal);
      const session = this.#sessions.find(({ hasRoom }) => hasRoom);
      if (!session) {
        await this.#opened(signal);
        continue;
      }
      const isReused = session.hasAnswered;
      try {
        return await session.send(sent, signal);
      } catch (error) {
        // A connection that ended after it had answered: a read can safely be repeated.
        const isStale = isReused && request.method === 'GET' && session.hasEnded;
        const isRepeatable = isStale || error instanceof RefusedStream;
        if (signal.aborted || !isRepeatable || attempt === MOST_ATTEMPTS) throw error;
        attempt += 1;
      }
    }
  }

  /** One connection is opened for all who wait for one, for as long as anybody does. */
  async #opened(signal: AbortSignal): Promise<void> {
    this.#opening ??= this.#begin();
    const opening = this.#opening;
    opening.waiting += 1;
    try {
      await unlessAborted(opening.done, signal);
    } finally {
      opening.waiting -= 1;
      if (opening.waiting === 0) opening.stop.abort(new Error('nobody waits for the connection any more'));
    }
  }

  #begin(): Opening {
    const stop = linkedTo(this.#end.signal);
    const opening: Opening = {
      stop,
      waiting: 0,
      done: this.#open(stop.signal).finally(() => {
        stop[Symbol.dispose]();
        if (this.#opening === opening) this.#opening = undefined;
      }),
    };
    // Until the end of an opening that nobody waits for, others begin a new one.
    stop.signal.addEventListener('abort', () => {
      if (this.#opening === opening) this.#opening = undefined;
    });
    return opening;
  }

  /** Adds a session, or finds that there is HTTP/1.1 only. */
  async #open(signal: AbortSignal): Promise<void> {
    const socket = await this.#connect(signal, ['h2', 'http/1.1']);
    if (socket.alpnProtocol !== 'h2') {
      this.#agent ??= this.#newAgent(socket);
      return;
    }
    using limit = this.#limit(signal);
    const session = new Session(this.#access.server, socket, this.#options.clock, () => {
      this.#sessions = this.#sessions.filter((other) => other !== session);
    });
    try {
      await unlessAborted(session.ready, limit.signal);
      if (!session.hasRoom) throw hangUp();
      this.#sessions = [...this.#sessions, session];
    } catch (error) {
      session[Symbol.dispose]();
      throw error;
    }
  }

  async #connect(signal: AbortSignal, protocols: readonly string[]): Promise<TLSSocket> {
    const { server, tls } = this.#access;
    const target = addressOf(server);
    const socket = await this.#throughProxy(signal);
    using limit = this.#limit(signal);
    try {
      const stream = connectTls({
        ...tls,
        servername: tls.servername ?? (isIP(target.host) === 0 ? target.host : ''),
        ...target,
        ...(socket ? { socket } : {}),
        ALPNProtocols: [...protocols],
      });
      limit.signal.addEventListener('abort', () => stream.destroy());
      const connected = new Promise<TLSSocket>((resolve, reject) => {
        stream.once('secureConnect', () => resolve(stream));
        stream.on('error', reject);
        stream.once('close', () => reject(hangUp()));
      });
      return await unlessAborted(connected, limit.signal);
    } catch (error) {
      socket?.destroy();
      throw error;
    }
  }

  async #throughProxy(signal: AbortSignal): Promise<Socket | undefined> {
    const { server, proxy } = this.#access;
    using limit = this.#limit(signal);
    return proxy && (await connectThrough(proxy, addressOf(server), limit.signal));
  }

  #limit(signal: AbortSignal): LinkedSignal {
    const { clock, deadlineMs } = this.#options;
    const { proxy } = this.#access;
    const limitMs = deadlineMs / 2;
    const late = () =>
      proxy ? errorFromSilence(proxy, limitMs) : new Error(`no connection within ${limitMs / 1000} s`);
    return limitedTo(clock, limitMs, late, signal);
  }

  /** `first`: an open connection, which is used first. */
  #newAgent(first?: TLSSocket): PlainAgent {
    const { server, proxy } = this.#access;
    const options = { keepAlive: true, timeout: IDLE_MS, scheduling: 'lifo' } as const;
    const isPlain = server.protocol === 'http:';
    const agent = isPlain ? new PlainAgent(options) : new TlsAgent(options);
    if (isPlain && !proxy) return agent;
    const { signal } = this.#end;
    const unused = first ? [first] : [];
    const open = async () =>
      unused.pop() ?? (isPlain ? this.#throughProxy(signal) : this.#connect(signal, ['http/1.1']));
    agent.createConnection = (_options, opened) => {
      open().then(
        (socket) => opened?.(null, socket as Socket),
        (error) => opened?.(error, undefined as never),
      );
      return undefined;
    };
    return agent;
  }

  #sendByHttp1(
    { method, path, headers, body }: ApiRequest,
    agent: PlainAgent,
    signal: AbortSignal,
  ): Promise<ApiResponse> {
    const { server } = this.#access;
    const start = server.protocol === 'http:' ? plainRequest : tlsRequest;
    return new Promise((resolve, reject) => {
      const attempt = () => {
        if (signal.aborted) return reject(signal.reason);
        const request = start({ ...addressOf(server), method, path, headers: { ...headers }, agent });
        const abort = () => {
          request.destroy(signal.reason);
          // A request that has no connection yet says nothing of its end.
          reject(signal.reason);
        };
        signal.addEventListener('abort', abort, { once: true });
        request.on('response', (response) =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: response }),
        );
        request.on('error', (error: NodeJS.ErrnoException) => {
          // A kept-alive connection that the server has just closed: a read can safely be repeated.
          const isStale = request.reusedSocket && error.code === 'ECONNRESET' && method === 'GET';
          if (isStale && !signal.aborted) attempt();
          else reject(error);
        });
        request.end(body);
      };
      attempt();
    });
  }
}

/** Of HTTP/1.1. Short enough that the server (kube-apiserver: 90 s or more) never closes an idle connection first. */
const IDLE_MS = 30_000;

function addressOf({ protocol, hostname, port }: URL): { host: string; port: number } {
  const usual = protocol === 'http:' ? 80 : 443;
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? usual : Number(port) };
}

const hangUp = () => Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });

/** The server has not looked at the request: any method can be repeated. */
class RefusedStream extends Error {
  override readonly name = 'RefusedStream';

  constructor() {
    super('the API server refused the stream');
  }
}

/** A server allows 100 or more streams on a connection; a few remain for what is in flight. */
const MOST_STREAMS = 90;
/** A connection over which nothing came between so many looks was silent for 20 to 30 s. */
const LOOK_MS = 10_000;
/**
 * After a GOAWAY, Node sends no PING. One look later all requests have their answer or are over, and the watches that
 * are left begin anew elsewhere.
 */
const SILENT_LOOKS = 2;
const PONG_MS = 15_000;
/** Flow control lets a server send this much for each stream, and for all of them, before it waits for us. */
const STREAM_WINDOW = 256 * 1024;
const SESSION_WINDOW = 4 * 1024 * 1024;
/** MB. Requests that are not sent yet count, and beyond the limit Node.js resets whatever is answered; its own is 10. */
const SESSION_MEMORY = 128;

/**
 * What a stream receives. The stream itself says that it is closed as soon as all of it has arrived, although nobody has
 * read it yet: Node.js 24 then refuses to iterate over it.
 */
function bodyOf(stream: ClientHttp2Stream): Readable {
  const body = new Readable({
    read: () => void stream.resume(),
    destroy(error, done) {
      // Node.js ends a stream that was read to its end by itself. Where this destroyed it too, Node.js 20 corrupted its heap.
      if (!stream.readableEnded) stream.destroy(error ?? undefined);
      done(error);
    },
  });
  // The reader gets the error. Without a reader, it does not matter.
  body.on('error', () => undefined);
  stream.on('data', (piece: Buffer) => {
    if (!body.push(piece)) stream.pause();
  });
  stream.on('end', () => body.push(null));
  stream.on('error', (error) => body.destroy(error));
  stream.on('close', () => {
    // Without an end, it was cut.
    if (!stream.readableEnded) body.destroy(hangUp());
  });
  return body;
}

/** One HTTP/2 connection. It ends by itself when the server is silent or wants it, and when it is idle. */
class Session implements Disposable {
  /** Resolves when the server has said how many streams it allows. */
  readonly ready: Promise<void>;
  readonly #socket: TLSSocket;
  readonly #clock: Clock;
  readonly #session: ClientHttp2Session;
  readonly #authority: string;
  #open = 0;
  #most = MOST_STREAMS;
  #heard = 0;
  #silentLooks = 0;
  #isDoubted = false;
  #cancelLook: (() => void) | undefined;
  #cancelPong: (() => void) | undefined;
  hasAnswered = false;

  constructor(server: URL, socket: TLSSocket, clock: Clock, ended: () => void) {
    this.#socket = socket;
    this.#clock = clock;
    // Node would leave out the brackets of an IPv6 address.
    this.#authority = server.host;
    const settings = { enablePush: false, initialWindowSize: STREAM_WINDOW };
    const session = connectHttp2(server.origin, {
      createConnection: () => socket,
      settings,
      maxSessionMemory: SESSION_MEMORY,
    });
    this.#session = session;
    session.on('connect', () => {
      if (!session.destroyed) session.setLocalWindowSize(SESSION_WINDOW);
    });
    session.on('remoteSettings', ({ maxConcurrentStreams = MOST_STREAMS }) => {
      this.#most = Math.max(1, Math.min(MOST_STREAMS, maxConcurrentStreams));
    });
    session.on('close', () => {
      this.#cancelTimers();
      ended();
    });
    this.ready = new Promise((resolve, reject) => {
      session.once('remoteSettings', () => resolve());
      session.on('error', reject);
      session.once('close', () => reject(hangUp()));
    });
    this.ready.catch(() => undefined);
    this.#look();
  }

  /** Ends all of its streams. */
  [Symbol.dispose](): void {
    this.#destroy();
  }

  /** Node leaves the socket of a session that is already closed to the other side. */
  #destroy(error?: Error): void {
    this.#cancelTimers();
    this.#session.destroy(error);
    this.#socket.destroy();
  }

  get hasEnded(): boolean {
    return this.#session.destroyed || this.#socket.destroyed;
  }

  get hasRoom(): boolean {
    return !this.#session.closed && !this.hasEnded && !this.#isDoubted && this.#open < this.#most;
  }

  send({ method, path, headers, body }: ApiRequest, signal: AbortSignal): Promise<ApiResponse> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const heard = this.#socket.bytesRead;
      const head = { ...headers, ':method': method, ':path': path, ':authority': this.#authority };
      // Node would end a DELETE before its body.
      const stream = this.#session.request(head, { endStream: body === undefined });
      this.#open += 1;
      const abort = () => {
        stream.close(constants.NGHTTP2_CANCEL);
        stream.destroy(signal.reason);
        if (this.#socket.bytesRead > heard) return;
        // Perhaps the connection is dead, and not only this request: others take another one until it answers.
        this.#isDoubted = true;
        this.#ping();
      };
      signal.addEventListener('abort', abort, { once: true });
      stream.on('response', (headers) => {
        this.hasAnswered = true;
        resolve({ status: Number(headers[':status']), headers, body: bodyOf(stream) });
      });
      const isRefused = () => stream.rstCode === constants.NGHTTP2_REFUSED_STREAM;
      stream.on('error', (error) => reject(isRefused() ? new RefusedStream() : error));
      stream.on('close', () => {
        this.#open -= 1;
        reject(isRefused() ? new RefusedStream() : hangUp());
      });
      if (body !== undefined) stream.end(body);
    });
  }

  #look(): void {
    this.#cancelLook = this.#clock.after(LOOK_MS, () => {
      const isSilent = this.#socket.bytesRead === this.#heard;
      this.#heard = this.#socket.bytesRead;
      this.#silentLooks = isSilent ? this.#silentLooks + 1 : 0;
      this.#look();
      if (this.#silentLooks < SILENT_LOOKS) return;
      const hasOnlyWatches = this.#session.closed && this.#silentLooks > SILENT_LOOKS;
      if (this.#open === 0 || hasOnlyWatches) this.#destroy();
      else this.#ping();
    });
  }

  /** Ends the connection if there is no answer. */
  #ping(): void {
    if (this.#cancelPong || this.#session.closed || this.hasEnded) return;
    const silent = new Error(`no answer to a PING within ${PONG_MS / 1000} s`);
    const heard = this.#socket.bytesRead;
    this.#cancelPong = this.#clock.after(PONG_MS, () => {
      this.#cancelPong = undefined;
      // The answer may wait behind other bytes.
      if (this.#socket.bytesRead === heard) this.#destroy(silent);
    });
    this.#session.ping((error) => {
      this.#cancelPong?.();
      this.#cancelPong = undefined;
      if (error) return;
      this.#isDoubted = false;
      this.#silentLooks = 0;
    });
  }

  #cancelTimers(): void {
    this.#cancelLook?.();
    this.#cancelPong?.();
  }
}
