import type { Clock } from '../async/clock.ts';
import { type Waiting, WaitingList } from '../async/limits.ts';
import { once } from '../async/linked-signal.ts';
import type { Gateway } from '../gateway/gateway.ts';
import { FIELD_MANAGER, type KubeObject } from '../objects/objects.ts';

type Side = 'secret' | 'gateway';

/** The server reports the time of a write in whole seconds, rounded down. */
const TOLD_TO_MS = 1_000;

/** The part of a gateway that is used here. */
type Spaced = Pick<Gateway, 'kind' | 'resources' | 'batchGapMs'>;

interface WaitingWrite {
  readonly side: Side;
  /** When it began to wait, on the monotonic clock. */
  readonly since: number;
}

/** Longer than the Secrets of a few hundred MeshCertificates that begin together take. */
const OTHERS_FIRST_MS = 5_000;

/**
 * Separates writes of Secrets and of gateways' own objects by the gap that the gateways need. Writes of one side run
 * together, and all waiting writes of a side go before later writes of the other. One exception: the objects of a
 * gateway, which wait for the gap after their Secrets in any case, let further Secrets go first for some seconds.
 * Otherwise the Secrets of MeshCertificates that begin together would wait for two more gaps, once the first of them is
 * written. One instance for each namespace that gateways read Secrets from.
 */
export class BatchGap {
  readonly #clock: Clock;
  readonly #gateways: readonly Spaced[];
  readonly #gapMs: number;
  #side: Side | undefined;
  #active = 0;
  #endedAt = Number.NEGATIVE_INFINITY;
  readonly #waiting: WaitingList<WaitingWrite, Disposable>;

  /** `gapMs` replaces the gateways' own gaps, except for gateways that need none. */
  constructor(clock: Clock, gateways: readonly Spaced[], gapMs?: number | undefined) {
    this.#clock = clock;
    this.#gateways = gateways.filter(({ batchGapMs }) => batchGapMs > 0);
    this.#gapMs = gapMs ?? Math.max(0, ...gateways.map(({ batchGapMs }) => batchGapMs));
    this.#waiting = new WaitingList((waiting) => this.#admit(waiting), clock);
  }

  /** Resolves when a Secret may be written. Dispose the turn after the response to the write. */
  beforeSecret(signal: AbortSignal): Promise<Disposable> {
    return this.#join('secret', signal);
  }

  /**
   * Resolves when an object or a route of a gateway of this kind may be written. Dispose the turn after the response.
   */
  beforeGateway(kind: string, signal: AbortSignal): Promise<Disposable> {
    const isSpaced = this.#gateways.some((gateway) => gateway.kind === kind);
    return isSpaced ? this.#join('gateway', signal) : Promise.resolve(FREE);
  }

  #join(side: Side, signal: AbortSignal): Promise<Disposable> {
    return this.#waiting.join({ side, since: this.#clock.monotonic() }, signal);
  }

  /**
   * Records the last write of a previous process or of another replica. A write that already waits does not wait
   * longer: otherwise a side that others write again and again would never let the other one in.
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
      // When the clocks differ, the order of two writes is unknown: then neither side may follow at once.
      const unclear = at === this.#endedAt && this.#side !== side;
      this.#side = unclear ? undefined : side;
      this.#endedAt = at;
    }
  }

  /** Undefined for objects of a gateway that needs no gap. */
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

  #admit(waiting: Iterable<Waiting<WaitingWrite, Disposable>>): number | undefined {
    const [next] = waiting;
    if (!next) return undefined;
    const { side, since } = next.about;
    if (this.#side !== side) {
      const now = this.#clock.monotonic();
      if (this.#side === 'secret' && now < since + OTHERS_FIRST_MS) this.#admitAll(waiting);
      if (this.#active > 0) return undefined;
      const left = this.#endedAt + this.#gapMs - now;
      if (left > 0) return left;
      this.#side = side;
    }
    this.#admitAll(waiting);
    return undefined;
  }

  /** All waiting writes of this side, also those behind the other side: each change of sides costs everyone the gap. */
  #admitAll(waiting: Iterable<Waiting<WaitingWrite, Disposable>>): void {
    for (const { about, admit } of waiting) if (about.side === this.#side) admit(this.#turn());
  }
}

/** The turn of a write that does not need to wait. */
const FREE: Disposable = { [Symbol.dispose]() {} };

/** One BatchGap for each namespace that gateways read their Secrets from. */
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
    let gap = this.#byNamespace.get(namespace);
    if (!gap) {
      gap = new BatchGap(this.#clock, this.#gateways, this.#gapMs);
      this.#byNamespace.set(namespace, gap);
    }
    return gap;
  }
}

/** Later writes in flight at a time, while nothing is urgent: half of the writes that are sent at a time. */
const AT_ONCE = 16;
/**
 * Longer than a thousand identities that are due at once take; after this time one later write at a time is let
 * through.
 */
const PATIENCE_MS = 5_000;
/** Several times the interval between two urgent writes of many; a CA that hangs for longer delays nobody. */
const LINGER_MS = 250;

/**
 * Lets the writes that the gateway waits for go first: a status costs the API server three times as much as a Secret,
 * and is for people. Later writes wait while urgent ones are in flight, and for a moment afterwards if more are coming,
 * but never indefinitely. One instance for each agent.
 */
export class WritePriority {
  readonly #clock: Clock;
  /** The time at which each began to wait. */
  readonly #waiting: WaitingList<number, Disposable>;
  #urgent = 0;
  #coming = 0;
  /** When the last urgent write was answered, on the monotonic clock. */
  #answeredAt = Number.NEGATIVE_INFINITY;
  #later = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#waiting = new WaitingList((waiting) => this.#admit(waiting), clock);
  }

  /** Announces a write that others wait for; dispose it after the response. */
  urgent(): Disposable {
    this.#urgent += 1;
    return once(() => {
      this.#urgent -= 1;
      this.#answeredAt = this.#clock.monotonic();
      this.#waiting.look();
    });
  }

  /** Announces that an urgent write is likely soon, such as while a certificate is requested. */
  readonly coming = (): Disposable => {
    this.#coming += 1;
    return once(() => {
      this.#coming -= 1;
      this.#waiting.look();
    });
  };

  /** Resolves when a write that nobody waits for may go, in order of request; rejects with the signal's reason. */
  later(signal: AbortSignal): Promise<Disposable> {
    return this.#waiting.join(this.#clock.monotonic(), signal);
  }

  #turn(): Disposable {
    this.#later += 1;
    return once(() => {
      this.#later -= 1;
      this.#waiting.look();
    });
  }

  #admit(waiting: Iterable<Waiting<number, Disposable>>): number | undefined {
    const now = this.#clock.monotonic();
    const lingerMs = this.#coming > 0 ? this.#answeredAt + LINGER_MS - now : 0;
    const isCalm = this.#urgent === 0 && lingerMs <= 0;
    for (const { about: since, admit } of waiting) {
      const leftMs = since + PATIENCE_MS - now;
      const most = isCalm ? AT_ONCE : leftMs <= 0 ? 1 : 0;
      if (this.#later >= most) {
        if (most > 0) return undefined;
        return this.#urgent === 0 ? Math.min(leftMs, lingerMs) : leftMs;
      }
      admit(this.#turn());
    }
    return undefined;
  }
}
