import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AclToken } from './acl.ts';
import { colons } from './connect-ca.ts';
import { LeafCache } from './leaf-cache.ts';
import { ConsulRefusal, refusals } from './refusal.ts';
import type { ConsulState } from './state.ts';

const LEAF = '/v1/agent/connect/ca/leaf/';
/** Defaults of `wait`: of roots, and of the leaf. */
const WAIT_MS = { roots: 5 * 60_000, leaf: 10 * 60_000 };
const LONGEST_WAIT_MS = 10 * 60_000;

interface Reply {
  readonly body: unknown;
  readonly index?: number;
}

/** The HTTP API of one agent, as far as a Connect client needs it. */
export class HttpApi {
  readonly #state: ConsulState;
  readonly #leaves: LeafCache;
  /** Paths with queries, as they came. */
  readonly requests: string[] = [];
  /** The next answers, whatever the request: for bodies that a healthy Consul does not send. */
  readonly scripted: { status: number; body: string }[] = [];

  constructor(state: ConsulState) {
    this.#state = state;
    this.#leaves = new LeafCache(state);
  }

  renewLeaves(): void {
    this.#leaves.expire();
  }

  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const ended = new AbortController();
    response.on('close', () => ended.abort());
    this.requests.push(`${request.method} ${request.url}`);
    const body = await text(request);
    const scripted = this.scripted.shift();
    if (scripted) {
      response.writeHead(scripted.status, { 'content-type': 'text/plain' }).end(scripted.body);
      return;
    }
    try {
      const reply = await this.#route(request, body, ended.signal);
      response.setHeader('content-type', 'application/json');
      if (reply.index !== undefined) response.setHeader('x-consul-index', `${reply.index}`);
      response.end(toJson(reply.body));
    } catch (error) {
      const status = error instanceof ConsulRefusal ? error.http : 500;
      response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8' });
      response.end(error instanceof Error ? error.message : String(error));
    }
  }

  async #route(request: IncomingMessage, body: string, signal: AbortSignal): Promise<Reply> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://consul');
    const header = request.headers['x-consul-token'];
    const token = typeof header === 'string' ? header : undefined;
    const datacenter = searchParams.get('dc') ?? this.#state.datacenter;
    if (searchParams.has('ns')) {
      throw refusals.badRequest('Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature');
    }
    if (searchParams.has('partition')) {
      throw refusals.badRequest('Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature');
    }
    if (pathname === '/v1/agent/connect/ca/roots' || pathname === '/v1/connect/ca/roots') {
      if (datacenter !== this.#state.datacenter) throw refusals.noPath();
      return this.#roots(searchParams, signal);
    }
    if (pathname.startsWith(LEAF)) {
      if (datacenter !== this.#state.datacenter) throw refusals.noPath();
      const service = decodeURIComponent(pathname.slice(LEAF.length));
      return this.#leaf(service, datacenter, token, searchParams, signal);
    }
    if (pathname === '/v1/acl/login') return { body: this.#login(body) };
    if (pathname === '/v1/acl/logout') {
      this.#state.acl.logout(token);
      this.#state.changed.fire();
      return { body: true };
    }
    if (pathname === '/v1/acl/token/self') return { body: describe(this.#state.acl.self(token)) };
    throw new ConsulRefusal(404, 12, `Invalid URL path: not a recognized HTTP API endpoint: ${pathname}`);
  }

  #login(body: string): object {
    const { AuthMethod = '', BearerToken = '' } = JSON.parse(body) as { AuthMethod?: string; BearerToken?: string };
    return describe(this.#state.acl.login(AuthMethod, BearerToken));
  }

  async #roots(query: URLSearchParams, signal: AbortSignal): Promise<Reply> {
    const { clock, random } = this.#state;
    const index = readIndex(query);
    const waitMs = readWait(query, WAIT_MS.roots);
    const deadline = clock.now() + waitMs * (1 + random() / 16);
    const generation = this.#state.generation;
    const waits = () =>
      index > 0 && this.#state.rootsIndex <= index && this.#state.generation === generation && !signal.aborted;
    while (waits() && clock.now() < deadline) {
      const before = this.#state.rootsIndex;
      await this.#state.changed.wait(deadline - clock.now(), clock, signal);
      if (this.#state.rootsIndex < before) break;
    }
    this.#state.requireConnect();
    return { index: this.#state.rootsIndex, body: rootsJson(this.#state) };
  }

  async #leaf(
    service: string,
    datacenter: string,
    token: string | undefined,
    query: URLSearchParams,
    signal: AbortSignal,
  ): Promise<Reply> {
    if (service === '') throw new ConsulRefusal(500, 2, 'URI must be either service, agent, server, or kind');
    const waitMs = readWait(query, WAIT_MS.leaf);
    const found = await this.#leaves.get({ service, datacenter, token, index: readIndex(query), waitMs }, signal);
    return {
      index: found.index,
      body: {
        SerialNumber: colons(found.leaf.serial.toLowerCase()),
        CertPEM: found.pem,
        PrivateKeyPEM: found.key.keyObject.export({ type: 'sec1', format: 'pem' }).toString(),
        Service: service,
        ServiceURI: found.leaf.names.uris[0],
        ValidAfter: new Date(found.leaf.notBefore).toISOString(),
        ValidBefore: new Date(found.leaf.notAfter).toISOString(),
        CreateIndex: found.index,
        ModifyIndex: found.index,
      },
    };
  }
}

function rootsJson({ ca, rootsIndex }: ConsulState): object {
  const roots = ca.roots();
  return {
    ActiveRootID: roots[0]?.id,
    TrustDomain: ca.trustDomain,
    Roots: roots.map((root) => ({
      ID: root.id,
      Name: root.name,
      SerialNumber: new BigNumber(root.certificate.serial),
      SigningKeyID: root.signingKeyId,
      ExternalTrustDomain: ca.trustDomain.replace(/\.consul$/, ''),
      NotBefore: new Date(root.certificate.notBefore).toISOString(),
      NotAfter: new Date(root.certificate.notAfter).toISOString(),
      RootCert: root.certificate.pem,
      IntermediateCerts: root.intermediates.length > 0 ? root.intermediates.map(({ pem }) => pem) : null,
      Active: root.active,
      PrivateKeyType: 'ec',
      PrivateKeyBits: 256,
      CreateIndex: rootsIndex,
      ModifyIndex: rootsIndex,
    })),
  };
}

/** A uint64 that is serialized to JSON as a number, above 2^53 or not. */
class BigNumber {
  readonly #digits: string;

  constructor(hex: string) {
    this.#digits = `${BigInt.asUintN(64, BigInt(`0x${hex}`))}`;
  }

  toJSON(): string {
    return `\u0001${this.#digits}\u0001`;
  }
}

function toJson(body: unknown): string {
  return JSON.stringify(body).replace(/"\\u0001(\d+)\\u0001"/g, '$1');
}

function describe(token: AclToken): object {
  return {
    AccessorID: token.accessor,
    SecretID: token.secret,
    Description: token.method === undefined ? '' : 'token created via login',
    ...(token.service === undefined ? {} : { ServiceIdentities: [{ ServiceName: token.service }] }),
    Local: true,
    CreateTime: new Date(token.createdAt).toISOString(),
    ...(token.method === undefined ? {} : { AuthMethod: token.method }),
    ...(token.expiresAt === undefined ? {} : { ExpirationTime: new Date(token.expiresAt).toISOString() }),
  };
}

function readIndex(query: URLSearchParams): number {
  const text = query.get('index');
  if (text === null) return 0;
  if (!/^\d+$/.test(text)) throw refusals.badRequest('Invalid index');
  return Number(text);
}

function readWait(query: URLSearchParams, fallbackMs: number): number {
  const text = query.get('wait');
  if (text === null) return fallbackMs;
  const match = /^(\d+)(ms|s|m)$/.exec(text);
  if (!match) throw refusals.badRequest('Invalid wait time');
  const unit = { ms: 1, s: 1000, m: 60_000 }[match[2] as 'ms' | 's' | 'm'];
  return Math.min(Number(match[1]) * unit, LONGEST_WAIT_MS);
}

async function text(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}
