/** What wakes the alarms; Node's own timers, but for tests. */
export interface Waker {
  /** Monotonic milliseconds. */
  now(): number;
  /** Calls `act` once after about `ms`; what it returns takes that back. */
  wake(ms: number, act: () => void): () => void;
}

/** Out of the heap. */
const NOWHERE = -1;

interface Alarm {
  readonly due: number;
  /** Of two that are due at the same time the older goes first. */
  readonly order: number;
  readonly act: () => void;
  place: number;
}

/**
 * Any number of waits on one timer: thousands of certificates wait for hours, each for a time of its own, and a timer
 * of Node's takes four times the memory. A binary heap, so that one is added or taken back in logarithmic time.
 */
export class Alarms {
  readonly #waker: Waker;
  readonly #heap: Alarm[] = [];
  #count = 0;
  /** When the timer is due, and how to take it back. */
  #wakesAt = Number.POSITIVE_INFINITY;
  #cancel: (() => void) | undefined;

  constructor(waker: Waker) {
    this.#waker = waker;
  }

  /** Calls `act` once after `ms`, never before this returns; what it returns takes that back. */
  after(ms: number, act: () => void): () => void {
    const due = this.#waker.now() + Math.max(0, ms || 0);
    const alarm: Alarm = { due, order: this.#count++, act, place: this.#heap.length };
    this.#heap.push(alarm);
    this.#rise(alarm);
    this.#arm();
    return () => this.#remove(alarm);
  }

  #remove(alarm: Alarm): void {
    if (alarm.place === NOWHERE) return;
    const last = this.#heap.pop();
    if (last && last !== alarm) {
      this.#put(last, alarm.place);
      this.#rise(last);
      this.#sink(last);
    }
    alarm.place = NOWHERE;
    // A timer that is early costs less than one that is set anew; the last one would keep the process alive.
    if (this.#heap.length === 0) this.#disarm();
  }

  #arm(): void {
    const [first] = this.#heap;
    if (!first || first.due >= this.#wakesAt) return;
    this.#disarm();
    this.#wakesAt = first.due;
    this.#cancel = this.#waker.wake(Math.max(0, first.due - this.#waker.now()), () => this.#ring());
  }

  #disarm(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#wakesAt = Number.POSITIVE_INFINITY;
  }

  /** Those that are due by now; one that is set meanwhile waits for the next round. */
  #ring(): void {
    this.#disarm();
    const now = this.#waker.now();
    const end = this.#count;
    try {
      for (let [first] = this.#heap; first && first.due <= now && first.order < end; [first] = this.#heap) {
        this.#remove(first);
        first.act();
      }
    } finally {
      this.#arm();
    }
  }

  #rise(alarm: Alarm): void {
    while (alarm.place > 0) {
      const above = this.#heap[(alarm.place - 1) >> 1];
      if (!above || isBefore(above, alarm)) return;
      this.#swap(alarm, above);
    }
  }

  #sink(alarm: Alarm): void {
    for (;;) {
      const left = this.#heap[2 * alarm.place + 1];
      const right = this.#heap[2 * alarm.place + 2];
      const below = left && right && isBefore(right, left) ? right : left;
      if (!below || isBefore(alarm, below)) return;
      this.#swap(alarm, below);
    }
  }

  #swap(one: Alarm, other: Alarm): void {
    const { place } = one;
    this.#put(one, other.place);
    this.#put(other, place);
  }

  #put(alarm: Alarm, place: number): void {
    this.#heap[place] = alarm;
    alarm.place = place;
  }
}

const isBefore = (one: Alarm, other: Alarm): boolean =>
  one.due < other.due || (one.due === other.due && one.order < other.order);
