import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { type Clock, MeshError, type MeshErrorCode } from 'meshcert/adapter';

/** An issue that takes longer has failed. */
const TIMEOUT_MS = 10_000;
/** A certificate with its chain has some ten kilobytes. */
const LARGEST_ANSWER = 1024 * 1024;

export interface Asking {
  readonly address: URL;
  /** PEM; absent: the system's CAs. */
  readonly ca: string | undefined;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly token?: string;
}

/** What each status of Vault's HTTP API means; any other 4xx is a mistake of the request. */
const STATUSES: Readonly<Record<number, readonly [MeshErrorCode, string]>> = {
  400: ['ERR_MESH_CONFIG', 'compare role, id and ttl with what the role of the PKI engine allows'],
  403: ['ERR_MESH_DENIED', 'let the role of the auth method have this ServiceAccount, and its policy the path'],
  404: ['ERR_MESH_CONFIG', 'check mount and role'],
  429: ['ERR_MESH_RATE_LIMITED', 'raise the quota of Vault, or ask for a longer ttl'],
  503: ['ERR_MESH_UNAVAILABLE', 'Vault is sealed or in maintenance; unseal it'],
};

/** One POST of Vault's API; the object that it answers. No error quotes what was sent or answered. */
export async function post(path: string, body: object, asking: Asking): Promise<Readonly<Record<string, unknown>>> {
  const { address, clock, signal } = asking;
  signal.throwIfAborted();
  const limit = new AbortController();
  const abort = () => limit.abort(signal.reason);
  signal.addEventListener('abort', abort);
  const cancel = clock.after(TIMEOUT_MS, () =>
    limit.abort(new MeshError('ERR_MESH_TIMEOUT', `Vault at ${address.host} gave no answer in ${TIMEOUT_MS / 1000} s`)),
  );
  try {
    const { status, text } = await exchange(path, JSON.stringify(body), asking, limit.signal);
    if (status !== 200) throw refusal(status, path, address);
    return objectIn(text, path);
  } catch (error) {
    if (limit.signal.aborted) throw limit.signal.reason;
    throw error instanceof MeshError ? error : unreachable(error, address);
  } finally {
    cancel();
    signal.removeEventListener('abort', abort);
  }
}

function exchange(
  path: string,
  body: string,
  { address, ca, token }: Asking,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly text: string }> {
  return new Promise((resolve, reject) => {
    const send = address.protocol === 'https:' ? httpsRequest : httpRequest;
    const headers = { 'content-type': 'application/json', ...(token === undefined ? {} : { 'x-vault-token': token }) };
    const options = { method: 'POST', headers, agent: false, signal, ...(ca === undefined ? {} : { ca }) };
    const request = send(new URL(`/v1/${path}`, address), options, (response: IncomingMessage) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
        if (text.length > LARGEST_ANSWER) response.destroy(new Error('the answer is too large'));
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(body);
  });
}

function refusal(status: number, path: string, address: URL): MeshError {
  const [code, next] = STATUSES[status] ?? [
    status >= 500 ? 'ERR_MESH_UNAVAILABLE' : 'ERR_MESH_BAD_RESPONSE',
    'see the log of Vault',
  ];
  return new MeshError(code, `Vault at ${address.host} answered ${path} with ${status}; ${next}`);
}

function unreachable(error: unknown, address: URL): MeshError {
  const { code = '', message } = error as NodeJS.ErrnoException;
  const isTls = /CERT|SIGNATURE|SSL|TLS/.test(code);
  return isTls
    ? new MeshError('ERR_MESH_TLS', `Vault at ${address.host} is not trusted (${code}); check caConfigMap`, {
        cause: error,
      })
    : new MeshError(
        'ERR_MESH_UNREACHABLE',
        `Vault at ${address.host} cannot be reached: ${code || message}; check address`,
        {
          cause: error,
        },
      );
}

function objectIn(text: string, path: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>;
  } catch {}
  throw new MeshError('ERR_MESH_BAD_RESPONSE', `Vault answered ${path} with something that is no JSON object`);
}
