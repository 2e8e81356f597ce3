import type { KubeObject, ObjectRef } from '../core/object.ts';
import type { ConditionStatus } from '../core/status.ts';
import type { GatewayInput, Scope } from './input.ts';

/** What is to be found where the gateway is looked at. */
export interface ExpectedLoad {
  /** Equal digests are one publication; in short also what a nudge writes. */
  readonly digest: string;
}

/** `live`: the gateway uses what is published. `stale`: something older, too. `absent`: nothing of it. */
export type Arrival = 'live' | 'stale' | 'absent';

export interface Loaded {
  readonly arrival: Arrival;
  /** Whether the data plane itself was asked, and not what the control plane means to tell it. */
  readonly certain: boolean;
}

/** What the condition `Live` says. */
export interface LiveCondition {
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
}

/** A change of an object of ours that makes the gateway read everything again. */
export interface Nudge {
  readonly ref: ObjectRef;
  /** A JSON merge patch. */
  readonly patch: object;
  readonly fieldManager: string;
}

/**
 * How it is seen that a gateway has loaded a publication: by what it answers at a URL, by what it writes into the
 * status of objects, or by both. Pure.
 */
export interface Loading<C = unknown, E extends ExpectedLoad = ExpectedLoad, L extends Loaded = Loaded> {
  /** Undefined where nothing is published that the gateway would load. */
  expected(input: GatewayInput<C>, desired: readonly { readonly object: KubeObject }[]): E | undefined;
  readonly answers?: {
    /** Where to ask, from what an operator gave. */
    endpoint(url: string): URL;
    /** Throws for an answer that is not of this gateway. */
    judge(answer: unknown, expected: E): L;
  };
  readonly statuses?: {
    /** The objects whose status tells. */
    scopes(input: GatewayInput<C>): readonly Scope[];
    judge(objects: readonly KubeObject[], expected: E): L;
  };
  condition(found: L | { readonly failure: string }, expected: E): LiveCondition;
  /** The reasons that `condition` gives; docs/runbook.md has an entry for each. */
  readonly reasons: readonly string[];
  /** What helps a gateway that stays on something old; `attempt` counts from 1. */
  nudge?(desired: readonly { readonly object: KubeObject }[], expected: E, attempt: number): Nudge | undefined;
}

/** The least happy of several, since a gateway has several places to be stale in. */
export function worstOf(judged: readonly Loaded[]): Loaded | undefined {
  const rank = { stale: 0, absent: 1, live: 2 } as const;
  return judged.toSorted((a, b) => rank[a.arrival] - rank[b.arrival] || Number(b.certain) - Number(a.certain))[0];
}
