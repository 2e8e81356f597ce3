import { type Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { localCause } from '../mesh/error.ts';

/**
 * How far a failed call came: no connection, no trust, an answer (or a break) from the other side, or an answer that
 * cannot be read.
 */
export type Reach = 'unconnected' | 'untrusted' | 'answered' | 'unreadable';

/**
 * A call that failed, with the status of the call; each adapter maps it to its own error in one table. The server
 * writes the details, and may write anything: they are for matching, and no output of the error shows them. `said` is
 * safe to show.
 */
export class GrpcError extends Error {
  override readonly name = 'GrpcError';
  /** 0 to 16, as in google.rpc.Code. */
  readonly status: number;
  /** `UNAVAILABLE`. */
  readonly statusName: string;
  /** The status, and why the connection failed, if it did; nothing that the other side wrote. */
  readonly said: string;
  readonly #details: string;
  readonly #trailers: Readonly<Record<string, string>>;
  readonly reach: Reach;

  constructor(
    code: number,
    details: string,
    options: { cause?: unknown; trailers?: Metadata | undefined; unreadable?: string } = {},
  ) {
    const name = status[code] ?? `status ${code}`;
    const reach = options.unreadable === undefined ? reachOf(code, details) : 'unreadable';
    const fromHere = reach !== 'answered' || OF_TRANSPORT.test(details);
    const cause = options.unreadable ?? (fromHere ? (localCause(details) ?? limitOf(reach)) : undefined);
    const said = cause === undefined ? name : `${name} (${cause})`;
    super(said, options.cause === undefined ? undefined : { cause: options.cause });
    this.status = code;
    this.statusName = name;
    this.said = said;
    this.#details = details;
    this.reach = reach;
    this.#trailers = textOf(options.trailers);
  }

  /** The text from the other side, or from the transport: for matching, not for display. */
  get details(): string {
    return this.#details;
  }

  /** Trailing metadata by lower-case name, without binary values: for matching, not for display. */
  get trailers(): Readonly<Record<string, string>> {
    return this.#trailers;
  }

  static from(error: ServiceError): GrpcError {
    return new GrpcError(error.code, error.details, { trailers: error.metadata });
  }

  /** For an answer that is not a valid message of this protocol, or exceeds the limits. */
  static unreadable(cause: unknown): GrpcError {
    const why = cause instanceof RangeError ? cause.message : 'an answer that cannot be decoded';
    return new GrpcError(status.INTERNAL, why, { cause, unreadable: why });
  }
}

/** How the messages of grpc-js begin for a call whose connection broke. */
const OF_TRANSPORT = /^(Received |Connection dropped|Stream refused|read E|Response message|Error parsing)/;

/** From grpc-js itself: the answer exceeds the maximum size of a message. */
const TOO_LARGE = /^Received message (larger than max|that decompresses)/;

/** grpc-js describes such failures only in prose; only this function parses it. */
function reachOf(code: number, details: string): Reach {
  if (code === status.RESOURCE_EXHAUSTED) return TOO_LARGE.test(details) ? 'unreadable' : 'answered';
  if (code !== status.UNAVAILABLE) return 'answered';
  if (!/^(No connection established|Name resolution failed|Failed to connect)/.test(details)) return 'answered';
  return /certificate|altnames|SSL|TLS|wrong version number|alert/i.test(details) ? 'untrusted' : 'unconnected';
}

const limitOf = (reach: Reach) => (reach === 'unreadable' ? 'a message over the limit' : undefined);

function textOf(metadata: Metadata | undefined): Record<string, string> {
  const entries = Object.entries(metadata?.getMap() ?? {});
  return Object.fromEntries(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
}

export { status as grpcStatus } from '@grpc/grpc-js';
