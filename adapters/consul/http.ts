import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { Agent as TlsAgent, request as tlsRequest } from 'node:https';
import { isIP } from 'node:net';
import { bounded } from '../../src/async/bounded.ts';
import { limitedTo } from '../../src/async/linked-signal.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { apiCa } from './ca.ts';
import type { HttpConfig } from './config.ts';
import { connectionError, httpError, type Row } from './errors.ts';

/** Roots and leaves have some KiB, Vault chains several tens; a Secret holds no more than this. */
const LARGEST_ANSWER = 1024 * 1024;
const LARGEST_ERROR = 16 * 1024;

export interface HttpRequest {
  readonly method?: 'GET' | 'POST' | 'PUT';
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly token?: string | undefined;
  readonly body?: object;
  readonly timeoutMs: number;
  /** What statuses mean for this request only. */
  readonly meaning?: readonly Row[];
}

export interface HttpAnswer {
  readonly body: string;
  /** `X-Consul-Index` as received. */
  readonly index: string | undefined;
}

/** One Consul HTTP API: requests in, text or a MeshError out. Tokens travel in a header only. */
export class ConsulHttp {
  readonly #host: Host;
  readonly #config: HttpConfig;
  readonly #socketPath: string | undefined;
  readonly #url: URL | undefined;
  #agent: Agent | undefined;
  #ca: string | undefined;

  constructor(config: HttpConfig, host: Host) {
    this.#config = config;
    this.#host = host;
    if (config.address.startsWith('unix://')) this.#socketPath = config.address.slice('unix://'.length);
    else this.#url = new URL(config.address);
  }

  get address(): string {
    return this.#config.address;
  }

  async request(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    const what = `Consul at ${this.address}: ${request.method ?? 'GET'} ${request.path}`;
    const agent = await this.#connection(signal);
    using late = limitedTo(this.#host.clock, request.timeoutMs, () => new Error('timed out'), signal);
    try {
      const answer = await this.#send(request, agent, late.signal);
      const status = answer.statusCode ?? 0;
      const ok = status >= 200 && status < 300;
      const body = ok ? await read(answer) : await beginning(answer);
      if (!ok) throw httpError(what, status, body, request.meaning);
      const index = answer.headers['x-consul-index'];
      return { body, index: typeof index === 'string' ? index : undefined };
    } catch (error) {
      signal.throwIfAborted();
      if (late.signal.aborted) {
        const seconds = Math.round(request.timeoutMs / 1000);
        throw new MeshError('ERR_MESH_TIMEOUT', `${what}: no answer in ${seconds} s; is the agent overloaded?`);
      }
      throw error instanceof MeshError ? error : connectionError(what, error);
    }
  }

  close(): void {
    this.#agent?.destroy();
    this.#agent = undefined;
  }

  /** The keep-alive agent, created again when the CA changed: index and leaf belong to one server. */
  async #connection(signal: AbortSignal): Promise<Agent> {
    if (this.#url?.protocol !== 'https:') {
      this.#agent ??= new Agent({ keepAlive: true });
      return this.#agent;
    }
    const ca = await apiCa(this.#config.tls, this.#host, signal);
    if (!this.#agent || this.#ca !== ca) {
      this.#agent?.destroy();
      const wanted = this.#config.tls?.serverName ?? bare(this.#url.hostname);
      this.#agent = new TlsAgent({ keepAlive: true, ca, ...(isIP(wanted) ? {} : { servername: wanted }) });
      this.#ca = ca;
    }
    return this.#agent;
  }

  #send({ method = 'GET', path, query = {}, token, body }: HttpRequest, agent: Agent, signal: AbortSignal) {
    const search = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, value);
    const text = body === undefined ? undefined : JSON.stringify(body);
    const options: RequestOptions = {
      method,
      agent,
      signal,
      path: search.size > 0 ? `${path}?${search}` : path,
      headers: {
        accept: 'application/json',
        ...(token === undefined ? {} : { 'x-consul-token': token }),
        ...(text === undefined
          ? {}
          : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
      },
      ...(this.#socketPath === undefined
        ? { host: bare(this.#url?.hostname ?? ''), port: this.#url?.port }
        : { socketPath: this.#socketPath }),
    };
    return new Promise<IncomingMessage>((resolve, reject) => {
      const sent = (this.#url?.protocol === 'https:' ? tlsRequest : request)(options, resolve);
      sent.on('error', reject);
      sent.end(text);
    });
  }
}

/** `[::1]` → `::1`. */
function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, '');
}

/** The beginning of an error body shows the cause. */
async function beginning(answer: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of answer as AsyncIterable<Buffer>) {
    text += part.toString('latin1');
    if (text.length > LARGEST_ERROR) break;
  }
  return Buffer.from(text.slice(0, LARGEST_ERROR), 'latin1').toString('utf8');
}

async function read(answer: IncomingMessage): Promise<string> {
  const bytes = await bounded(withinWire(answer), LARGEST_ANSWER);
  if (bytes) return bytes.toString('utf8');
  throw tooLarge();
}

/** In chunks of a byte, an answer costs six times its size to read, and far more to concatenate. */
async function* withinWire(answer: IncomingMessage): AsyncGenerator<Buffer> {
  const { socket } = answer;
  const start = socket.bytesRead;
  for await (const part of answer as AsyncIterable<Buffer>) {
    if (socket.bytesRead - start > LARGEST_ANSWER) throw tooLarge();
    yield part;
  }
}

function tooLarge(): MeshError {
  const what = `an answer of more than ${LARGEST_ANSWER} bytes, or in too many pieces`;
  return new MeshError('ERR_MESH_BAD_RESPONSE', `${what}; is this the HTTP API of Consul?`);
}
