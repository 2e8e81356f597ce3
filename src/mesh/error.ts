import { isIP } from 'node:net';
import { constants } from 'node:os';
import { CodedError } from '../pki/der.ts';

/** What to do after a failure: back off and retry, wait for a change of configuration, or wait this long. */
export type Retry = 'soon' | 'never' | { readonly afterMs: number };

/**
 * The stable codes that a mesh adapter may raise. Each has an entry in docs/errors.md. CONFIG, DENIED and TOKEN are for
 * the operator to fix; the rest are temporary or faults of the mesh.
 */
export const MESH_ERROR_CODES = [
  'ERR_MESH_UNREACHABLE',
  'ERR_MESH_TLS',
  'ERR_MESH_TIMEOUT',
  'ERR_MESH_DENIED',
  'ERR_MESH_TOKEN',
  'ERR_MESH_RATE_LIMITED',
  'ERR_MESH_UNAVAILABLE',
  'ERR_MESH_BAD_RESPONSE',
  'ERR_MESH_CONFIG',
  'ERR_MESH_UNSUPPORTED',
  'ERR_MESH_SILENT',
  'ERR_NOT_ALLOWED',
  'ERR_NO_CONSENT',
  'ERR_TOKEN_EXPOSED',
  'ERR_ADAPTER_LOAD',
  'ERR_ADAPTER_BROKEN',
] as const;

export type MeshErrorCode = (typeof MESH_ERROR_CODES)[number];

const BRAND = Symbol.for('meshcert.MeshError');

/**
 * A failure that is classified once, where its cause is known. The message names the object, the cause and the next
 * step.
 */
export class MeshError extends CodedError<MeshErrorCode> {
  override readonly name = 'MeshError';
  /** Also of errors that an adapter from outside made with a copy of this class. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && BRAND in value;
  }

  readonly retry: Retry;

  constructor(code: MeshErrorCode, message: string, options: { retry?: Retry; cause?: unknown } = {}) {
    super(code, message, options);
    this.retry = options.retry ?? 'soon';
  }

  get [BRAND](): true {
    return true;
  }
}

/** The stable code that an error of ours carries; the fallback for any other. */
export function codeOf(error: unknown, fallback: string): string {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' ? code : fallback;
}

/** Of a host that DNS does not know. */
export const UNRESOLVED = 'the name does not resolve';

/** Messages of Node, OpenSSL and grpc-js for a failed connection, and our words for them. The first match counts. */
const PHRASES: readonly (readonly [RegExp, string])[] = [
  [/certificate has expired|CERT_HAS_EXPIRED/, 'a certificate that the server presents has expired'],
  [/certificate is not yet valid|CERT_NOT_YET_VALID/, 'a certificate that the server presents is not valid yet'],
  [/certificate revoked|CERT_REVOKED/, 'a certificate that the server presents is revoked'],
  [
    /self[- ]signed certificate in certificate chain|SELF_SIGNED_CERT_IN_CHAIN/,
    'the server presents a chain that ends at a root which is not trusted (self-signed certificate in certificate chain)',
  ],
  [
    /self[- ]signed certificate|DEPTH_ZERO_SELF_SIGNED_CERT/,
    'the server presents a self-signed certificate that is not trusted',
  ],
  [
    /unable to (get|verify) [a-z ]{0,40}certificate|UNABLE_TO_(GET|VERIFY)_[A-Z_]+/,
    'the issuer of the certificate that the server presents is not trusted (unable to get local issuer certificate)',
  ],
  [
    /does not match certificate's altnames|ERR_TLS_CERT_ALTNAME_INVALID|hostname mismatch/i,
    "the certificate that the server presents is for another name (does not match certificate's altnames)",
  ],
  [/unsupported certificate purpose/, 'the certificate that the server presents is not for servers'],
  [
    /invalid CA certificate|path length constraint exceeded|permitted subtree violation|excluded subtree violation|unhandled critical extension|certificate signature failure/,
    'the chain that the server presents is not valid',
  ],
  [/(certificate|CA)( md| key)? too weak|key too small/, 'a certificate that the server presents is too weak'],
  [/wrong version number|packet length too long|http request/i, 'the port does not speak TLS (wrong version number)'],
  [/unsupported protocol|no protocols available|protocol version/, 'no TLS version is supported by both sides'],
  [/no shared cipher|handshake failure/, 'the server refuses the TLS handshake (handshake failure)'],
  [
    /alert certificate required|alert bad certificate|alert unknown ca|alert certificate unknown/,
    'the server refuses the TLS handshake because of the client certificate',
  ],
  [/\balert\b|SSL routines|EPROTO/, 'the TLS handshake failed'],
  [/before secure TLS connection was established/, 'the server closed the connection during the TLS handshake'],
  [/socket hang up|ECONNRESET/, 'the server closed the connection (ECONNRESET)'],
  [/Connection dropped|Stream refused by server|GOAWAY|HTTP2/, 'the connection was dropped'],
  [/Parse Error|HPE_/, 'the answer is not HTTP'],
  [/larger than max/, 'the answer is too large'],
  [/Response message parsing error|Error parsing response/, 'the answer cannot be decoded'],
];

/**
 * Why a connection failed, in our own words, or undefined. `text` may be anything, even written by the other side:
 * nothing of it is quoted except an errno, an IP address with its port, and the number of an HTTP status or a reset.
 */
export function localCause(text: string): string | undefined {
  const phrase = PHRASES.find(([pattern]) => pattern.test(text))?.[1];
  if (phrase) return phrase;
  const [, failed = '', address] = /\bconnect (E[A-Z]{3,20})(?: (\S{2,60}))?/.exec(text) ?? [];
  if (failed in constants.errno) return `connect ${failed}${addressed(address)}`;
  if (/Name resolution failed|getaddrinfo|queryA|ENOTFOUND|EAI_AGAIN/.test(text)) return UNRESOLVED;
  const number = /Received (HTTP status code|RST_STREAM with code) (\d{1,3})\b/.exec(text);
  if (number) return number[1]?.startsWith('HTTP') ? `HTTP status ${number[2]}` : `stream reset ${number[2]}`;
  return text.match(/\bE[A-Z]{3,20}\b/g)?.find((word) => word in constants.errno);
}

function addressed(text: string | undefined): string {
  const [, host = '', port] = /^\[?([0-9A-Fa-f:.]+?)\]?:(\d{1,5})$/.exec(text ?? '') ?? [];
  return port !== undefined && isIP(host) ? ` ${text}` : '';
}
