import { type Metadata, type ServiceError, status } from '@grpc/grpc-js';

/** How far a failed call came: no connection, no trust, or an answer (or a break) from the other side. */
export type Reach = 'unconnected' | 'untrusted' | 'answered';

/** A call that failed, with the status of the call; adapters map it to their own error, one table each. */
export class GrpcError extends Error {
  override readonly name = 'GrpcError';
  /** 0 to 16, as in google.rpc.Code. */
  readonly status: number;
  /** `UNAVAILABLE`. */
  readonly statusName: string;
  /** What the other side, or the transport, said. */
  readonly details: string;
  readonly reach: Reach;
  /** Trailing metadata by lower-case name; binary values are left out. */
  readonly trailers: Readonly<Record<string, string>>;

  constructor(code: number, details: string, options: { cause?: unknown; trailers?: Metadata | undefined } = {}) {
    const name = status[code] ?? `status ${code}`;
    super(`${name}: ${details}`, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = code;
    this.statusName = name;
    this.details = details;
    this.reach = code === status.UNAVAILABLE ? reachOf(details) : 'answered';
    this.trailers = textOf(options.trailers);
  }

  static from(error: ServiceError): GrpcError {
    return new GrpcError(error.code, error.details, { trailers: error.metadata });
  }
}

/** grpc-js tells a connection failure only in prose; this is the one place that reads it. */
function reachOf(details: string): Reach {
  if (!/^(No connection established|Name resolution failed|Failed to connect)/.test(details)) return 'answered';
  return /certificate|altnames|SSL|TLS|wrong version number|alert/i.test(details) ? 'untrusted' : 'unconnected';
}

function textOf(metadata: Metadata | undefined): Record<string, string> {
  const entries = Object.entries(metadata?.getMap() ?? {});
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
}

export { status as grpcStatus } from '@grpc/grpc-js';
