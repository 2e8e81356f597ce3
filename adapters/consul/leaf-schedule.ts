import type { Certificate } from '../../src/pki/certificate.ts';
import { LONGEST_WAIT_MS } from './blocking.ts';

/**
 * Agents renew at a random point in 60–90 % of a leaf's life; past this share we request without waiting for a
 * notification.
 */
const DUE = 0.7;
/** Once a leaf is due, the interval between requests. */
const POLL_SHARE = 0.02;
const SHORTEST_POLL_MS = 15_000;
/** Below this lifetime an agent makes a new leaf at every request: then we request one only when it is due. */
const SHORT_LIFE_MS = 10 * 60_000;

/** What to do next about a leaf: block on the index this long, or sleep and then request the current one. */
export type LeafStep = { readonly block: number } | { readonly sleep: number };

export function nextLeafStep(leaf: Certificate, now: number): LeafStep {
  const life = leaf.notAfter - leaf.notBefore;
  const left = leaf.notBefore + life * DUE - now;
  if (left <= 0) return { sleep: Math.min(Math.max(life * POLL_SHARE, SHORTEST_POLL_MS), LONGEST_WAIT_MS) };
  if (life < SHORT_LIFE_MS) return { sleep: Math.min(left, LONGEST_WAIT_MS) };
  return { block: Math.min(left, LONGEST_WAIT_MS) };
}
