import type { MeshCertificateSpec } from '../config/mesh-certificate.ts';
import { retryDelay } from '../core/backoff.ts';
import { type AttemptBudget, attemptsPerHour } from '../core/breaker.ts';
import { renewAt } from '../core/schedule.ts';
import type { Clock } from '../mesh/clock.ts';
import type { RenewalPolicy } from '../mesh/renewing.ts';
import type { Certificate } from '../pki/certificate.ts';

/**
 * Consul spreads its own clients over this time after a change of roots; a leaf that lives shorter than that many
 * times over is re-asked within a twentieth of its life.
 */
const ROOTS_SPREAD_MS = 30_000;
const ROOTS_SPREAD_OF_LIFE = 0.05;
/** A larger fleet takes longer: all of it together asks a mesh for some hundred certificates a second. */
const ROOTS_SPREAD_EACH_MS = 10;

export interface PolicyOptions {
  readonly spec: Pick<MeshCertificateSpec, 'renewal'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly budget: AttemptBudget;
  /** Told how long the next attempt must wait for the budget; 0 when it may go ahead. */
  readonly admitted: (waitMs: number) => void;
  /** When the leaf that stood at the start came, epoch ms, where that is known. */
  readonly standingSince: () => number | undefined;
  readonly refuse: RenewalPolicy['refuse'];
  /** Told when the leaf of this fingerprint is due, epoch ms. */
  readonly planned: (fingerprint: string, due: number) => void;
  /** How many MeshCertificates there are, whoever leads them; default 1. */
  readonly fleet?: (() => number) | undefined;
  /** The leaf that stands now. */
  readonly current: () => Certificate | undefined;
}

/** The numbers of core, bound to one MeshCertificate. */
export function renewalPolicy({
  spec,
  clock,
  random,
  budget,
  admitted,
  standingSince,
  refuse,
  planned,
  fleet = () => 1,
  current,
}: PolicyOptions): RenewalPolicy {
  const remaining = (leaf: Certificate | undefined) => (leaf ? Math.max(0, leaf.notAfter - clock.now()) : undefined);
  return {
    refuse,
    renewAt(leaf, issuedAt = standingSince() ?? leaf.notBefore) {
      const { notAfter, fingerprint } = leaf;
      const notBefore = Math.max(leaf.notBefore, Math.min(issuedAt, notAfter));
      const due = renewAt({ notBefore, notAfter, fingerprint }, spec.renewal.at, spec.renewal.jitter);
      planned(fingerprint, due);
      return due;
    },
    retryDelay(attempt, error, leaf) {
      const remainingMs = remaining(leaf ?? current());
      const wanted = typeof error.retry === 'object' ? error.retry.afterMs : 0;
      return Math.max(wanted, retryDelay(attempt, random, remainingMs === undefined ? {} : { remainingMs }));
    },
    admit(leaf) {
      const life = leaf ? leaf.notAfter - leaf.notBefore : Number.POSITIVE_INFINITY;
      const waitMs = budget.take(clock.monotonic(), attemptsPerHour(life));
      admitted(waitMs);
      return waitMs;
    },
    get rootsSpreadMs() {
      const leaf = current();
      const wanted = Math.max(ROOTS_SPREAD_MS, fleet() * ROOTS_SPREAD_EACH_MS);
      return leaf ? Math.min(wanted, (leaf.notAfter - leaf.notBefore) * ROOTS_SPREAD_OF_LIFE) : 0;
    },
  };
}
