import { type Clock, sleepOn } from '../../src/async/clock.ts';

interface Sleeper {
  readonly at: number;
  readonly wake: () => void;
}

/** A clock that moves only on request; the wall and the monotonic clock may be moved separately. */
export class FakeClock implements Clock {
  #wall: number;
  #monotonic = 0;
  #sleepers = new Set<Sleeper>();
  #onSleep = new Set<() => void>();

  constructor(wall: number = Date.parse('2026-01-01T00:00:00Z')) {
    this.#wall = wall;
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  /** How many sleeps and other waits are pending. */
  get sleeping(): number {
    return this.#sleepers.size;
  }

  /** Milliseconds until the earliest sleeper wakes, or undefined. */
  get nextIn(): number | undefined {
    const times = [...this.#sleepers].map((sleeper) => sleeper.at - this.#monotonic);
    return times.length === 0 ? undefined : Math.max(0, Math.min(...times));
  }

  /** Milliseconds until the last sleeper wakes, or undefined. */
  get longestIn(): number | undefined {
    const times = [...this.#sleepers].map((sleeper) => sleeper.at - this.#monotonic);
    return times.length === 0 ? undefined : Math.max(...times);
  }

  after(ms: number, act: () => void): () => void {
    const sleeper: Sleeper = {
      at: this.#monotonic + Math.max(0, ms),
      wake: () => {
        this.#sleepers.delete(sleeper);
        act();
      },
    };
    this.#sleepers.add(sleeper);
    for (const notify of [...this.#onSleep]) notify();
    return () => this.#sleepers.delete(sleeper);
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  /** Resolves once at least `count` sleeps are pending. */
  async untilSleeping(count = 1): Promise<void> {
    while (this.#sleepers.size < count) {
      await new Promise<void>((resolve) => {
        const notify = () => {
          this.#onSleep.delete(notify);
          resolve();
        };
        this.#onSleep.add(notify);
      });
    }
  }

  /** Moves both clocks, waking sleepers in the order of their times and letting each run before the next. */
  async advance(ms: number): Promise<void> {
    const target = this.#monotonic + ms;
    for (;;) {
      const next = [...this.#sleepers].filter((s) => s.at <= target).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#wall += next.at - this.#monotonic;
      this.#monotonic = next.at;
      next.wake();
      await settle();
    }
    this.#wall += target - this.#monotonic;
    this.#monotonic = target;
    await settle();
  }

  /** Steps only the wall clock, as an operator or NTP does. */
  step(ms: number): void {
    this.#wall += ms;
  }
}

/** Lets pending promise chains and already queued I/O callbacks run. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
}
