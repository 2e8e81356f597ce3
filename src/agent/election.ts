import { createHash } from 'node:crypto';
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
  /** All Leases of the election, for status and metrics. */
  readonly leases: readonly { readonly name: string; readonly isHeld: boolean }[];
}

/** Whether this process may write anything; without an election it may. */
export const leadsSomething = ({ leases }: Leadership): boolean =>
  leases.length === 0 || leases.some(({ isHeld }) => isHeld);

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
  leases: [],
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

/** The MeshCertificates that share one Lease. */
interface Shard {
  readonly lease: string;
  term: LeaseTerm | undefined;
  /** Ends the campaign for the Lease. */
  campaign: LinkedSignal | undefined;
}

const isLed = ({ term }: Shard): boolean => term?.isLeader() === true;

/** How often shards are evened out. */
const BALANCE_MS = 2 * LEASE_DURATIONS.retryMs;

/** Leads the MeshCertificates whose shard's Lease this process holds. */
export class LeaseLeadership implements Leadership {
  readonly #options: LeaseLeadershipOptions;
  readonly #shards: readonly Shard[];
  readonly #listeners: (() => void)[] = [];

  constructor(options: LeaseLeadershipOptions) {
    const { name, shards } = options;
    this.#options = options;
    this.#shards = Array.from({ length: shards }, (_, at) => {
      return { lease: shards === 1 ? name : `${name}-${at}`, term: undefined, campaign: undefined };
    });
  }

  leads(key: string): boolean {
    return isLed(this.#shardOf(key));
  }

  fence(key: string): Fence {
    const shard = this.#shardOf(key);
    return {
      check: () => {
        if (!isLed(shard)) throw new FenceError(shard.lease);
      },
    };
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  get leases(): Leadership['leases'] {
    return this.#shards.map((shard) => ({ name: shard.lease, isHeld: isLed(shard) }));
  }

  async run(signal: AbortSignal): Promise<void> {
    const parts = this.#shards.map((shard) => this.#lead(shard, signal));
    if (this.#shards.length > 1) parts.push(this.#balance(signal));
    await Promise.all(parts);
  }

  async #lead(shard: Shard, signal: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    while (!signal.aborted) {
      using stop = linkedTo(signal);
      const term = this.#campaign(shard.lease, stop.signal);
      shard.campaign = stop;
      shard.term = term;
      for await (const _ of term.changes()) this.#changed();
      await term.ended;
      shard.term = undefined;
      this.#changed();
      // Given up for another replica: do not campaign until that replica had time to take the Lease.
      if (!signal.aborted) await clock.sleep(2 * LEASE_DURATIONS.leaseMs, signal).catch(() => {});
    }
  }

  /**
   * Evens out shards among replicas. A replica that holds at least two fewer than another takes the handover Lease,
   * which requests a shard. A replica that holds at least two more than the holder of that Lease gives up one shard. One
   * handover at a time.
   */
  async #balance(signal: AbortSignal): Promise<void> {
    const lease = `${this.#options.name}-handover`;
    let asking: { readonly stop: LinkedSignal; readonly ended: Promise<void> } | undefined;
    const stopAsking = async () => {
      const before = asking;
      asking = undefined;
      before?.stop.abort(new Error('no longer asking'));
      await before?.ended;
      before?.stop[Symbol.dispose]();
    };
    try {
      while (!signal.aborted) {
        await this.#options.clock.sleep(BALANCE_MS, signal);
        const { mine, others } = this.#counts();
        if (mine + 2 > Math.max(0, ...others.values())) await stopAsking();
        else if (!asking) {
          const stop = linkedTo(signal);
          asking = { stop, ended: this.#campaign(lease, stop.signal).ended };
        }
        if (mine < 2 || asking) continue;
        const asker = await this.#holderOf(lease, signal);
        if (asker === undefined || mine < (others.get(asker) ?? 0) + 2) continue;
        this.#shards.findLast(isLed)?.campaign?.abort(new Error('given up for another replica'));
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await stopAsking();
    }
  }

  /** How many shards this replica holds, and how many each other one. */
  #counts(): { readonly mine: number; readonly others: ReadonlyMap<string, number> } {
    const others = new Map<string, number>();
    for (const shard of this.#shards) {
      const holder = isLed(shard) ? undefined : replicaOf(shard.term?.holder);
      if (holder !== undefined) others.set(holder, (others.get(holder) ?? 0) + 1);
    }
    return { mine: this.#shards.filter(isLed).length, others };
  }

  /** The replica that holds a Lease now. */
  async #holderOf(name: string, signal: AbortSignal): Promise<string | undefined> {
    const { kube, namespace, clock } = this.#options;
    const ref = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace, name };
    const found = await kube.get(ref, signal).catch(() => undefined);
    if (!found) return undefined;
    const { holder, renewedAt, durationMs } = readLease(found);
    return clock.now() - (renewedAt ?? 0) > durationMs ? undefined : replicaOf(holder);
  }

  #campaign(name: string, signal: AbortSignal): LeaseTerm {
    const { kube, namespace, identity, clock, random, log } = this.#options;
    return campaign(kube, { namespace, name, identity, clock, random, log }, signal);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }

  #shardOf(key: string): Shard {
    const at = createHash('sha256').update(key).digest().readUInt32BE(0) % this.#shards.length;
    return this.#shards[at] as Shard;
  }
}

/** Each campaign appends a random part of its own to the name of its process. */
function replicaOf(holder: string | undefined): string | undefined {
  if (holder === undefined || holder === '') return undefined;
  return holder.slice(0, holder.lastIndexOf('_'));
}
