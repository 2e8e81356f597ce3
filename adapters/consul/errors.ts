import type { GrpcError } from '../../src/grpc/error.ts';
import { localCause, MeshError, type MeshErrorCode, type Retry } from '../../src/mesh/error.ts';

export interface Row {
  readonly status: readonly number[];
  /**
   * Distinguishes the causes for which Consul uses the same status; bodies are plain text, matched and never quoted.
   */
  readonly text?: RegExp;
  readonly code: MeshErrorCode;
  readonly next: string;
  readonly retry?: Retry;
}

const RELOGIN =
  'the token is unknown, expired or deleted: replace it, or use auth.login, which logs in again by itself';
const WRITE = 'grant the token service:write on this service (a policy, or a binding rule of the auth method)';
const CONNECT = 'enable it on the servers: connect { enabled = true }';
const LIMITED = 'the current certificate stays; the request is repeated';
const WAIT = 'the request is repeated; if this lasts, see the log of the Consul servers';
const LEADERLESS = 'the Consul servers have no leader: see "consul operator raft list-peers"; the request is repeated';
const STARTING = "Consul's CA is not initialized yet: see the log of the Consul leader if this lasts";
const NAMES = 'compare datacenter, namespace, partition and service with the cluster';

/** The meaning of each HTTP status; the first match counts. */
const HTTP_ROWS: readonly Row[] = [
  { status: [401], code: 'ERR_MESH_CONFIG', next: 'ACLs are off there: remove auth, or enable ACLs' },
  { status: [403], text: /ACL not found/i, code: 'ERR_MESH_TOKEN', next: RELOGIN },
  { status: [403], code: 'ERR_MESH_DENIED', next: WRITE },
  { status: [429], code: 'ERR_MESH_RATE_LIMITED', next: LIMITED },
  { status: [500, 503], text: /rate limit/i, code: 'ERR_MESH_RATE_LIMITED', next: LIMITED },
  { status: [500], text: /Connect must be enabled/i, code: 'ERR_MESH_UNSUPPORTED', next: CONNECT },
  { status: [500], text: /No path to datacenter|different datacenter/i, code: 'ERR_MESH_CONFIG', next: NAMES },
  { status: [500, 503], text: /no cluster leader/i, code: 'ERR_MESH_UNAVAILABLE', next: LEADERLESS },
  { status: [500, 503], text: /CA is uninitialized/i, code: 'ERR_MESH_UNAVAILABLE', next: STARTING },
  { status: [500, 502, 503, 504], code: 'ERR_MESH_UNAVAILABLE', next: WAIT },
  {
    status: [400],
    text: /HTTP request to an HTTPS server/i,
    code: 'ERR_MESH_TLS',
    next: 'this port speaks TLS: write https:// in http.address',
  },
  {
    status: [400],
    text: /Enterprise feature|parameter: "?(ns|partition)/i,
    code: 'ERR_MESH_CONFIG',
    next: 'this is the community edition: remove namespace and partition',
    retry: 'never',
  },
  { status: [400], code: 'ERR_MESH_CONFIG', next: NAMES },
  { status: [404, 405], code: 'ERR_MESH_CONFIG', next: 'is this the HTTP API of Consul 1.3 or later?' },
];

const METHOD = 'compare auth.login.method with "consul acl auth-method list"';
const BEARER = 'the auth method did not accept the bearer token: check its audience, and that a binding rule matches';

/** At login the same statuses are about the auth method and the bearer token. */
export const HTTP_LOGIN_ROWS: readonly Row[] = [
  { status: [403], text: /ACL not found/i, code: 'ERR_MESH_CONFIG', next: METHOD },
  {
    status: [403, 500],
    text: /Permission denied|validat|token|claim|audience/i,
    code: 'ERR_MESH_DENIED',
    next: BEARER,
  },
];

/** `body` is the text of the answer, of any size and from anyone; `first` has rows that precede the general ones. */
export function httpError(what: string, status: number, body: string, first: readonly Row[] = []): MeshError {
  const row = [...first, ...HTTP_ROWS].find((each) => each.status.includes(status) && (each.text?.test(body) ?? true));
  const message = `${what}: HTTP status ${status}`;
  if (!row) return new MeshError('ERR_MESH_BAD_RESPONSE', `${message}; is this the HTTP API of Consul?`);
  return new MeshError(row.code, `${message}; ${row.next}`, row.retry ? { retry: row.retry } : {});
}

const PORTS = 'check address and port, and whether it speaks TLS (in Kubernetes, global.tls decides that for 8502)';

/** What a gRPC status means that a server answered. */
const GRPC_ROWS: readonly Row[] = [
  { status: [3], code: 'ERR_MESH_CONFIG', next: NAMES },
  { status: [7], code: 'ERR_MESH_DENIED', next: WRITE },
  { status: [16], code: 'ERR_MESH_TOKEN', next: RELOGIN },
  { status: [8], code: 'ERR_MESH_RATE_LIMITED', next: LIMITED },
  { status: [9], text: /not yet initialized/i, code: 'ERR_MESH_UNAVAILABLE', next: STARTING },
  { status: [9], text: /ACL/, code: 'ERR_MESH_CONFIG', next: 'ACLs are off there: remove auth, or enable ACLs' },
  { status: [9], code: 'ERR_MESH_UNSUPPORTED', next: CONNECT },
  {
    status: [12],
    code: 'ERR_MESH_UNSUPPORTED',
    next: 'Consul 1.13 or later is needed, 1.18 for the port of a client agent',
  },
  { status: [4], code: 'ERR_MESH_TIMEOUT', next: WAIT },
  { status: [14], text: /rate limit/i, code: 'ERR_MESH_RATE_LIMITED', next: LIMITED },
  { status: [2, 14], text: /no cluster leader/i, code: 'ERR_MESH_UNAVAILABLE', next: LEADERLESS },
  { status: [1, 2, 10, 13, 14], code: 'ERR_MESH_UNAVAILABLE', next: WAIT },
];

/** What it means that no call was answered. */
const REACH = {
  untrusted: {
    code: 'ERR_MESH_TLS',
    next: 'compare grpc.tls.ca and serverName with the certificate of the server, and check that the port speaks TLS',
  },
  unconnected: { code: 'ERR_MESH_UNREACHABLE', next: PORTS },
  unreadable: { code: 'ERR_MESH_BAD_RESPONSE', next: 'is this the gRPC port of a Consul server?' },
} as const;

export const GRPC_LOGIN_ROWS: readonly Row[] = [
  { status: [3], text: /auth method/i, code: 'ERR_MESH_CONFIG', next: METHOD },
  { status: [7, 16], code: 'ERR_MESH_DENIED', next: BEARER },
];

export function grpcError(what: string, failure: GrpcError, first: readonly Row[] = []): MeshError {
  const answered = [...first, ...GRPC_ROWS].find(
    ({ status, text }) => status.includes(failure.status) && (text?.test(failure.details) ?? true),
  );
  const { code, next } = failure.reach === 'answered' ? (answered ?? REACH.unreadable) : REACH[failure.reach];
  return new MeshError(code, `${what}: ${failure.said}; ${next}`);
}

const TLS_CODES = /^(ERR_TLS_|ERR_SSL_|UNABLE_TO_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|EPROTO|HOSTNAME_MISMATCH)/;

/** A connection that failed before Consul answered. */
export function connectionError(what: string, cause: unknown): MeshError {
  const { code = '', message = String(cause) } = cause as { code?: string; message?: string };
  const text = `${what}: ${localCause(`${code} ${message}`) ?? 'the connection failed'}`;
  if (/wrong version number|packet length too long/i.test(message)) {
    return new MeshError('ERR_MESH_TLS', `${text}; this port speaks no TLS: write http:// in http.address`, { cause });
  }
  if (TLS_CODES.test(code) || /certificate/i.test(message)) {
    const next = 'compare http.tls.ca and serverName with the certificate of the API';
    return new MeshError('ERR_MESH_TLS', `${text}; ${next}`, { cause });
  }
  return new MeshError(
    'ERR_MESH_UNREACHABLE',
    `${text}; check http.address, that Consul runs, and whether this port speaks TLS`,
    { cause },
  );
}

/** Consul's agents retry a rate-limited signing request once at a random moment in each such window. */
const WINDOW_MS = 30_000;

/** One random moment in each of a series of windows that starts with the first failure. */
export class RetryWindow {
  #end: number | undefined;

  /** Milliseconds from `now` (monotonic) to the next attempt. */
  next(now: number, random: () => number): number {
    const start = this.#end === undefined || this.#end + WINDOW_MS < now ? now : Math.max(now, this.#end);
    this.#end = start + WINDOW_MS;
    return Math.round(start + random() * WINDOW_MS - now);
  }

  /** After a success: the next failure starts a new series. */
  reset(): void {
    this.#end = undefined;
  }
}
