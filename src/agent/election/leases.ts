import { createHash } from 'node:crypto';
import { type LinkedSignal, linkedTo } from '../../async/linked-signal.ts';
import type { Kube } from '../../kube/api.ts';
import { campaign, LEASE_DURATIONS, type LeaseTerm } from '../../kube/lease/lease.ts';
import type { Runtime } from '../../mesh/log.ts';
import type { Fence } from '../publish/publisher.ts';
import type { Leadership } from './leadership.ts';
import { Balance } from './shards.ts';

export interface LeaseLeadershipOptions extends Runtime {
  readonly kube: Kube;
  readonly namespace: string;
  /** Name of the Lease; with shards, `-0`, `-1`, … are appended. */
  readonly name: string;
  readonly shards: number;
  /** Name of this process, for people. */
  readonly identity: string;
}

/** A write was refused: this process may not write now. */
export class FenceError extends Error {
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
