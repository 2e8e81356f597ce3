import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createNetServer } from 'node:net';
import { Connections } from './connections.ts';
import { EventStreams } from './events.ts';
import { ICON, SCRIPT, STYLE } from './page/gen/assets.ts';
import { renderPage } from './page/page.ts';
import { isOwnHost, SECURITY_HEADERS } from './same-origin.ts';
import { readiness, shortened } from './source/readiness.ts';
import type { HttpOptions } from './source/source.ts';

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
