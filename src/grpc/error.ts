import { type Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { localCause } from '../mesh/local-cause.ts';

/** How far a failed call came: no connection, no trust, or an answer (or a break) from the other side. */
export type Reach = 'unconnected' | 'untrusted' | 'answered';

/**
 * A call that failed, with the status of the call; adapters map it to their own error, one table each. Whoever is
 * dialled writes the details, and may write anything: they are there to be matched, and nothing that prints the error
 * shows them. `said` is what may be shown.
 */
export class GrpcError extends Error {
  override readonly name = 'GrpcError';
  /** 0 to 16, as in google.rpc.Code. */
  readonly status: number;
  /** `UNAVAILABLE`. */
  readonly statusName: string;
  /** The status, and why the connection failed, where it did; nothing that the other side wrote. */
  readonly said: string;
  readonly #details: string;
  readonly #trailers: Readonly<Record<string, string>>;
  readonly reach: Reach;

  constructor(code: number, details: string, options: { cause?: unknown; trailers?: Metadata | undefined } = {}) {
    const name = status[code] ?? `status ${code}`;
    const reach = code === status.UNAVAILABLE ? reachOf(details) : 'answered';
    const cause = reach !== 'answered' || OF_TRANSPORT.test(details) ? localCause(details) : undefined;
    const said = cause === undefined ? name : `${name} (${cause})`;
    super(said, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = code;
    this.statusName = name;
    this.said = said;
    this.#details = details;
    this.reach = reach;
    this.#trailers = textOf(options.trailers);
  }

  /** What the other side, or the transport, said: to be matched, not to be shown. */
  get details(): string {
    return this.#details;
  }

  /** Trailing metadata by lower-case name, without binary values: to be matched, not to be shown. */
  get trailers(): Readonly<Record<string, string>> {
    return this.#trailers;
  }

  static from(error: ServiceError): GrpcError {
    return new GrpcError(error.code, error.details, { trailers: error.metadata });
  }
}

/** How grpc-js begins what it says of a call that was connected and broke. */
const OF_TRANSPORT = /^(Received |Connection dropped|Stream refused|read E|Response message|Error parsing)/;

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
