import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createNetServer, isIP, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { EventStreams } from './events.ts';
import { ICON, SCRIPT, STYLE } from './gen/assets.ts';
import { renderPage, SECURITY_HEADERS } from './page.ts';
import { type HttpOptions, readiness, shortened } from './source.ts';

export interface HttpServer {
  readonly port: number;
  readonly url: string;
  stop(): Promise<void>;
}

/**
 * An answer takes a few milliseconds; a client that neither sends nor reads for this long is gone, or blocks a place.
 */
const IDLE_MS = 10_000;
const HEADERS_MS = 5_000;
const REQUEST_MS = 10_000;
/** Limit on answers that wait until the probes that came with their requests are answered. */
const MOST_WAITING = 64;

/**
 * The read-only HTTP server: only GET and HEAD, no key material, nothing that changes anything. Routes: `/` (page),
 * `/healthz`, `/readyz`, `/metrics`, `/api/status`, `/events` (SSE). Probes are answered at once, whatever others
 * request or leave unread.
 */
export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const streams = new EventStreams(options);
  const server = createServer({
    headersTimeout: HEADERS_MS,
    requestTimeout: REQUEST_MS,
    keepAliveTimeout: IDLE_MS,
    connectionsCheckingInterval: 1_000,
  });
  server.timeout = IDLE_MS;
  const connections = new Connections();
  const listener = createNetServer({ allowHalfOpen: true, noDelay: true }, (raw) => {
    server.emit('connection', connections.accept(raw));
  });
  const routes = routesOf(options, streams, connections);
  const turns = new RequestSlots();
  const work = (request: IncomingMessage, response: ServerResponse, route: PathHandler) => {
    try {
      route(request, response);
    } catch (error) {
      options.log.error({ err: error, path: pathOf(request) }, 'cannot answer a request');
      if (response.headersSent) response.destroy();
      else answer(response, 500, 'text/plain', 'internal error\n');
    }
  };
  server.on('request', (request, response) => {
    response.on('error', () => {});
    if (!connections.admits(response)) return;
    const path = pathOf(request);
    const route =
      path === HEALTH || isOwnHost(request.headers.host, options.allowedHosts) ? routeOf(routes, request) : misdirected;
    if (PROBES.has(path) || !routes.has(path)) work(request, response, route);
    else if (!turns.take(() => response.destroyed || work(request, response, route))) busy(response);
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(options.port, options.host, () => resolve());
  });
  const { port } = listener.address() as AddressInfo;
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  return {
    port,
    url: `http://${host}:${port}`,
    stop() {
      streams.close();
      const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
      connections.close();
      // It does not listen itself; this ends its check for late requests.
      server.close();
      return closed;
    },
  };
}

type PathHandler = (request: IncomingMessage, response: ServerResponse) => void;

const HEALTH = '/healthz';
const READY = '/readyz';
const STATUS = '/api/status';
/** The paths that kubelet probes; small and made at once. */
const PROBES = new Set([HEALTH, READY]);

/** One answer for each turn of the event loop: between two, other due work comes first. */
class RequestSlots {
  readonly #waiting: (() => unknown)[] = [];

  /** False if too many wait already. */
  take(work: () => unknown): boolean {
    if (this.#waiting.length >= MOST_WAITING) return false;
    this.#waiting.push(work);
    if (this.#waiting.length === 1) setImmediate(this.#next);
    return true;
  }

  readonly #next = (): void => {
    this.#waiting[0]?.();
    this.#waiting.shift();
    if (this.#waiting.length > 0) setImmediate(this.#next);
  };
}

function routesOf(
  options: HttpOptions,
  streams: EventStreams,
  connections: Connections,
): ReadonlyMap<string, PathHandler> {
  const { source, clock, version } = options;
  const large = (response: ServerResponse, type: string, make: () => string) => {
    if (!connections.hasRoom) return busy(response);
    const body = make();
    connections.sends(body.length, response);
    answer(response, 200, type, body);
  };
  const state = () => ({ ...readiness(options.health(), source.all()), version, now: clock.now() });

  return new Map<string, PathHandler>([
    [HEALTH, (_, response) => answer(response, 200, 'text/plain', 'ok\n')],
    [
      READY,
      (_, response) => {
        const body = shortened(readiness(options.health(), connections.hasRoom ? source.all() : []), STATUS);
        const text = jsonOf(body);
        connections.sends(text.length, response);
        answer(response, body.ready ? 200 : 503, 'application/json', text);
      },
    ],
    [
      '/metrics',
      (request, response) => {
        if (acceptsOpenMetrics(request)) {
          const type = 'application/openmetrics-text; version=1.0.0';
          large(response, type, () => options.metrics.expose('openmetrics'));
        } else large(response, 'text/plain; version=0.0.4', () => options.metrics.expose());
      },
    ],
    [
      STATUS,
      (_, response) => {
        const { now, ...rest } = state();
        const body = { ...rest, time: new Date(now).toISOString(), certificates: source.all() };
        large(response, 'application/json', () => jsonOf(body));
      },
    ],
    [
      '/events',
      (request, response) => {
        connections.streams(response);
        streams.open(request, response);
      },
    ],
    ['/', (_, response) => large(response, 'text/html', () => renderPage(source.all(), state()))],
    ['/page.css', (_, response) => answer(response, 200, 'text/css', STYLE)],
    ['/page.js', (_, response) => answer(response, 200, 'text/javascript', SCRIPT)],
    ['/icon.svg', (_, response) => answer(response, 200, 'image/svg+xml', ICON)],
  ]);
}

function routeOf(routes: ReadonlyMap<string, PathHandler>, request: IncomingMessage): PathHandler {
  const route = routes.get(pathOf(request));
  if (!route) {
    return (_, response) =>
      answer(response, 404, 'text/plain', `no such page; there are ${[...routes.keys()].join(' ')}\n`);
  }
  if (request.method === 'GET' || request.method === 'HEAD') return route;
  return (_, response) => {
    response.setHeader('Allow', 'GET, HEAD');
    answer(response, 405, 'text/plain', 'read-only: GET and HEAD\n');
  };
}

/** The answer to the client, with a code from docs/errors.md. */
function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  answer(response, status, 'text/plain', `${code}: ${message}\n`);
}

const FOREIGN_HOST =
  'this host name is not served here; use an IP address or the name of the Service, or start the agent with --allowed-hosts';

const misdirected: PathHandler = (_, response) => refuse(response, 421, 'ERR_HTTP_HOST', FOREIGN_HOST);

function busy(response: ServerResponse): void {
  response.setHeader('Retry-After', '1');
  refuse(response, 503, 'ERR_HTTP_BUSY', 'others have not read their answers yet; try again');
}

const jsonOf = (body: unknown): string => `${JSON.stringify(body, null, 2)}\n`;

function answer(response: ServerResponse, status: number, type: string, body: string): void {
  const charset = type.includes('json') ? '' : '; charset=utf-8';
  const bytes = Buffer.from(body);
  response.writeHead(status, {
    ...SECURITY_HEADERS,
    'Content-Type': `${type}${charset}`,
    'Content-Length': bytes.length,
  });
  response.end(bytes);
}

/** Whether the client names OpenMetrics 1.0, or no version, and does not rule it out with `q=0`. */
function acceptsOpenMetrics({ headers }: IncomingMessage): boolean {
  const ranges = (headers.accept ?? '').split(',').map((range) =>
    range
      .trim()
      .toLowerCase()
      .split(';')
      .map((part) => part.trim()),
  );
  return ranges.some(
    ([type, ...parameters]) =>
      type === 'application/openmetrics-text' &&
      parameters.every((one) => !/^q=0(\.0*)?$/.test(one) && !(one.startsWith('version=') && one !== 'version=1.0.0')),
  );
}

const pathOf = (request: IncomingMessage): string => (request.url ?? '/').split('?', 1)[0] ?? '/';

/**
 * Idle ones cost about 10 KiB each. Far more than scrapers, probes and pages need, so that the connection of a probe is
 * not the oldest before it was read, however many others come with it.
 */
const MOST_CONNECTIONS = 512;
/** No scraper, probe or browser sends the next request before it has the answer. */
const MOST_PIPELINED = 4;
/** Bytes of answers that were made and not read yet, over all connections; beyond it, no further one is made. */
const MOST_UNREAD = 8 * 1024 * 1024;

interface Connection {
  readonly socket: PacedSocket;
  /** Requests without a complete answer. */
  pending: number;
  /** Bytes of answers that are not sent yet. */
  unread: number;
  streams: boolean;
}

/**
 * Keeps room for new connections. One beyond the limit closes the one that has been idle longest, or else the one whose
 * request is oldest: probes come over new connections and are answered at once, so that they get through whatever the
 * others hold.
 */
class Connections {
  /** The connection that sent a request last is last. */
  readonly #open = new Map<Duplex, Connection>();
  #unread = 0;

  /** Returns the stream that the HTTP server gets for a connection. */
  accept(raw: Socket): Duplex {
    if (this.#open.size >= MOST_CONNECTIONS) this.#oneToClose()?.destroy();
    const socket = new PacedSocket(raw);
    const connection = { socket, pending: 0, unread: 0, streams: false };
    this.#open.set(socket, connection);
    // A response that waits behind another one in a closed connection never closes itself.
    socket.once('close', () => {
      this.#open.delete(socket);
      this.#unread -= connection.unread;
    });
    return socket;
  }

  close(): void {
    for (const socket of this.#open.keys()) socket.destroy();
  }

  /** False if this connection has too many requests in progress; it is closed then. */
  admits(response: ServerResponse): boolean {
    const { socket } = response.req;
    const connection = this.#open.get(socket);
    if (!connection) return false;
    if (connection.pending >= MOST_PIPELINED) {
      socket.destroy();
      return false;
    }
    this.#open.delete(socket);
    this.#open.set(socket, connection);
    connection.pending += 1;
    connection.socket.hold();
    response.once('close', () => {
      connection.pending -= 1;
      if (connection.pending === 0) connection.socket.release();
    });
    return true;
  }

  /** False while so much is unread that no further answer may be made. */
  get hasRoom(): boolean {
    return this.#unread < MOST_UNREAD;
  }

  /** An answer of this many bytes counts as unread until it is sent. */
  sends(bytes: number, response: ServerResponse): void {
    const { socket } = response.req;
    const connection = this.#open.get(socket);
    if (!connection) return;
    connection.unread += bytes;
    this.#unread += bytes;
    response.once('close', () => {
      if (!this.#open.has(socket)) return;
      connection.unread -= bytes;
      this.#unread -= bytes;
    });
  }

  /** This connection stays open by design, and is closed last. */
  streams(response: ServerResponse): void {
    const connection = this.#open.get(response.req.socket);
    if (!connection) return;
    connection.streams = true;
    connection.socket.setTimeout(0);
  }

  #oneToClose(): Duplex | undefined {
    const all = [...this.#open];
    const found = all.find(([, { pending }]) => pending === 0) ?? all.find(([, { streams }]) => !streams) ?? all[0];
    return found?.[0];
  }
}

/** Holds about twenty requests at most; Node.js would parse all received ones at once, whatever is still unanswered. */
const PIECE = 1024;

/**
 * A connection that is read in small pieces, and not at all while it is held: requests that follow an unanswered one
 * stay in the kernel, and finally with their sender.
 */
class PacedSocket extends Duplex {
  readonly #raw: Socket;
  #isWanted = false;
  #isHeld = false;

  constructor(raw: Socket) {
    super({ allowHalfOpen: true });
    this.#raw = raw;
    raw.on('readable', () => this.#feed());
    raw.on('end', () => this.push(null));
    raw.on('error', () => this.destroy());
    raw.on('close', () => this.destroy());
    raw.on('timeout', () => this.emit('timeout'));
  }

  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#feed();
  }

  /** Like that of a socket: the HTTP server sets it. */
  setTimeout(ms: number, listener?: () => void): this {
    this.#raw.setTimeout(ms);
    if (listener) this.once('timeout', listener);
    return this;
  }

  override _read(): void {
    this.#isWanted = true;
    this.#feed();
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#raw.write(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#raw.cork();
    const last = chunks.length - 1;
    chunks.forEach(({ chunk }, at) => void this.#raw.write(chunk, at === last ? done : undefined));
    this.#raw.uncork();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#raw.end(() => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#raw.destroy();
    done(error);
  }

  #feed(): void {
    if (this.destroyed) return;
    // So that the end is noticed while the connection is held.
    if (this.#raw.readableLength === 0) this.#raw.read(0);
    if (!this.#isWanted || this.#isHeld) return;
    const piece: Buffer | null = this.#raw.read(Math.min(PIECE, this.#raw.readableLength));
    if (piece === null || piece.length === 0) return;
    this.#isWanted = false;
    this.push(piece);
  }
}

/** Names that cannot be registered: of this machine, of the cluster's Services and pods. */
const LOCAL_SUFFIXES = ['.localhost', '.svc', '.cluster.local'];

/**
 * Whether a request with this Host header is meant for this server. A page of another site whose name was made to
 * resolve here (DNS rebinding) sends its own name; a client that uses an IP address, a name without dots or the name of
 * a Service in the cluster does not. `allowed` has further names, or `*.example.com` for all names below one.
 */
export function isOwnHost(header: string | undefined, allowed: readonly string[]): boolean {
  // Only HTTP/1.0 may omit it, which no browser uses.
  if (header === undefined || header === '') return true;
  const host = hostOf(header);
  if (host === undefined) return false;
  if (isIP(host) !== 0 || !host.includes('.')) return true;
  if (LOCAL_SUFFIXES.some((suffix) => host.endsWith(suffix))) return true;
  return allowed.some((name) => (name.startsWith('*.') ? host.endsWith(name.slice(1)) : host === name));
}

/** In lower case, without port, brackets and final dot; undefined if it is not a host. */
function hostOf(header: string): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([-A-Za-z0-9_.]+))(?::\d{1,5})?$/.exec(header);
  return (match?.[1] ?? match?.[2])?.toLowerCase().replace(/\.$/, '');
}
