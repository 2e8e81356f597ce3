import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { createSecureServer } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Cluster } from './cluster.ts';
import { discover, openApi } from './discovery.ts';
import { handle } from './handler.ts';
import type { JsonFields } from './objects/object.ts';
import { ApiError, noSuchPath, unauthorized } from './objects/status.ts';
import { asked as askedBy } from './schema/request.ts';
import type { User } from './tokens.ts';

export interface ServerCredentials {
  readonly cert: string;
  readonly key: string;
  /** Without HTTP/2, as behind some load balancers. */
  readonly http1Only: boolean;
}

/** As many as kube-apiserver allows on a connection. */
const STREAMS = 100;

/** HTTP/2 by ALPN, or HTTP/1.1. Node's requests and responses of HTTP/2 are used like those of HTTP/1.1 here. */
function createTlsServer({ cert, key, http1Only }: ServerCredentials, answer: RequestListener): Server {
  const settings = { maxConcurrentStreams: STREAMS };
  const protocols = http1Only ? { ALPNProtocols: ['http/1.1'] } : {};
  const server = createSecureServer({ cert, key, allowHTTP1: true, settings, ...protocols }, answer as never);
  return server as unknown as Server;
}

/** The network side: HTTP or HTTPS on a loopback port, which survives outages. */
export class ApiServer {
  readonly #cluster: Cluster;
  readonly #server: Server;
  #sockets = new Set<Socket>();
  #port = 0;

  constructor(cluster: Cluster, credentials: ServerCredentials | undefined) {
    this.#cluster = cluster;
    const answer = (request: IncomingMessage, response: ServerResponse) => void this.#answer(request, response);
    this.#server = credentials ? createTlsServer(credentials, answer) : createServer(answer);
    this.#server.on(credentials ? 'secureConnection' : 'connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
    });
    this.#server.on('tlsClientError', () => undefined);
    this.#server.keepAliveTimeout = 0;
    this.#server.requestTimeout = 0;
  }

  get port(): number {
    return this.#port;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#port, '127.0.0.1', () => {
        this.#server.off('error', reject);
        this.#port = (this.#server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  /** Cuts every connection and accepts no more. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      for (const socket of this.#sockets) socket.destroy();
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const method = request.method ?? 'GET';
    const userAgent = request.headers['user-agent'] ?? '';
    let who = '';
    let asked: ReturnType<typeof askedBy>;
    const log = (status: number) =>
      this.#cluster.audit.add({
        at: this.#cluster.clock.now(),
        verb: asked?.verb ?? method.toLowerCase(),
        group: asked?.group ?? '',
        resource: asked ? (asked.subresource ? `${asked.plural}/${asked.subresource}` : asked.plural) : '',
        namespace: asked?.namespace,
        name: asked?.name,
        path: url.pathname,
        userAgent,
        user: who,
        status,
        dryRun: url.searchParams.has('dryRun'),
      });
    try {
      const body = await read(request);
      const user = this.#userOf(request);
      who = user?.username ?? '';
      asked = askedBy(method, url);
      if (!asked) {
        // A client without a token is the anonymous user; one with an invalid token is refused.
        if (!user && request.headers.authorization !== undefined) throw unauthorized();
        if (HEALTH.has(url.pathname)) response.end('ok');
        else if (url.pathname === '/openapi/v2') sendOpenApi2(response);
        else send(response, 200, unnamed(this.#cluster, url.pathname));
        log(200);
        return;
      }
      const fault = this.#cluster.faults.next(asked);
      await fault?.met?.(asked);
      if (fault?.latencyMs) await this.#cluster.clock.sleep(fault.latencyMs, closing(response));
      if (fault?.cut === 'before') return void request.socket.destroy();
      if (fault?.status) throw faulty(fault.status, fault.retryAfterSeconds);
      if (!user) throw unauthorized();
      const answer = handle(this.#cluster, { asked, headers: request.headers, body, user });
      if (fault?.cut === 'after') request.socket.destroy();
      else if ('watch' in answer) this.#cluster.watches.serve(answer.watch, response);
      else send(response, answer.status, answer.body);
      log('watch' in answer ? 200 : answer.status);
    } catch (error) {
      const failure = error instanceof ApiError ? error : new ApiError(500, 'InternalError', String(error));
      log(failure.status);
      if (failure.retryAfterSeconds !== undefined) response.setHeader('retry-after', String(failure.retryAfterSeconds));
      if (!response.headersSent) send(response, failure.status, failure.body());
    }
  }

  #userOf(request: IncomingMessage): User | undefined {
    const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? '')?.[1];
    if (token === undefined) return undefined;
    const user = this.#cluster.users.get(token) ?? this.#cluster.tokens.authenticate(token)?.user;
    const other = request.headers['impersonate-user'];
    return user?.groups.includes('system:masters') && typeof other === 'string' ? userNamed(other) : user;
  }
}

/** The user for `kubectl --as`. */
function userNamed(username: string): User {
  const namespace = /^system:serviceaccount:([^:]+):/.exec(username)?.[1];
  const accounts = namespace ? ['system:serviceaccounts', `system:serviceaccounts:${namespace}`] : [];
  return { username, groups: [...accounts, 'system:authenticated'] };
}

/** kubectl falls back to this for a kind that version 3 lacks: an empty document, which is zero bytes in protobuf. */
function sendOpenApi2(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf' });
  response.end();
}

/** Aborted when the client is gone. */
function closing(response: ServerResponse): AbortSignal {
  const controller = new AbortController();
  response.on('close', () => controller.abort(new Error('the client is gone')));
  return controller.signal;
}

const HEALTH = new Set(['/healthz', '/livez', '/readyz']);

function unnamed(cluster: Cluster, path: string): JsonFields {
  if (path === '/openid/v1/jwks') return cluster.tokens.keys();
  const found = discover(path, cluster.registry) ?? openApi(path, cluster.registry);
  if (!found) throw noSuchPath();
  return found;
}

const REASONS: Readonly<Record<number, string>> = {
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  409: 'Conflict',
  410: 'Expired',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServiceUnavailable',
  504: 'Timeout',
};

function faulty(status: number, retryAfterSeconds: number | undefined): ApiError {
  return new ApiError(
    status,
    REASONS[status] ?? 'Unknown',
    // Worded like RBAC, by which the agent distinguishes it from a quota or an admission rule.
    `${status === 403 ? 'User "sandbox" cannot reach resource: ' : ''}the sandbox was told to answer ${status}`,
    {},
    retryAfterSeconds,
  );
}

function send(response: ServerResponse, status: number, body: object): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) });
  response.end(text);
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}
