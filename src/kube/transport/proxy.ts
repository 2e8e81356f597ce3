import { once } from 'node:events';
import { type IncomingMessage, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { connect, isIP, type Socket } from 'node:net';
import { localCause } from '../../mesh/error.ts';
import { holdSecret } from '../../mesh/secrets.ts';
import { ipBytes } from '../../pki/names.ts';
import { KubeconfigError } from './error.ts';

interface ProxyTarget {
  /** An IPv6 address has no brackets. */
  readonly host: string;
  readonly port: number;
}

const PORTS: Readonly<Record<string, number>> = { 'http:': 80, 'https:': 443, 'socks5:': 1080, 'socks5h:': 1080 };

/** Why there is no connection through the proxy, and the next step, in our own words. */
export class ProxyError extends Error {
  override readonly name = 'ProxyError';
  readonly next: string;

  constructor(message: string, next: string) {
    super(message);
    this.next = next;
  }
}

/**
 * The `proxy-url` of a kubeconfig's cluster. Its user and password are redacted from then on. Throws KubeconfigError.
 */
export function parseProxy(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || PORTS[url.protocol] === undefined || url.hostname === '') throw new KubeconfigError(UNUSABLE);
  const { user, password } = credentialsOf(url);
  for (const secret of [password, url.password, `${user}:${password}`]) holdSecret(secret);
  return url;
}

const UNUSABLE =
  "the proxy-url of the kubeconfig's cluster cannot be used: write it as http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT";

/** A new connection to the target through the proxy, which resolves the target's name. Throws ProxyError. */
export async function connectThrough(proxy: URL, target: ProxyTarget, signal: AbortSignal): Promise<Socket> {
  const name = nameOf(proxy);
  try {
    return await (proxy.protocol.startsWith('socks')
      ? bySocks(proxy, target, signal)
      : byConnectMethod(proxy, target, signal));
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (error instanceof ProxyError) throw error;
    const { code = '', message } = error as NodeJS.ErrnoException;
    const why = localCause(`${code} ${message}`) ?? 'the connection failed';
    throw new ProxyError(`no connection through the proxy ${name} (${why})`, CHECK_PROXY);
  }
}

/** Without the user and the password. */
const nameOf = ({ protocol, host }: URL): string => `${protocol}//${host}`;

const CHECK_PROXY = 'Check proxy-url in the kubeconfig, and that the proxy runs.';

async function bySocks(proxy: URL, target: ProxyTarget, signal: AbortSignal): Promise<Socket> {
  const socket = connect(addressOf(proxy));
  // Whoever waits hears of an error; at other times nobody does.
  socket.on('error', () => undefined);
  const cut = () => socket.destroy(signal.reason);
  signal.addEventListener('abort', cut, { once: true });
  if (signal.aborted) cut();
  try {
    const answer = await throughSocks(socket, target, credentialsOf(proxy));
    if (answer !== 'connected') throw refusal(answer, proxy, target);
    return socket;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    signal.removeEventListener('abort', cut);
  }
}

async function byConnectMethod(proxy: URL, target: ProxyTarget, signal: AbortSignal): Promise<Socket> {
  const authority = authorityOf(target);
  const { user, password } = credentialsOf(proxy);
  const basic = Buffer.from(`${user}:${password}`).toString('base64');
  const { host, port } = addressOf(proxy);
  const start = proxy.protocol === 'https:' ? tlsRequest : plainRequest;
  const request = start({
    host,
    port,
    // Otherwise Node would expect the name of the host header.
    servername: isIP(host) === 0 ? host : '',
    method: 'CONNECT',
    path: authority,
    // Some proxies compare the names by case.
    headers: { Host: authority, ...(user === '' ? {} : { 'Proxy-Authorization': `Basic ${basic}` }) },
    agent: false,
    signal,
  });
  return await new Promise<Socket>((resolve, reject) => {
    request.on('error', reject);
    request.on('connect', ({ statusCode = 0 }: IncomingMessage, socket: Socket) => {
      if (statusCode >= 200 && statusCode < 300) return resolve(socket);
      socket.destroy();
      reject(refusal(statusCode === 407 ? 'credentials' : `HTTP status ${statusCode}`, proxy, target));
    });
    request.end();
  });
}

export function errorFromSilence(proxy: URL, ms: number): ProxyError {
  return new ProxyError(`no answer within ${ms / 1000} s from the proxy ${nameOf(proxy)}`, CHECK_PROXY);
}

/** `answer` is our own text. */
function refusal(answer: string, proxy: URL, target: ProxyTarget): ProxyError {
  const name = nameOf(proxy);
  if (answer === 'credentials')
    return new ProxyError(
      `the proxy ${name} does not accept the user and password of proxy-url, or needs some`,
      'Correct them in proxy-url of the kubeconfig: http://USER:PASSWORD@HOST:PORT, with special characters URL-encoded.',
    );
  return new ProxyError(
    `the proxy ${name} did not connect to ${authorityOf(target)} (${answer})`,
    'Check that the proxy may and can reach that address, and server and proxy-url in the kubeconfig.',
  );
}

function addressOf({ protocol, hostname, port }: URL): { host: string; port: number } {
  return { host: hostname.replace(/^\[|\]$/g, ''), port: port === '' ? (PORTS[protocol] ?? 0) : Number(port) };
}

const authorityOf = ({ host, port }: ProxyTarget): string =>
  isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;

function credentialsOf({ username, password }: URL): { user: string; password: string } {
  try {
    return { user: decodeURIComponent(username), password: decodeURIComponent(password) };
  } catch {
    throw new KubeconfigError(
      'the user or the password in the proxy-url of the kubeconfig is not URL-encoded: write % as %25',
    );
  }
}

const VERSION = 5;
const CONNECT = 1;
const ANONYMOUS = 0;
const PASSWORD = 2;

const ADDRESS = { ipv4: 1, name: 3, ipv6: 4 } as const;
/** Of a name or a password: their length is one byte. */
const LONGEST = 255;

/** RFC 1928, section 6. */
const REPLIES: readonly string[] = [
  'connected',
  'general failure',
  'not allowed by its rules',
  'network unreachable',
  'host unreachable',
  'connection refused',
  'time to live expired',
  'command not supported',
  'address type not supported',
];

/**
 * Asks the SOCKS5 proxy at the other end of the socket to connect to the target (RFC 1928, RFC 1929), by name, so that
 * the proxy resolves it. Its answer in our words: `connected`, `credentials` when it does not accept them or needs some,
 * or why it did not connect. Throws what the socket throws.
 */
async function throughSocks(
  socket: Socket,
  target: { readonly host: string; readonly port: number },
  { user, password }: { readonly user: string; readonly password: string },
): Promise<string> {
  const cut = () => socket.destroy(ended());
  socket.once('end', cut);
  const methods = user === '' ? [ANONYMOUS] : [ANONYMOUS, PASSWORD];
  socket.write(Buffer.from([VERSION, methods.length, ...methods]));
  const [version, method = 0] = await read(socket, 2);
  if (version !== VERSION) return 'it does not speak SOCKS5';
  if (!methods.includes(method)) return 'credentials';
  if (method === PASSWORD) {
    socket.write(Buffer.concat([Buffer.from([1]), sized(user), sized(password)]));
    const [, status] = await read(socket, 2);
    if (status !== 0) return 'credentials';
  }
  const port = Buffer.alloc(2);
  port.writeUInt16BE(target.port);
  socket.write(Buffer.concat([Buffer.from([VERSION, CONNECT, 0]), socksAddress(target.host), port]));
  const [, reply = 0, , form] = await read(socket, 4);
  if (reply !== 0) return REPLIES[reply] ?? `reply ${reply}`;
  // The address from which the proxy connects.
  const [length = 0] = form === ADDRESS.name ? await read(socket, 1) : [form === ADDRESS.ipv6 ? 16 : 4];
  await read(socket, length + 2);
  socket.off('end', cut);
  return 'connected';
}

function socksAddress(host: string): Buffer {
  const version = isIP(host);
  if (version === 0) return Buffer.concat([Buffer.from([ADDRESS.name]), sized(host)]);
  return Buffer.concat([Buffer.from([version === 4 ? ADDRESS.ipv4 : ADDRESS.ipv6]), ipBytes(host)]);
}

function sized(text: string): Buffer {
  const bytes = Buffer.from(text).subarray(0, LONGEST);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

/** Exactly as many bytes; what follows belongs to the target. */
async function read(socket: Socket, size: number): Promise<Buffer> {
  for (;;) {
    const bytes: Buffer | null = socket.read(size);
    if (bytes?.length === size) return bytes;
    // At the end of the stream, fewer bytes than asked for.
    if (bytes || socket.destroyed) throw socket.errored ?? ended();
    await once(socket, 'readable');
  }
}

const ended = () => Object.assign(new Error('socket hang up'), { code: 'ECONNRESET' });
