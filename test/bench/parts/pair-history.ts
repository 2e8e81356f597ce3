import { type Certificate, parseCertificates } from '../../../src/pki/certificate.ts';
import { findPath } from '../../../src/pki/chain.ts';
import { PrivateKey } from '../../../src/pki/key.ts';

/** The current state, as a server that loads it would find it. */
export interface Pair {
  readonly certificate: string;
  readonly key: string;
  readonly roots: string;
}

interface State {
  /** Milliseconds, by the observer's clock. */
  readonly at: number;
  readonly good: boolean;
  readonly leaf: string | undefined;
  readonly roots: ReadonlySet<string>;
}

/** Every version of a certificate, its key and its roots, and how many of them were unusable. */
export class PairHistory {
  #pair: Partial<Pair> = {};
  #states: State[] = [];
  #wake: () => void = () => {};
  versions = 0;
  /** Of these: the key was another leaf's. */
  wrongKeys = 0;
  /** Of these: the leaf did not verify under the roots. */
  unverified = 0;
  /** How long versions of either kind lasted in total. */
  badMs = 0;

  /** Records an atomic write; nothing counts until all three parts exist. */
  wrote(part: Partial<Pair>, at: number): void {
    const before = this.#pair;
    this.#pair = { ...before, ...part };
    const { certificate, key, roots } = this.#pair;
    if (!certificate || !key || !roots) return;
    if (certificate === before.certificate && key === before.key && roots === before.roots) return;
    const last = this.#states.at(-1);
    if (last && !last.good) this.badMs += at - last.at;
    this.versions += 1;
    this.#states.push({ at, ...this.#judge({ certificate, key, roots }) });
    this.#wake();
  }

  /** When this leaf was first present with its key, verified, and with this root among its roots; fingerprints. */
  async stood(leaf: string, root: string, deadlineMs: number): Promise<number> {
    const find = () => this.#states.find((state) => state.good && state.leaf === leaf && state.roots.has(root));
    const signal = AbortSignal.timeout(deadlineMs);
    for (;;) {
      const found = find();
      if (found) return found.at;
      await new Promise<void>((resolve, reject) => {
        const late = () => reject(new Error(`a new leaf did not stand within ${deadlineMs} ms`));
        signal.addEventListener('abort', late, { once: true });
        this.#wake = () => {
          signal.removeEventListener('abort', late);
          resolve();
        };
      });
    }
  }

  #judge({ certificate, key, roots }: Pair): Omit<State, 'at'> {
    const bundle = attempt(() => parseCertificates(roots)) ?? [];
    const [leaf, ...rest] = attempt(() => parseCertificates(certificate)) ?? [];
    const own = attempt(() => PrivateKey.fromPem(key));
    const matches = leaf !== undefined && own?.publicKeyFingerprint === leaf.publicKeyFingerprint;
    const verifies = leaf !== undefined && findPath(leaf, rest, bundle, Date.now()).ok;
    if (!matches) this.wrongKeys += 1;
    if (!verifies) this.unverified += 1;
    const fingerprint = (one: Certificate) => one.fingerprint;
    return { good: matches && verifies, leaf: leaf?.fingerprint, roots: new Set(bundle.map(fingerprint)) };
  }
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
