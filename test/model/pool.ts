import { PrivateKey } from '../../src/pki/key.ts';

/** Making keys takes the most time; every run uses the same ones, each CA of a run its own. */
export class KeyPool {
  readonly #keys: PrivateKey[] = [];
  #next = 0;

  take(): PrivateKey {
    const key = this.#keys[this.#next] ?? PrivateKey.generate();
    this.#keys[this.#next] = key;
    this.#next += 1;
    return key;
  }

  /** Before a run: all keys are free again. */
  reset(): void {
    this.#next = 0;
  }
}
