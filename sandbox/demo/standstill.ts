import type { Clock } from '../../src/async/clock.ts';

/** A process that runs looks again within some milliseconds of this. */
const LOOK_EVERY_MS = 100;
/** Timers and other programs cost a process that runs less than this between two looks. */
const USUAL_MS = 50;
/** In the last tenth of a leaf's life the agent may still hold its successor back; less than that loses no certificate. */
const SHARE_OF_LIFE = 0.1;

/** CPU time of this process, milliseconds. */
const ownCpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

interface StoodPeriod {
  readonly end: number;
  readonly ms: number;
}

/** What is known of a failure. */
export interface RequestFailure {
  /** When the request began, epoch ms. */
  readonly since: number;
  /** A certificate had ended. */
  readonly ended: boolean;
}

/**
 * The time during which this process did not run: it was stopped, the machine was suspended, or others had the CPU. Time
 * in which this process itself was busy does not count. Certificates end meanwhile, and nobody can renew them.
 */
export class Standstill {
  readonly #total: { ms: number };
  readonly #clock: Pick<Clock, 'now' | 'sleep'>;
  readonly #leafLifetimeMs: number;
  readonly #cpuMs: () => number;
  readonly #stood: (ms: number) => void;
  #periods: StoodPeriod[] = [];
  #lookedAt: number;
  #cpuThen: number;

  /** Adds up in `total`; `stood` is called for each period that may cost a certificate. */
  constructor(
    clock: Pick<Clock, 'now' | 'sleep'>,
    leafLifetimeMs: number,
    total: { ms: number },
    stood: (ms: number) => void,
    cpuMs: () => number = ownCpuMs,
  ) {
    this.#clock = clock;
    this.#leafLifetimeMs = leafLifetimeMs;
    this.#total = total;
    this.#stood = stood;
    this.#cpuMs = cpuMs;
    this.#lookedAt = clock.now();
    this.#cpuThen = cpuMs();
  }

  /** Looks until the signal is aborted, with whose reason it rejects. */
  async watch(signal: AbortSignal): Promise<never> {
    for (;;) {
      await this.#clock.sleep(LOOK_EVERY_MS, signal);
      this.#look();
    }
  }

  /** Resolves when this process has run for so long; rejects with the signal's reason when aborted first. */
  async running(ms: number, signal: AbortSignal): Promise<void> {
    for (let left = ms; left > 0; ) {
      this.#look();
      const before = this.#total.ms;
      await this.#clock.sleep(left, signal);
      this.#look();
      left = this.#total.ms - before;
    }
  }

  /** Whether a failure is due to this: a certificate ended meanwhile, or a request lasted for longer than any lives. */
  explains({ since, ended }: RequestFailure): boolean {
    this.#look();
    const life = this.#leafLifetimeMs;
    return this.#since(since) >= life || (ended && this.#since(this.#clock.now() - life) >= life * SHARE_OF_LIFE);
  }

  /** Of the time from `from` until now, ms. */
  #since(from: number): number {
    return this.#periods.reduce((sum, { end, ms }) => sum + Math.max(0, Math.min(ms, end - from)), 0);
  }

  #look(): void {
    const [now, cpu] = [this.#clock.now(), this.#cpuMs()];
    const ms = now - this.#lookedAt - LOOK_EVERY_MS - (cpu - this.#cpuThen);
    this.#lookedAt = now;
    this.#cpuThen = cpu;
    if (ms < USUAL_MS) return;
    this.#total.ms += ms;
    this.#periods = [...this.#periods.filter(({ end }) => end > now - 2 * this.#leafLifetimeMs), { end: now, ms }];
    if (ms >= this.#leafLifetimeMs * SHARE_OF_LIFE) this.#stood(ms);
  }
}
