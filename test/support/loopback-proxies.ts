import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/** What the proxy does with each connection; by default it passes it on. */
export type Behaviour = 'refuse' | 'unreachable' | 'silent';

export interface ProxyOptions {
  /** The loopback port behind each target, such as `api.invalid:443`, that the proxy can reach. */
  readonly routes: Readonly<Record<string, number>>;
  /** `user:password`; without it, anybody may use the proxy. */
  readonly credentials?: string;
  readonly behaviour?: Behaviour;
  /** The proxy itself is reached over TLS; of HTTP proxies. */
  readonly tls?: { readonly cert: string; readonly key: string };
}

export interface LoopbackProxy extends AsyncDisposable {
  readonly port: number;
  /** Of all connections until now, as the clients named them. */
  readonly targets: readonly string[];
  /** Connections that are open now. */
  readonly open: number;
}

type Kind = (options: ProxyOptions, targets: string[]) => Server;

export const startHttpProxy = (options: ProxyOptions): Promise<LoopbackProxy> => start(httpProxy, options);
export const startSocksProxy = (options: ProxyOptions): Promise<LoopbackProxy> => start(socksProxy, options);

async function start(kind: Kind, options: ProxyOptions): Promise<LoopbackProxy> {
  const targets: string[] = [];
  const clients = new Set<Socket>();
  const server = kind(options, targets);
  server.on('connection', (client: Socket) => {
    clients.add(client);
    client.on('error', () => client.destroy()).on('close', () => clients.delete(client));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    targets,
    get open() {
      return clients.size;
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** RFC 9110, CONNECT. */
function httpProxy({ routes, credentials, behaviour, tls }: ProxyOptions, targets: string[]): Server {
  const other: RequestListener = (_, response) => response.writeHead(405).end();
  const server = tls ? createHttpsServer(tls, other) : createHttpServer(other);
  return server.on('connect', ({ url = '', rawHeaders }, client: Duplex) => {
    targets.push(url);
    const refuse = (status: string) => client.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\n\r\n`);
    const wanted = credentials && `Basic ${Buffer.from(credentials).toString('base64')}`;
    const port = routes[url];
    // Names are compared by case, as some proxies do.
    if (behaviour === 'silent') client.resume().on('end', () => client.end());
    else if (wanted !== undefined && rawHeaders[rawHeaders.indexOf('Proxy-Authorization') + 1] !== wanted)
      refuse('407 Proxy Authentication Required');
    else if (behaviour === 'refuse') refuse('403 Forbidden');
    else if (port === undefined || behaviour === 'unreachable') refuse('502 Bad Gateway');
    else passOn(client, port, 'HTTP/1.1 200 Connection established\r\n\r\n');
  });
}

const SOCKS_5 = 5;
const NONE = 0;
const PASSWORD = 2;
const UNACCEPTABLE = 0xff;
const SUCCEEDED = 0;
const NOT_ALLOWED = 2;
const HOST_UNREACHABLE = 4;

/** RFC 1928 and RFC 1929, with CONNECT alone. */
function socksProxy({ routes, credentials, behaviour }: ProxyOptions, targets: string[]): Server {
  return createServer(async (client) => {
    const reply = (code: number) => Buffer.from([SOCKS_5, code, 0, 1, 0, 0, 0, 0, 0, 0]);
    const read = reader(client);
    const [version, count = 0] = await read(2);
    if (version !== SOCKS_5) return client.destroy();
    const offered = await read(count);
    const method = credentials === undefined ? NONE : PASSWORD;
    if (behaviour === 'silent') return;
    if (!offered.includes(method)) return client.end(Buffer.from([SOCKS_5, UNACCEPTABLE]));
    client.write(Buffer.from([SOCKS_5, method]));
    if (method === PASSWORD) {
      const [, nameLength = 0] = await read(2);
      const name = await read(nameLength);
      const [length = 0] = await read(1);
      const isRight = `${name}:${await read(length)}` === credentials;
      client.write(Buffer.from([1, isRight ? 0 : 1]));
      if (!isRight) return client.end();
    }
    const [, , , form] = await read(4);
    const [length = 0] = form === 3 ? await read(1) : [form === 1 ? 4 : 16];
    const address = await read(length);
    const host = form === 3 ? `${address}` : form === 1 ? address.join('.') : `[${address.toString('hex')}]`;
    const target = `${host}:${(await read(2)).readUInt16BE()}`;
    targets.push(target);
    const port = routes[target];
    if (behaviour === 'refuse') client.end(reply(NOT_ALLOWED));
    else if (port === undefined || behaviour === 'unreachable') client.end(reply(HOST_UNREACHABLE));
    else passOn(client, port, reply(SUCCEEDED));
  });
}

/** Reads exactly as many bytes as asked. A client that leaves is never answered. */
function reader(client: Socket): (size: number) => Promise<Buffer> {
  return async (size) => {
    if (size === 0) return Buffer.alloc(0);
    for (;;) {
      const bytes: Buffer | null = client.read(size);
      if (bytes) return bytes;
      await once(client, 'readable');
    }
  };
}

function passOn(client: Duplex, port: number, established: string | Buffer): void {
  const upstream = connect(port, '127.0.0.1', () => {
    client.write(established);
    client.pipe(upstream).pipe(client);
  });
  upstream.on('error', () => client.destroy()).on('close', () => client.destroy());
  client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy());
}
