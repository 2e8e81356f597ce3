import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';

/** Holds about twenty requests at most; Node.js would parse all received ones at once, whatever is still unanswered. */
const PIECE = 1024;

/**
 * A connection that is read in small pieces, and not at all while it is held: requests that follow an unanswered one
 * stay in the kernel, and finally with their sender.
 */
export class PacedSocket extends Duplex {
  readonly #raw: Socket;
  #isWanted = false;
  #isHeld = false;

  constructor(raw: Socket) {
    super({ allowHalfOpen: true });
    this.#raw = raw;
    raw.on('readable', () => this.#feed());
    raw.on('end', () => this.push(null));
    raw.on('error', () => this.destroy());
    raw.on('close', () => this.destroy());
    raw.on('timeout', () => this.emit('timeout'));
  }

  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    this.#feed();
  }

  /** Like that of a socket: the HTTP server sets it. */
  setTimeout(ms: number, listener?: () => void): this {
    this.#raw.setTimeout(ms);
    if (listener) this.once('timeout', listener);
    return this;
  }

  override _read(): void {
    this.#isWanted = true;
    this.#feed();
  }

  override _write(chunk: Buffer, _: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#raw.write(chunk, done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#raw.cork();
    const last = chunks.length - 1;
    chunks.forEach(({ chunk }, at) => void this.#raw.write(chunk, at === last ? done : undefined));
    this.#raw.uncork();
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#raw.end(() => done());
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#raw.destroy();
    done(error);
  }

  #feed(): void {
    if (this.destroyed) return;
    // So that the end is noticed while the connection is held.
    if (this.#raw.readableLength === 0) this.#raw.read(0);
    if (!this.#isWanted || this.#isHeld) return;
    const piece: Buffer | null = this.#raw.read(Math.min(PIECE, this.#raw.readableLength));
    if (piece === null || piece.length === 0) return;
    this.#isWanted = false;
    this.push(piece);
  }
}
