/** One token for all who ask for the same while it is made; disposed of, nobody gets it any more. */
export class Minting implements Disposable {
  readonly #stop = new AbortController();
  readonly #minted: Promise<string>;

  constructor(mint: (signal: AbortSignal) => Promise<string>) {
    this.#minted = mint(this.#stop.signal);
  }

  /** Rejects with the signal's reason when aborted: the others still wait. */
  token(signal: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      const abort = () => reject(signal.reason);
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
      this.#minted.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    });
  }

  [Symbol.dispose](): void {
    this.#stop.abort(new Error('nobody waits for the token any more'));
  }
}
