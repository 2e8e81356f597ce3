import { writeSync } from 'node:fs';

/**
 * A pipe with a busy reader is waited for this long in total, in steps; a reader that hangs must not stop the agent.
 */
const PATIENCE = { steps: 20, stepMs: 5 };

/**
 * Writes each line to a file descriptor before it returns, and never throws: on a full disk, or when the reader is
 * gone, lines are lost and the agent continues. Each line is a new attempt.
 */
export class LineSink {
  readonly #fd: number;
  /** The rest of a partly written line: without it, two lines would run into one. */
  #rest: Buffer = Buffer.alloc(0);

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(line: string): void {
    const added = Buffer.from(line);
    const data = Buffer.concat([this.#rest, added]);
    const left = this.#put(data);
    const begun = data.length - left.length > this.#rest.length;
    this.#rest = begun ? left : left.subarray(0, left.length - added.length);
  }

  /** Returns what could not be written. */
  #put(data: Buffer): Buffer {
    let left = data;
    for (let steps = 0; left.length > 0; ) {
      try {
        left = left.subarray(writeSync(this.#fd, left));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN' || steps === PATIENCE.steps) return left;
        steps += 1;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PATIENCE.stepMs);
      }
    }
    return left;
  }
}
