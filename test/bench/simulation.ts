import { CertificatePolicy, type PolicyOptions } from '../../src/agent/renewal-policy.ts';
import type { Clock } from '../../src/async/clock.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Certificate } from '../../src/pki/certificate.ts';

export interface SimulationOptions {
  readonly identities: number;
  readonly shards: number;
  readonly days: number;
  readonly leafLifetimeMs: number;
  /**
   * `grown`: leaves of every age at the start. `born`: all were issued within the first minute. `new`: none was issued,
   * and the agents start.
   */
  readonly start: 'grown' | 'born' | 'new';
  /** Certificates that one process requests and publishes a second; absent: any number. */
  readonly capacity?: number;
  /** From, to; milliseconds since the start: every request fails. */
  readonly outage?: readonly [number, number];
  /** The mesh names another root, under which each leaf must be issued again. */
  readonly rootsChangeAt?: number;
  /** Every process ends, and starts a minute later. */
  readonly restartAt?: number;
  readonly seed?: number;
}

export interface SimulationResult {
  readonly issued: number;
  readonly failed: number;
  /** Leaves that ended before another came. */
  readonly expired: number;
  /** Requests a second over all shards. */
  readonly median: number;
  readonly peak: number;
  /** Of the busiest shard. */
  readonly peakOfShard: number;
  /** The busiest minute over what an even spread would make of it. */
  readonly burst: number;
  /** From the start, the end of the outage or the change of roots until the last that had to has a new leaf; seconds. */
  readonly recovery: number | undefined;
}

interface One {
  readonly shard: number;
  /** With its current leaf. */
  readonly policy: CertificatePolicy;
  failures: number;
  /** An agenda entry is valid only under this number. */
  turn: number;
  /** Must be issued again, or failed. */
  owing: boolean;
  /** When its process has the capacity for its next request; undefined: it has not asked. */
  slot: number | undefined;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const DAY = 86_400_000;
const UNAVAILABLE = new MeshError('ERR_MESH_UNAVAILABLE', 'the CA is away');

/**
 * The agents of a fleet on a clock that jumps from one event to the next. When a leaf is due, how long a failure waits,
 * what the budget allows and how a change of roots is spread are the agent's own policy and core; the order in which
 * one identity uses them is that of `renewing`, without its streams. A request takes no time but that of the capacity.
 */
export function simulate(options: SimulationOptions): SimulationResult {
  const { identities, shards, days, leafLifetimeMs, start, outage, rootsChangeAt, restartAt } = options;
  const { capacity = Number.POSITIVE_INFINITY } = options;
  const random = mulberry(options.seed ?? 1);
  const end = days * DAY;
  let now = 0;
  const notHere = () => {
    throw new Error('the agenda tells the time');
  };
  const clock: Clock = { now: () => now, monotonic: () => now, after: notHere, sleep: notHere };
  const agenda = new Agenda();
  const perSecond = new Uint32Array(Math.ceil(end / SECOND) + 1);
  const perShardSecond = Array.from({ length: shards }, () => new Uint32Array(perSecond.length));
  let [issued, failed, expired, recoveredAt] = [0, 0, 0, Number.NaN];
  const trouble = rootsChangeAt ?? outage?.[1] ?? (start === 'new' ? 0 : undefined);

  const policyOptions: PolicyOptions = {
    env: { clock, random, fleet: () => identities },
    spec: { renewal: { at: 0.6, jitter: 0.06 } },
    publishedSince: () => undefined,
    refuse: async () => undefined,
    changed: () => {},
  };
  const newLeaf = (notBefore: number): Certificate => {
    const fingerprint = Math.floor(random() * 2 ** 48)
      .toString(16)
      .padStart(12, '0');
    // All fields of a certificate that a schedule reads.
    return { notBefore, notAfter: notBefore + leafLifetimeMs, fingerprint } as Certificate;
  };

  /** When each process has capacity again. */
  const free = new Float64Array(shards);
  const all: One[] = [];
  for (let at = 0; at < identities; at++) {
    const policy = new CertificatePolicy(policyOptions);
    const shard = Math.floor(random() * shards);
    all.push({ shard, policy, failures: 0, turn: 0, owing: start === 'new', slot: undefined });
    if (start !== 'new') policy.leaf = newLeaf(start === 'born' ? random() * MINUTE : -random() * leafLifetimeMs * 0.6);
    agenda.add(policy.leaf ? policy.renewAt(policy.leaf) : 0, at, 0);
  }
  const away = (time: number) => outage !== undefined && time >= outage[0] && time < outage[1];
  const marks = [rootsChangeAt, restartAt].filter((time) => time !== undefined).sort((a, b) => a - b);

  for (let next = agenda.take(); next && next.at < end; next = agenda.take()) {
    while (marks[0] !== undefined && marks[0] <= next.at) {
      now = marks.shift() ?? now;
      for (const [index, one] of all.entries()) {
        if (!one.policy.leaf) continue;
        one.turn += 1;
        one.failures = 0;
        // A start reads the published state and continues from there.
        const due = Math.max(now + (now === restartAt ? MINUTE : 0), one.policy.renewAt(one.policy.leaf));
        one.owing = now === rootsChangeAt;
        const spread = Math.floor(random() * one.policy.rootsSpreadMs);
        agenda.add(now === rootsChangeAt ? Math.min(due, now + spread) : due, index, one.turn);
      }
      agenda.add(next.at, next.index, next.turn);
      next = agenda.take() ?? next;
    }
    const one = all[next.index];
    if (!one || next.turn !== one.turn || next.at >= end) continue;
    now = Math.max(now, next.at);
    const freeAt = Math.max(now, free[one.shard] ?? 0);
    if (one.slot === undefined && freeAt > now) {
      one.slot = freeAt;
      free[one.shard] = freeAt + SECOND / capacity;
      agenda.add(freeAt, next.index, one.turn);
      continue;
    }
    if (one.slot === undefined) free[one.shard] = now + SECOND / capacity;
    one.slot = undefined;
    const wait = one.policy.admit(one.policy.leaf);
    if (wait > 0) {
      agenda.add(now + wait, next.index, one.turn);
      continue;
    }
    const second = Math.floor(now / SECOND);
    perSecond[second] = (perSecond[second] ?? 0) + 1;
    const own = perShardSecond[one.shard];
    if (own) own[second] = (own[second] ?? 0) + 1;
    if (away(now)) {
      failed += 1;
      one.failures += 1;
      one.owing = true;
      agenda.add(now + one.policy.retryDelay(one.failures, UNAVAILABLE, one.policy.leaf), next.index, one.turn);
      continue;
    }
    issued += 1;
    if (one.policy.leaf && one.policy.leaf.notAfter < now) expired += 1;
    if (one.owing) recoveredAt = now;
    one.owing = false;
    one.failures = 0;
    one.policy.leaf = newLeaf(now);
    agenda.add(one.policy.renewAt(one.policy.leaf, now), next.index, one.turn);
  }

  const busy = perSecond
    .subarray(0, Math.floor(end / SECOND))
    .slice()
    .sort();
  const minutes: number[] = [];
  for (let at = 0; at + 60 <= perSecond.length; at += 60) minutes.push(sum(perSecond.subarray(at, at + 60)));
  const even = (identities / (leafLifetimeMs * 0.63)) * MINUTE;
  return {
    issued,
    failed,
    expired,
    median: busy[Math.floor(busy.length / 2)] ?? 0,
    peak: highest(perSecond),
    peakOfShard: Math.max(...perShardSecond.map(highest)),
    burst: Math.max(...minutes) / even,
    recovery:
      trouble === undefined || Number.isNaN(recoveredAt) ? undefined : Math.max(0, recoveredAt - trouble) / SECOND,
  };
}

const sum = (values: Uint32Array): number => values.reduce((total, value) => total + value, 0);
const highest = (values: Uint32Array): number => values.reduce((most, value) => Math.max(most, value), 0);

/** A binary heap by time. */
class Agenda {
  readonly #heap: { at: number; index: number; turn: number }[] = [];

  add(at: number, index: number, turn: number): void {
    const heap = this.#heap;
    const entry = { at, index, turn };
    let place = heap.push(entry) - 1;
    while (place > 0) {
      const up = (place - 1) >> 1;
      const parent = heap[up];
      if (!parent || parent.at <= at) break;
      heap[place] = parent;
      place = up;
    }
    heap[place] = entry;
  }

  take(): { at: number; index: number; turn: number } | undefined {
    const heap = this.#heap;
    const [first] = heap;
    const last = heap.pop();
    if (!first || !last || heap.length === 0) return first;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      const [left, right] = [heap[child], heap[child + 1]];
      if (!left) break;
      if (right && right.at < left.at) child += 1;
      const least = heap[child];
      if (!least || least.at >= last.at) break;
      heap[place] = least;
      place = child;
    }
    heap[place] = last;
    return first;
  }
}

/** Small, seeded, and good enough for schedules. */
function mulberry(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
