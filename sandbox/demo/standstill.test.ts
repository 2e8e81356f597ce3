import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Standstill } from './standstill.ts';

const LIFE = 10_000;

/** A process whose wall clock and CPU time the test moves. */
class Machine {
  readonly stood: number[] = [];
  readonly total = { ms: 0 };
  readonly standstill: Standstill;
  /** How long the machine stands still in each of the next sleeps, ms. */
  readonly stops: number[] = [];
  readonly slept: number[] = [];
  #now = Date.parse('2026-01-01T00:00:00Z');
  #cpuMs = 0;

  constructor() {
    const clock = { now: () => this.#now, sleep: (ms: number) => this.sleep(ms) };
    this.standstill = new Standstill(
      clock,
      LIFE,
      this.total,
      (ms) => this.stood.push(ms),
      () => this.#cpuMs,
    );
  }

  get now(): number {
    return this.#now;
  }

  /** Time passes; the process had the CPU for `cpuMs` of it. */
  pass(ms: number, cpuMs = 0): void {
    this.#now += ms;
    this.#cpuMs += cpuMs;
  }

  async sleep(ms: number): Promise<void> {
    this.slept.push(ms);
    this.pass(100 + (this.stops.shift() ?? 0));
    this.explains({ ended: false });
    this.run(ms);
  }

  /** It runs for a while and looks as often as it should. */
  run(ms: number): void {
    for (let passed = 0; passed < ms; passed += 100) {
      this.pass(101, 20);
      this.explains({ ended: false });
    }
  }

  explains({ since = this.#now, ended }: { since?: number; ended: boolean }): boolean {
    return this.standstill.explains({ since, ended });
  }
}

test('a certificate that ended while the process ran is a failure of the product', () => {
  const machine = new Machine();
  machine.run(LIFE);
  assert.equal(machine.explains({ ended: true }), false);
  assert.equal(machine.total.ms, 0);
});

test('a certificate that ended because the process did not run is not, for as long as a leaf of that time would live', () => {
  const machine = new Machine();
  machine.pass(100 + 7_000);
  assert.equal(machine.explains({ ended: true }), true);
  assert.deepEqual(machine.stood, [7_000]);
  machine.run(LIFE + 1_000);
  assert.equal(machine.explains({ ended: true }), false);
  assert.equal(machine.total.ms, 7_000);
});

test('any other failure counts, however long the process stood still, unless the request was longer than any leaf', () => {
  const machine = new Machine();
  const since = machine.now;
  machine.pass(100 + 9_999);
  assert.equal(machine.explains({ since, ended: false }), false);
  machine.pass(200);
  assert.equal(machine.explains({ since, ended: false }), true);
  assert.equal(machine.explains({ ended: false }), false);
});

test('many short periods add up, as on a machine that others keep busy', () => {
  const machine = new Machine();
  for (let turn = 0; turn < 3; turn++) {
    machine.pass(100 + 300);
    assert.equal(machine.explains({ ended: true }), false);
  }
  machine.pass(100 + 300);
  assert.equal(machine.explains({ ended: true }), true);
  assert.deepEqual(machine.stood, []);
});

test('time in which the process itself is busy is its own fault', () => {
  const machine = new Machine();
  machine.pass(8_000, 7_900);
  assert.equal(machine.explains({ ended: true }), false);
});

test('who waits until the process has run for a time waits longer by what it stood still', async () => {
  const machine = new Machine();
  machine.stops.push(6_000, 2_000);
  await machine.standstill.running(5_000, new AbortController().signal);
  assert.deepEqual(machine.slept, [5_000, 6_000, 2_000]);
});
