import type { Clock } from '../../async/clock.ts';
import { type Preflight, type PreflightVerdict, type Proof, preflightKey } from '../../core/verify/preflight.ts';

/** A refusal may depend on the time or on a busy process: the handshake is repeated after this. */
const REFUSED_FOR_MS = 30_000;
/**
 * Verdicts that are remembered: of the candidate and of the published pair, each with the bundles before and after a
 * change.
 */
const REMEMBERED = 4;

/** The latest verdicts of preflight handshakes for one MeshCertificate: one handshake for each pair and bundle. */
export class Preflights {
  readonly #preflight: Preflight;
  readonly #clock: Clock;
  readonly #verdicts = new Map<string, { readonly verdict: PreflightVerdict; readonly until: number }>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(preflight: Preflight, clock: Clock) {
    this.#preflight = preflight;
    this.#clock = clock;
  }

  /** Undefined before the handshake, and when a refused one has to be repeated. */
  readonly verdict = ({ pair, bundle, crls }: Proof): PreflightVerdict | undefined => {
    const known = this.#verdicts.get(preflightKey(pair, bundle, crls));
    return known && this.#clock.now() < known.until ? known.verdict : undefined;
  };

  /**
   * When the first refusal after `time` may be repeated, epoch ms. A refusal that was not needed again by then no
   * longer matters.
   */
  retryAfter(time: number): number | undefined {
    const times = [...this.#verdicts.values()].map(({ until }) => until).filter((until) => until > time);
    const next = Math.min(...times);
    return Number.isFinite(next) ? next : undefined;
  }

  /** Makes the handshake; afterwards `verdict` returns its outcome. */
  prove(proof: Proof): Promise<void> {
    const key = preflightKey(proof.pair, proof.bundle, proof.crls);
    const running = this.#running.get(key) ?? this.#handshake(key, proof);
    this.#running.set(key, running);
    return running;
  }

  async #handshake(key: string, { pair, bundle, crls }: Proof): Promise<void> {
    const verdict = await this.#preflight(pair, bundle, crls);
    const until = verdict.ok ? Number.POSITIVE_INFINITY : this.#clock.now() + REFUSED_FOR_MS;
    this.#running.delete(key);
    this.#verdicts.delete(key);
    this.#verdicts.set(key, { verdict, until });
    const [oldest] = this.#verdicts.keys();
    if (this.#verdicts.size > REMEMBERED && oldest !== undefined) this.#verdicts.delete(oldest);
  }
}
