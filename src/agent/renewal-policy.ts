import type { Clock } from '../async/clock.ts';
import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import { AttemptBudget, attemptsPerHour, retryDelay } from '../core/retry.ts';
import { renewAt } from '../core/schedule.ts';
import type { MeshError } from '../mesh/error.ts';
import type { RenewalPolicy } from '../mesh/renewing.ts';
import type { Certificate } from '../pki/certificate.ts';

/**
 * Meshes spread their own clients over this time after a change of roots. A leaf whose life is not many times longer is
 * renewed within a twentieth of its life.
 */
const ROOTS_SPREAD_MS = 30_000;
const ROOTS_SPREAD_OF_LIFE = 0.05;
/** A larger fleet takes longer: the whole fleet requests about a hundred certificates a second from a mesh. */
const ROOTS_SPREAD_EACH_MS = 10;

/**
 * A CA that shortens leaves to its own end issues ever shorter ones; the next is not requested sooner than this after
 * the last. Meshes issue for minutes at least.
 */
const SHORTEST_WAIT_MS = 5_000;

/** While no valid leaf is published: the number of attempts in an hour with full jitter and a ceiling of 30 s. */
const ATTEMPTS_WITHOUT_LEAF = 240;

export interface PolicyOptions {
  readonly env: {
    readonly clock: Clock;
    readonly random: () => number;
    /** How many MeshCertificates there are, whichever replica leads them. */
    readonly fleet: () => number;
  };
  readonly spec: Pick<MeshCertificateSpec, 'renewal'>;
  /** When the leaf that was published at the start was issued, epoch ms, if known. */
  readonly publishedSince: () => number | undefined;
  readonly refuse: RenewalPolicy['refuse'];
  /** The budget on attempts delays the next one. */
  readonly changed: () => void;
}

/** Binds the functions of core to one MeshCertificate, and remembers their last results. */
export class CertificatePolicy implements RenewalPolicy {
  readonly #options: PolicyOptions;
  readonly #budget = new AttemptBudget();
  readonly refuse: RenewalPolicy['refuse'];
  /** The last leaf from the mesh. */
  leaf: Certificate | undefined;
  /** How long the budget on attempts delays the next one; 0 when it does not. */
  breakerOpenMs = 0;
  /** When the mesh is asked again after a failure, epoch ms; undefined while nothing fails. */
  retryAt: number | undefined;
  /** The mesh has answered or failed since the start, so an earlier recorded failure is out of date. */
  hasTried = false;
  /** When the leaf of this fingerprint is due, epoch ms. */
  planned: { readonly fingerprint: string; readonly due: number } | undefined;

  constructor(options: PolicyOptions) {
    this.#options = options;
    this.refuse = options.refuse;
  }

  renewAt(leaf: Certificate, issuedAt = this.#options.publishedSince() ?? leaf.notBefore): number {
    const { notAfter, fingerprint } = leaf;
    const { at, jitter } = this.#options.spec.renewal;
    const notBefore = Math.max(leaf.notBefore, Math.min(issuedAt, notAfter));
    const due = Math.max(renewAt({ notBefore, notAfter, fingerprint }, at, jitter), issuedAt + SHORTEST_WAIT_MS);
    this.planned = { fingerprint, due };
    return due;
  }

  retryDelay(attempt: number, error: MeshError, leaf: Certificate | undefined): number {
    const delay = this.rootsRetryDelay(attempt, error, leaf);
    this.retryAt = this.#options.env.clock.now() + delay;
    this.hasTried = true;
    return delay;
  }

  rootsRetryDelay(attempt: number, error: MeshError, leaf: Certificate | undefined = this.leaf): number {
    const { clock, random } = this.#options.env;
    // Without a leaf, the remaining life is zero, as for an expired one.
    const remainingMs = leaf ? Math.max(0, leaf.notAfter - clock.now()) : 0;
    const wanted = typeof error.retry === 'object' ? error.retry.afterMs : 0;
    return Math.max(wanted, retryDelay(attempt, random, { remainingMs }));
  }

  succeeded(): void {
    this.retryAt = undefined;
    this.hasTried = true;
  }

  admit(leaf: Certificate | undefined): number {
    const { clock } = this.#options.env;
    const life = leaf ? leaf.notAfter - leaf.notBefore : Number.POSITIVE_INFINITY;
    const isValid = leaf !== undefined && leaf.notAfter > clock.now();
    const perHour = isValid ? attemptsPerHour(life) : Math.max(attemptsPerHour(life), ATTEMPTS_WITHOUT_LEAF);
    const wait = this.#budget.take(clock.monotonic(), perHour);
    // A wait that was granted for a valid leaf does not extend beyond its end.
    this.breakerOpenMs = isValid ? Math.min(wait, leaf.notAfter - clock.now()) : wait;
    if (this.breakerOpenMs > 0) {
      this.retryAt = clock.now() + this.breakerOpenMs;
      this.#options.changed();
    }
    return this.breakerOpenMs;
  }

  get rootsSpreadMs(): number {
    if (!this.leaf) return 0;
    const wanted = Math.max(ROOTS_SPREAD_MS, this.#options.env.fleet() * ROOTS_SPREAD_EACH_MS);
    return Math.min(wanted, (this.leaf.notAfter - this.leaf.notBefore) * ROOTS_SPREAD_OF_LIFE);
  }
}
