import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { EventStreams } from './events.ts';
import { SECURITY_HEADERS } from './headers.ts';
import type { HttpOptions } from './options.ts';
import { ICON, SCRIPT, STYLE } from './page/gen/assets.ts';
import { renderPage } from './page/page.ts';
import { readiness } from './readiness.ts';

export interface HttpServer {
  readonly port: number;
  readonly url: string;
  stop(): Promise<void>;
}

/** Scrapers, probes and a few dozen open pages; more is a leak or an attack. */
const MOST_CONNECTIONS = 256;

/**
 * The read-only face: GET and HEAD alone, no key material, nothing that changes anything. Routes: `/` (page),
 * `/healthz`, `/readyz`, `/metrics`, `/api/status`, `/events` (SSE).
 */
export async function startHttp(options: HttpOptions): Promise<HttpServer> {
  const streams = new EventStreams(options);
  const routes = routesOf(options, streams);
  const server = createServer({ headersTimeout: 10_000, requestTimeout: 10_000 }, (request, response) => {
    try {
      serve(routes, request, response);
    } catch (error) {
      options.log.error({ err: error, path: pathOf(request) }, 'cannot answer a request');
      if (response.headersSent) response.destroy();
      else answer(response, 500, 'text/plain', 'internal error\n');
    }
  });
  server.maxConnections = MOST_CONNECTIONS;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, () => resolve());
  });
  const { port } = server.address() as AddressInfo;
  const host = options.host.includes(':') ? `[${options.host}]` : options.host;
  return {
    port,
    url: `http://${host}:${port}`,
    stop() {
      streams.close();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      return closed;
    },
  };
}

type Route = (request: IncomingMessage, response: ServerResponse) => void;

function routesOf(options: HttpOptions, streams: EventStreams): ReadonlyMap<string, Route> {
  const { source, clock, version } = options;
  const json = (response: ServerResponse, status: number, body: unknown) =>
    answer(response, status, 'application/json', `${JSON.stringify(body, null, 2)}\n`);
  const state = () => ({ ...readiness(options.health(), source.all()), version, now: clock.now() });

  return new Map<string, Route>([
    ['/healthz', (_, response) => answer(response, 200, 'text/plain', 'ok\n')],
    [
      '/readyz',
      (_, response) => {
        const body = readiness(options.health(), source.all());
        json(response, body.ready ? 200 : 503, body);
      },
    ],
    [
      '/metrics',
      (request, response) => {
        if (acceptsOpenMetrics(request)) {
          answer(response, 200, 'application/openmetrics-text; version=1.0.0', options.metrics.expose('openmetrics'));
        } else answer(response, 200, 'text/plain; version=0.0.4', options.metrics.expose());
      },
    ],
    [
      '/api/status',
      (_, response) => {
        const { now, ...rest } = state();
        json(response, 200, { ...rest, time: new Date(now).toISOString(), certificates: source.all() });
      },
    ],
    ['/events', (request, response) => streams.open(request, response)],
    ['/', (_, response) => answer(response, 200, 'text/html', renderPage(source.all(), state()))],
    ['/page.css', (_, response) => answer(response, 200, 'text/css', STYLE)],
    ['/page.js', (_, response) => answer(response, 200, 'text/javascript', SCRIPT)],
    ['/icon.svg', (_, response) => answer(response, 200, 'image/svg+xml', ICON)],
  ]);
}

function serve(routes: ReadonlyMap<string, Route>, request: IncomingMessage, response: ServerResponse): void {
  const route = routes.get(pathOf(request));
  if (!route) {
    answer(response, 404, 'text/plain', `no such page; there are ${[...routes.keys()].join(' ')}\n`);
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD');
    answer(response, 405, 'text/plain', 'read-only: GET and HEAD\n');
  } else {
    route(request, response);
  }
}

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
  const ranges = (headers.accept ?? '').split(',').map((range) => range.trim().toLowerCase().split(/ *; */));
  return ranges.some(
    ([type, ...parameters]) =>
      type === 'application/openmetrics-text' &&
      parameters.every((one) => !/^q=0(\.0*)?$/.test(one) && !(one.startsWith('version=') && one !== 'version=1.0.0')),
  );
}

const pathOf = (request: IncomingMessage): string => (request.url ?? '/').split('?', 1)[0] ?? '/';
