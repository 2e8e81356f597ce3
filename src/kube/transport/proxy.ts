import { type IncomingMessage, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';
import { connect, isIP, type Socket } from 'node:net';
import { localCause } from '../../mesh/local-cause.ts';
import { holdSecret } from '../../mesh/secrets.ts';
import { KubeconfigError } from './error.ts';
import { throughSocks } from './socks.ts';

export interface ProxyTarget {
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
