import type { Clock } from '../../async/clock.ts';
import type { Kube } from '../../kube/api.ts';
import type { LeaseTerm } from '../../kube/lease/lease.ts';
import { readLease } from '../../kube/lease/lease-record.ts';

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
export class Balance {
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
