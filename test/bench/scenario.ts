import type { Fleets } from './fleets.ts';
import { type Summary, summarise } from './statistics.ts';

export interface Row {
  readonly what: string;
  readonly unit: string;
  readonly ours: Summary;
  /** What it is compared with; absent if there is only a budget. */
  readonly theirs: Summary | undefined;
  /** Ours over theirs, pair by pair. */
  readonly ratio: Summary | undefined;
  readonly budget: string | undefined;
  readonly met: boolean | undefined;
}

/** Not a time: exact, and the same on every machine. */
export interface Count {
  readonly what: string;
  readonly value: number;
  readonly limit: number | undefined;
}

export interface Findings {
  readonly rows: readonly Row[];
  readonly counts: readonly Count[];
  readonly notes: readonly string[];
}

export interface Scenario {
  readonly id: string;
  readonly title: string;
  /** What work is the same on both sides, and what is not. */
  readonly same: string;
  run(context: Context): Promise<Findings>;
}

export interface Context {
  readonly sizes: Sizes;
  readonly fleets: Fleets;
  /** Printed on stderr while it runs. */
  readonly say: (text: string) => void;
}

export interface Sizes {
  /** Identities due at once. */
  readonly due: number;
  /** The numbers of MeshCertificates that exist before the agent starts for the first time. */
  readonly first: readonly number[];
  /** What the agent watches, and the number of MeshCertificates and of Certificates of cert-manager. */
  readonly certManager: readonly (readonly ['names' | 'labels', number])[];
  /** The number due at once on the sandbox in addition; 0: none. */
  readonly dueSandbox: number;
  /** How long the API server is away, in `mass`. */
  readonly awayMs: number;
  /** Publications whose way to the API server breaks, with `--observe names`. */
  readonly outage: number;
  readonly rounds: number;
  readonly pushes: number;
  readonly idleSeconds: number;
  /** The numbers of publications for which memory is measured. */
  readonly memory: readonly number[];
  /** Identities that are rotated ten times while the heap is measured. */
  readonly flat: number;
  readonly micro: number;
  /** Of one watch, in `micro`. */
  readonly events: number;
  /** Identities, each with a peer of its own. */
  readonly helpers: readonly number[];
  readonly helperSeconds: number;
  /** Changes of Consul's root, of each kind. */
  readonly consulRounds: number;
  /** Processes on each side of a comparison of one process each. */
  readonly starts: number;
}

/** A peer that cannot run here; the report has its message. */
export class Missing extends Error {
  override readonly name = 'Missing';
}

export function missing(error: unknown): never {
  throw new Missing(error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error));
}

export function row(
  what: string,
  unit: string,
  ours: readonly number[],
  theirs?: readonly number[],
  budget?: { readonly text: string; readonly met: (ratio: number, ours: number) => boolean },
): Row {
  const own = summarise(ours);
  const ratio = theirs && summarise(ours.map((value, at) => value / (theirs[at] ?? Number.NaN)));
  return {
    what,
    unit,
    ours: own,
    theirs: theirs && summarise(theirs),
    ratio,
    budget: budget?.text,
    met: budget?.met(ratio?.median ?? Number.NaN, own.median),
  };
}

export const atMost = (limit: number, text = `≤ ${limit}`) => ({
  text,
  met: (_: number, ours: number) => ours <= limit,
});
export const ratioAtMost = (limit: number) => ({ text: `≤ ${limit} ×`, met: (ratio: number) => ratio <= limit });
export const ratioAtLeast = (limit: number) => ({ text: `≥ ${limit} ×`, met: (ratio: number) => ratio >= limit });
