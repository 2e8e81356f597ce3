import type { Clock } from '../../async/clock.ts';
import { once } from '../../async/once.ts';
import { FIELD_MANAGER, type KubeObject } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';

type Side = 'secret' | 'gateway';

/** The server tells when it took a write in whole seconds, rounded down. */
const TOLD_TO_MS = 1_000;

interface Waiter {
  readonly side: Side;
  readonly admit: () => void;
}

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
  #queue: Waiter[] = [];
  /** Takes back the next look at who may go. */
  #timer: (() => void) | undefined;

  /** `gapMs` replaces what the gateways ask for, where they ask for anything. */
  constructor(clock: Clock, gateways: readonly Spaced[], gapMs?: number | undefined) {
    this.#clock = clock;
    this.#gateways = gateways.filter(({ batchGapMs }) => batchGapMs > 0);
    this.#gapMs = gapMs ?? Math.max(0, ...gateways.map(({ batchGapMs }) => batchGapMs));
  }

  /** Resolves when a Secret may be written. Dispose the turn when the write has been answered. */
  beforeSecret(signal: AbortSignal): Promise<Disposable> {
    return this.#before('secret', signal);
  }

  /**
   * Resolves when an object or a route of a gateway of this kind may be written. Dispose the turn when it has been
   * answered.
   */
  beforeGateway(kind: string, signal: AbortSignal): Promise<Disposable> {
    const isSpaced = this.#gateways.some((gateway) => gateway.kind === kind);
    return isSpaced ? this.#before('gateway', signal) : Promise.resolve(FREE);
  }

  /**
   * Takes note of what a process before this one, or another replica, wrote last. Who waits already is not made to wait
   * longer: a side that others write again and again would never let the other one in.
   */
  saw(object: KubeObject): void {
    if (this.#active > 0 || this.#queue.length > 0) return;
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

  #before(side: Side, signal: AbortSignal): Promise<Disposable> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const abort = () => {
        this.#queue = this.#queue.filter((other) => other !== waiter);
        reject(signal.reason);
        this.#admit();
      };
      const waiter: Waiter = {
        side,
        admit: () => {
          signal.removeEventListener('abort', abort);
          resolve(this.#turn());
        },
      };
      signal.addEventListener('abort', abort, { once: true });
      this.#queue.push(waiter);
      this.#admit();
    });
  }

  #turn(): Disposable {
    return once(() => {
      this.#active--;
      this.#endedAt = this.#clock.monotonic();
      this.#admit();
    });
  }

  #admit(): void {
    const next = this.#queue[0];
    if (next && this.#side !== next.side) {
      if (this.#active > 0) return;
      const left = this.#endedAt + this.#gapMs - this.#clock.monotonic();
      if (left > 0) {
        this.#wakeIn(left);
        return;
      }
      this.#side = next.side;
    }
    // All that wait on this side, also behind the other: each change of sides costs everybody the gap.
    const admitted = this.#queue.filter(({ side }) => side === this.#side);
    this.#queue = this.#queue.filter(({ side }) => side !== this.#side);
    this.#active += admitted.length;
    for (const { admit } of admitted) admit();
    if (this.#queue.length > 0) return;
    this.#timer?.();
    this.#timer = undefined;
  }

  #wakeIn(ms: number): void {
    if (this.#timer) return;
    this.#timer = this.#clock.after(ms, () => {
      this.#timer = undefined;
      this.#admit();
    });
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
