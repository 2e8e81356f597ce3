import { createHash } from 'node:crypto';
import type { Clock } from '../async/clock.ts';
import { type LinkedSignal, linkedTo } from '../async/linked-signal.ts';
import type { Kube } from '../kube/api.ts';
import { campaign, LEASE_DURATIONS, type LeaseTerm, readLease } from '../kube/lease.ts';
import type { Runtime } from '../mesh/log.ts';
import type { Fence } from './publisher.ts';

/** Which MeshCertificates this process may write for. `key` is `keyOf` of its ref. */
export interface Leadership {
  leads(key: string): boolean;
  fence(key: string): Fence;
  /** Called after each gain or loss. */
  onChange(listener: () => void): void;
  /** Campaigns until the signal is aborted, then releases the Leases. */
  run(signal: AbortSignal): Promise<void>;
  /** For status and metrics. */
  readonly held: readonly string[];
}

/** One process, no election: a one-shot run, a dry run, a sidecar that owns its publication alone. */
export const alone: Leadership = {
  leads: () => true,
  fence: () => ({ check() {} }),
  onChange() {},
  run: (signal) =>
    new Promise((resolve) => {
      if (signal.aborted) return resolve();
      signal.addEventListener('abort', () => resolve(), { once: true });
    }),
  held: [],
};

interface LeaseLeadershipOptions extends Runtime {
  readonly kube: Kube;
  readonly namespace: string;
  /** Name of the Lease; with shards, `-0`, `-1`, … are appended. */
  readonly name: string;
  readonly shards: number;
  /** Name of this process, for people. */
  readonly identity: string;
}

/** A write was refused: this process may not write now. */
class FenceError extends Error {
  override readonly name = 'FenceError';
  readonly code = 'ERR_LEASE_LOST';

  constructor(lease: string) {
    super(`Lease ${lease} is not held by this replica; the replica that holds it writes. Nothing to do`);
  }
}

/** Leads the MeshCertificates whose shard's Lease this process holds. */
export class LeaseLeadership implements Leadership {
  readonly #options: LeaseLeadershipOptions;
  readonly #terms: (LeaseTerm | undefined)[];
  readonly #listeners: (() => void)[] = [];

  constructor(options: LeaseLeadershipOptions) {
    this.#options = options;
    this.#terms = Array.from({ length: options.shards }, () => undefined);
  }

  leads(key: string): boolean {
    return this.#terms[this.#shardOf(key)]?.isLeader() === true;
  }

  fence(key: string): Fence {
    const shard = this.#shardOf(key);
    return {
      check: () => {
        if (this.#terms[shard]?.isLeader() !== true) throw new FenceError(this.#leaseName(shard));
      },
    };
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** All Leases, whether this process holds them or not. */
  get names(): readonly string[] {
    return this.#terms.map((_, shard) => this.#leaseName(shard));
  }

  get held(): readonly string[] {
    return this.#terms.flatMap((term, shard) => (term?.isLeader() ? [this.#leaseName(shard)] : []));
  }

  async run(signal: AbortSignal): Promise<void> {
    const { shards } = this.#options;
    const parts = this.#terms.map((_, shard) => this.#lead(shard, signal));
    if (shards > 1) parts.push(this.#balance.run(signal));
    await Promise.all(parts);
  }

  readonly #givingUp = new Map<number, LinkedSignal>();

  async #lead(shard: number, signal: AbortSignal): Promise<void> {
    const { clock, shards } = this.#options;
    while (!signal.aborted) {
      using give = linkedTo(signal);
      this.#givingUp.set(shard, give);
      const term = this.#campaign(this.#leaseName(shard), give.signal);
      this.#terms[shard] = term;
      for await (const _ of term.changes()) {
        this.#changed();
      }
      await term.ended;
      this.#terms[shard] = undefined;
      this.#changed();
      // Given up for another replica: do not campaign until that replica had time to take the Lease.
      if (!signal.aborted && shards > 1) await clock.sleep(2 * LEASE_DURATIONS.leaseMs, signal).catch(() => {});
    }
  }

  readonly #balance = new Balance({
    terms: () => this.#terms,
    giveUp: (shard) => this.#givingUp.get(shard)?.abort(new Error('given up for another replica')),
    campaign: (signal) => this.#campaign(`${this.#options.name}-handover`, signal),
    kube: () => this.#options.kube,
    lease: () => ({ namespace: this.#options.namespace, name: `${this.#options.name}-handover` }),
    clock: () => this.#options.clock,
    intervalMs: () => 2 * LEASE_DURATIONS.retryMs,
  });

  #campaign(name: string, signal: AbortSignal): LeaseTerm {
    const { kube, namespace, identity, clock, random, log } = this.#options;
    return campaign(kube, { namespace, name, identity, clock, random, log }, signal);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  #leaseName(shard: number): string {
    const { name, shards } = this.#options;
    return shards === 1 ? name : `${name}-${shard}`;
  }

  #shardOf(key: string): number {
    const { shards } = this.#options;
    if (shards === 1) return 0;
    return createHash('sha256').update(key).digest().readUInt32BE(0) % shards;
  }
}

interface BalanceOptions {
  readonly terms: () => readonly (LeaseTerm | undefined)[];
  readonly giveUp: (shard: number) => void;
  /** A campaign for the handover Lease. */
  readonly campaign: (signal: AbortSignal) => LeaseTerm;
  readonly kube: () => Kube;
  readonly lease: () => { readonly namespace: string; readonly name: string };
  readonly clock: () => Clock;
  readonly intervalMs: () => number;
}

/**
 * Evens out shards among replicas. A replica that holds at least two fewer than another takes the handover Lease, which
 * requests a shard. A replica that holds at least two more than the holder of that Lease gives up one shard. One
 * handover at a time.
 */
class Balance {
  readonly #options: BalanceOptions;
  #asking: { readonly stop: AbortController; readonly term: LeaseTerm } | undefined;

  constructor(options: BalanceOptions) {
    this.#options = options;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, intervalMs } = this.#options;
    try {
      while (!signal.aborted) {
        await clock().sleep(intervalMs(), signal);
        const held = this.#held();
        const mine = held.get('') ?? 0;
        const most = Math.max(0, ...[...held].filter(([holder]) => holder !== '').map(([, count]) => count));
        if (mine + 2 <= most) this.#ask(signal);
        else await this.#stopAsking();
        if (mine >= 2 && !this.#asking) await this.#answer(held, mine, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await this.#stopAsking();
    }
  }

  /** How many shards each replica holds; '' is this process. */
  #held(): Map<string, number> {
    const held = new Map<string, number>();
    for (const term of this.#options.terms()) {
      const holder = term?.isLeader() ? '' : replicaOf(term?.holder);
      if (holder !== undefined) held.set(holder, (held.get(holder) ?? 0) + 1);
    }
    return held;
  }

  #ask(signal: AbortSignal): void {
    if (this.#asking) return;
    const stop = new AbortController();
    this.#asking = { stop, term: this.#options.campaign(AbortSignal.any([signal, stop.signal])) };
  }

  async #stopAsking(): Promise<void> {
    const asking = this.#asking;
    this.#asking = undefined;
    asking?.stop.abort(new Error('no longer asking'));
    await asking?.term.ended;
  }

  async #answer(held: ReadonlyMap<string, number>, mine: number, signal: AbortSignal): Promise<void> {
    const { kube, lease, clock, giveUp, terms } = this.#options;
    const ref = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', ...lease() };
    const found = await kube()
      .get(ref, signal)
      .catch(() => undefined);
    if (!found) return;
    const { holder, renewedAt, durationMs } = readLease(found);
    const asker = replicaOf(holder);
    if (asker === undefined || clock().now() - (renewedAt ?? 0) > (durationMs ?? 0)) return;
    if (mine < (held.get(asker) ?? 0) + 2) return;
    const shard = terms().findLastIndex((term) => term?.isLeader());
    if (shard >= 0) giveUp(shard);
  }
}

/** Each campaign appends a random part of its own to the name of its process. */
function replicaOf(holder: string | undefined): string | undefined {
  if (holder === undefined || holder === '') return undefined;
  return holder.slice(0, holder.lastIndexOf('_'));
}
