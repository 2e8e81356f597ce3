import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { HISTORIES } from './histories.ts';
import type { Observed } from './ledger.ts';
import { KeyPool } from './pool.ts';
import { anyStep, anyWorld, type Step, take } from './steps.ts';
import { World, type WorldOptions } from './world.ts';

export interface HistoryOptions {
  readonly runs: number;
  readonly seed: number;
  /** Judges what the API showed in one history; rejects when an upstream would refuse it. */
  readonly judge: (observed: readonly Observed[]) => Promise<void>;
}

const STEPS = { minLength: 50, maxLength: 80 };
const keys = new KeyPool();

/**
 * Runs random histories; after each step, and for all that was written, every guarantee must hold. A suite plays the
 * same ones each time. `MESHCERT_MODEL_RUNS` asks for that many new ones, `MESHCERT_MODEL_SEED` and
 * `MESHCERT_MODEL_PATH` for the one that a failure printed, and `MESHCERT_MODEL_SHRINK=0` for the verdict alone, since
 * the smallest history takes a while to find.
 */
export async function checkHistories(t: TestContext, { judge, ...everyday }: HistoryOptions): Promise<void> {
  const {
    MESHCERT_MODEL_RUNS: asked,
    MESHCERT_MODEL_PATH: path,
    MESHCERT_MODEL_SEED,
    MESHCERT_MODEL_SHRINK,
  } = process.env;
  const runs = Number(asked ?? everyday.runs);
  const seed = Number(MESHCERT_MODEL_SEED ?? (asked ? Date.now() % 2 ** 31 : everyday.seed));
  const counts = new Map<string, number>();
  let done = 0;
  let judged = 0;
  t.diagnostic(`seed ${seed}, ${runs} runs of ${STEPS.minLength} to ${STEPS.maxLength} steps`);
  await fc.assert(
    fc.asyncProperty(anyWorld, fc.array(anyStep, { ...STEPS, size: 'max' }), async (world, steps) => {
      const { ledger } = await play(world, steps);
      await judge(ledger.observed);
      done += 1;
      judged += ledger.observed.length;
      for (const [what, count] of ledger.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    }),
    {
      numRuns: runs,
      seed,
      examples: [...HISTORIES],
      endOnFailure: MESHCERT_MODEL_SHRINK === '0',
      asyncReporter: report,
      ...(path === undefined ? {} : { path }),
    },
  );
  for (const what of [...counts.keys()].sort()) t.diagnostic(`${what}: ${counts.get(what)}`);
  t.diagnostic(`${judged} pairs with bundles were written`);
  assert.ok(judged > 0, 'nothing was written that could be judged');
  if (path === undefined) assert.equal(done, runs);
}

async function play(options: Omit<WorldOptions, 'keys'>, steps: readonly Step[]): Promise<World> {
  const world = new World({ ...options, keys });
  await world.elect('a');
  await world.deliver('all');
  for (const step of steps) {
    await take(world, step);
    world.ledger.check();
  }
  await world.converge();
  world.ledger.check();
  return world;
}

/** The relevant steps, and how to reproduce them. */
async function report({
  failed,
  seed,
  counterexamplePath,
  counterexample,
  errorInstance,
}: fc.RunDetails<[Omit<WorldOptions, 'keys'>, Step[]]>): Promise<void> {
  if (!failed) return;
  const [options, steps = []] = counterexample ?? [];
  const shown = steps.filter((step) => step.do !== 'nothing').map((step) => `  ${JSON.stringify(step)}`);
  throw new Error(
    [
      `after these ${shown.length} steps: ${errorInstance instanceof Error ? errorInstance.message : errorInstance}`,
      `  ${JSON.stringify(options)}`,
      ...shown,
      `again: MESHCERT_MODEL_SEED=${seed} MESHCERT_MODEL_PATH=${counterexamplePath} npm test -- test/model`,
    ].join('\n'),
    { cause: errorInstance },
  );
}
