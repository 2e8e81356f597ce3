import type { ClientDuplexStream, ClientReadableStream } from '@grpc/grpc-js';
import { GrpcError } from './error.ts';

/**
 * A stream of messages from a server, and to it when the method takes a stream. Iterate it once. Iteration ends when
 * the server ends the stream normally, throws a GrpcError when the call fails, and throws the signal's reason when
 * aborted.
 */
export interface DuplexStream<Request, Response> extends AsyncIterable<Response> {
  /** Does nothing once the call has ended. */
  write(message: Request): void;
  /** Tells the server that no more messages follow; answers may still come. */
  end(): void;
  /** Cancels the call; iteration ends without an error. */
  close(): void;
}

type DuplexCall = ClientReadableStream<unknown> & Partial<Pick<ClientDuplexStream<unknown, unknown>, 'write' | 'end'>>;

/** A message that could not be decoded: an error thrown by a deserializer would count as the server's failure. */
export class Unreadable {
  readonly cause: unknown;

  constructor(cause: unknown) {
    this.cause = cause;
  }

  static instead(deserialize: (bytes: Buffer) => object): (bytes: Buffer) => object {
    return (bytes) => {
      try {
        return deserialize(bytes);
      } catch (cause) {
        return new Unreadable(cause);
      }
    };
  }
}

type CallOutcome = { readonly error?: unknown };

/** Reads one message at a time from the call, so that a slow reader slows the server down. */
export class CallStream<Request, Response> implements DuplexStream<Request, Response> {
  readonly #call: DuplexCall;
  readonly #messages: Response[] = [];
  #outcome: CallOutcome | undefined;
  #wake: (() => void) | undefined;
  #settled: () => void;

  constructor(call: DuplexCall, signal: AbortSignal | undefined, onSettled: () => void) {
    this.#call = call;
    const abort = () => {
      this.#messages.length = 0;
      this.#finish({ error: signal?.reason });
    };
    this.#settled = () => {
      signal?.removeEventListener('abort', abort);
      onSettled();
    };
    call.on('data', (message: Response | Unreadable) => {
      call.pause();
      this.#take(message);
      this.#wake?.();
    });
    call.on('end', () => this.#finish({}));
    call.on('error', (error: unknown) => {
      // Messages that arrived before the failure and wait behind the pause are still delivered.
      for (let message = call.read(); message !== null && !this.#outcome; message = call.read()) {
        this.#take(message as Response | Unreadable);
      }
      this.#finish({ error: asGrpcError(error) });
    });
    if (signal?.aborted) abort();
    else signal?.addEventListener('abort', abort, { once: true });
  }

  write(message: Request): void {
    if (!this.#outcome) this.#call.write?.(message);
  }

  end(): void {
    if (!this.#outcome) this.#call.end?.();
  }

  close(): void {
    this.#messages.length = 0;
    this.#finish({});
  }

  #take(message: Response | Unreadable): void {
    if (message instanceof Unreadable) this.#finish({ error: GrpcError.unreadable(message.cause) });
    else this.#messages.push(message);
  }

  /** The first outcome counts: a later one is only the effect of a cancel. */
  #finish(outcome: CallOutcome): void {
    if (this.#outcome) return;
    this.#outcome = outcome;
    this.#settled();
    this.#call.cancel();
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Response, void, undefined> {
    try {
      for (;;) {
        const message = this.#messages.shift();
        if (message !== undefined) {
          yield message;
        } else if (this.#outcome) {
          if (this.#outcome.error !== undefined) throw this.#outcome.error;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
            this.#call.resume();
          });
        }
      }
    } finally {
      this.close();
    }
  }
}

function asGrpcError(error: unknown): unknown {
  return error instanceof Error && 'code' in error && 'details' in error
    ? GrpcError.from(error as Parameters<typeof GrpcError.from>[0])
    : error;
}
