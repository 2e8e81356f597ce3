import type { Clock } from '../../async/clock.ts';
import { once } from '../../async/once.ts';
import { type Waiting, WaitingList } from '../../async/waiting-list.ts';
import { FIELD_MANAGER, type KubeObject } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';

type Side = 'secret' | 'gateway';

/** The server tells when it took a write in whole seconds, rounded down. */
const TOLD_TO_MS = 1_000;

/** What of a gateway matters here. */
export type Spaced = Pick<Gateway, 'kind' | 'resources' | 'batchGapMs'>;

/**
 * Keeps writes of Secrets and of gateways' own objects apart by the gap that the gateways ask for. Writes of one side
 * run together; a side that waits is served, all of it, before later writes of the other. One instance for each
 * namespace that gateways read Secrets from.
 */
export class BatchGap {
  readonly #clock: Clock;
  readonly #gateways: readonly Spaced[];
  readonly #gapMs: number;
  #side: Side | undefined;
  #active = 0;
  #endedAt = Number.NEGATIVE_INFINITY;
  readonly #waiting: WaitingList<Side, Disposable>;

  /** `gapMs` replaces what the gateways ask for, where they ask for anything. */
  constructor(clock: Clock, gateways: readonly Spaced[], gapMs?: number | undefined) {
    this.#clock = clock;
    this.#gateways = gateways.filter(({ batchGapMs }) => batchGapMs > 0);
    this.#gapMs = gapMs ?? Math.max(0, ...gateways.map(({ batchGapMs }) => batchGapMs));
    this.#waiting = new WaitingList((waiting) => this.#admit(waiting), clock);
  }

  /** Resolves when a Secret may be written. Dispose the turn when the write has been answered. */
  beforeSecret(signal: AbortSignal): Promise<Disposable> {
    return this.#waiting.join('secret', signal);
  }

  /**
   * Resolves when an object or a route of a gateway of this kind may be written. Dispose the turn when it has been
   * answered.
   */
  beforeGateway(kind: string, signal: AbortSignal): Promise<Disposable> {
    const isSpaced = this.#gateways.some((gateway) => gateway.kind === kind);
    return isSpaced ? this.#waiting.join('gateway', signal) : Promise.resolve(FREE);
  }

  /**
   * Takes note of what a process before this one, or another replica, wrote last. Who waits already is not made to wait
   * longer: a side that others write again and again would never let the other one in.
   */
  saw(object: KubeObject): void {
    if (this.#active > 0 || this.#waiting.size > 0) return;
    const side = this.#sideOf(object);
    if (side === undefined) return;
    for (const { manager, subresource, time } of object.metadata.managedFields ?? []) {
      if (manager !== FIELD_MANAGER || subresource !== undefined || time === undefined) continue;
      const ago = Math.max(0, this.#clock.now() - Date.parse(time) - TOLD_TO_MS);
      const at = this.#clock.monotonic() - ago;
      if (!(ago < this.#gapMs && at >= this.#endedAt)) continue;
      // Which of two was the later cannot be told where the clocks differ: then neither may follow at once.
      const unclear = at === this.#endedAt && this.#side !== side;
      this.#side = unclear ? undefined : side;
      this.#endedAt = at;
    }
  }

  /** Undefined for what comes with a gateway that does not mind. */
  #sideOf({ apiVersion, kind }: KubeObject): Side | undefined {
    if (apiVersion === 'v1') return 'secret';
    const comesWith = ({ resources }: Spaced) =>
      resources.some((one) => one.apiVersion === apiVersion && one.kind === kind);
    return this.#gateways.some(comesWith) ? 'gateway' : undefined;
  }

  #turn(): Disposable {
    this.#active += 1;
    return once(() => {
      this.#active -= 1;
      this.#endedAt = this.#clock.monotonic();
      this.#waiting.look();
    });
  }

  #admit(waiting: Iterable<Waiting<Side, Disposable>>): number | undefined {
    const [next] = waiting;
    if (next && this.#side !== next.about) {
      if (this.#active > 0) return undefined;
      const left = this.#endedAt + this.#gapMs - this.#clock.monotonic();
      if (left > 0) return left;
      this.#side = next.about;
    }
    // All that wait on this side, also behind the other: each change of sides costs everybody the gap.
    for (const { about, admit } of waiting) if (about === this.#side) admit(this.#turn());
    return undefined;
  }
}

/** The turn of whoever need not wait. */
const FREE: Disposable = { [Symbol.dispose]() {} };

/** One Spacing for each namespace that gateways read their Secrets from. */
export class BatchGaps {
  readonly #clock: Clock;
  readonly #gateways: readonly Spaced[];
  readonly #gapMs: number | undefined;
  readonly #byNamespace = new Map<string, BatchGap>();

  constructor(clock: Clock, gateways: readonly Spaced[], gapMs?: number | undefined) {
    this.#clock = clock;
    this.#gateways = gateways;
    this.#gapMs = gapMs;
  }

  of(namespace: string): BatchGap {
    let spacing = this.#byNamespace.get(namespace);
    if (!spacing) {
      spacing = new BatchGap(this.#clock, this.#gateways, this.#gapMs);
      this.#byNamespace.set(namespace, spacing);
    }
    return spacing;
  }
}
