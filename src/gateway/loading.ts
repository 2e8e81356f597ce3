import type { KubeObject, ObjectRef } from '../core/object.ts';
import type { ConditionStatus } from '../core/status.ts';
import type { GatewayInput, Scope } from './input.ts';

/** What the gateway shows once it has loaded a publication. */
export interface ExpectedLoad {
  /** Equal digests mean the same publication; a nudge writes a short form of it. */
  readonly digest: string;
}

/**
 * `live`: the data plane uses what is published. `stale`: it uses something older, too. `absent`: the gateway has none of
 * it. `read`: the control plane has read it, and nothing shows what the data plane uses.
 */
export type Arrival = 'live' | 'stale' | 'absent' | 'read';

export interface Loaded {
  readonly arrival: Arrival;
  /** Whether the answer comes from the data plane itself, and not from the control plane. */
  readonly certain: boolean;
}

/** The content of the condition `Live`. */
export interface LiveCondition {
  readonly status: ConditionStatus;
  readonly reason: string;
  readonly message: string;
}

/** A change of one of our objects that makes the gateway read everything again. */
export interface Nudge {
  readonly ref: ObjectRef;
  /** A JSON merge patch. */
  readonly patch: object;
  readonly fieldManager: string;
}

/**
 * How to observe that a gateway has loaded a publication: from its answer at a URL, from the status that it writes to
 * objects, or from both. Pure.
 */
export interface Loading<C = unknown, E extends ExpectedLoad = ExpectedLoad, L extends Loaded = Loaded> {
  /** Undefined if nothing is published that the gateway would load. */
  expected(input: GatewayInput<C>, desired: readonly { readonly object: KubeObject }[]): E | undefined;
  readonly answers?: {
    /** What to request, from the URL that an operator configured. */
    requests(url: string): readonly LoadingRequest[];
    /**
     * `answers` has one for each of `requests`, undefined where it failed. Undefined if nothing of the publication
     * concerns the one that answers, or what answered does not suffice. Throws for an answer of another kind.
     */
    judge(answers: readonly unknown[], expected: E): L | undefined;
  };
  readonly statuses?: {
    /** The objects whose status shows what was loaded. */
    scopes(input: GatewayInput<C>): readonly Scope[];
    judge(objects: readonly KubeObject[], expected: E): L;
  };
  condition(found: L | { readonly failure: string }, expected: E): LiveCondition;
  /** The reasons that `condition` gives; docs/runbook.md has an entry for each. */
  readonly reasons: readonly string[];
  /** The changes that help a gateway that stays on an old state; `attempt` counts from 1. */
  nudge?(desired: readonly { readonly object: KubeObject }[], expected: E, attempt: number, found: L): readonly Nudge[];
}

/** One GET, answered with JSON or, with `wanted`, with lines of text, of which those matter that begin with one of these. */
export interface LoadingRequest {
  readonly url: URL;
  readonly wanted?: readonly string[];
}

/** Where a gateway of this kind answers what it has loaded. */
export interface LoadingEndpoint {
  readonly kind: string;
  readonly requests: readonly LoadingRequest[];
}

/** The worst of several, since a gateway can be stale in several places; `read` proves nothing, and so counts last. */
export function worstOf(judged: readonly Loaded[]): Loaded | undefined {
  const rank = { stale: 0, absent: 1, live: 2, read: 3 } as const;
  return judged.toSorted((a, b) => rank[a.arrival] - rank[b.arrival] || Number(b.certain) - Number(a.certain))[0];
}
