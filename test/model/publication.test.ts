import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HISTORIES } from './histories.ts';
import { KeyPool } from './pool.ts';
import { anyStep, anyWorld, type Step, take } from './steps.ts';
import { World, type WorldOptions } from './world.ts';

/** `npm run test:model` asks for more. */
const RUNS = Number(process.env.MESHCERT_MODEL_RUNS ?? 300);
/** With the path that a failure printed, that very history runs again. */
/** The everyday suite asks the same histories each time; `npm run test:model` looks for new ones. */
const EVERYDAY_SEED = 951;
const SEED = Number(
  process.env.MESHCERT_MODEL_SEED ?? (process.env.MESHCERT_MODEL_RUNS ? Date.now() % 2 ** 31 : EVERYDAY_SEED),
);
const PATH = process.env.MESHCERT_MODEL_PATH;
/** Off where only the verdict counts, since finding the smallest history takes a while. */
const SHRINK = process.env.MESHCERT_MODEL_SHRINK !== '0';
const STEPS = { minLength: 50, maxLength: 80 };

const keys = new KeyPool();

test('through any history of rotations and faults, nothing that works is broken and all comes right in the end', async (t) => {
  const counts = new Map<string, number>();
  let runs = 0;
  t.diagnostic(`seed ${SEED}, ${RUNS} runs of ${STEPS.minLength} to ${STEPS.maxLength} steps`);
  await fc.assert(
    fc.asyncProperty(anyWorld, fc.array(anyStep, { ...STEPS, size: 'max' }), async (options, steps) => {
      const world = new World({ ...options, keys });
      await world.elect('a');
      await world.deliver('all');
      for (const step of steps) {
        await take(world, step);
        world.ledger.check();
      }
      await world.converge();
      world.ledger.check();
      runs += 1;
      for (const [what, count] of world.ledger.counts) counts.set(what, (counts.get(what) ?? 0) + count);
    }),
    {
      numRuns: RUNS,
      seed: SEED,
      examples: [...HISTORIES],
      endOnFailure: !SHRINK,
      asyncReporter: report,
      ...(PATH === undefined ? {} : { path: PATH }),
    },
  );
  for (const what of [...counts.keys()].sort()) t.diagnostic(`${what}: ${counts.get(what)}`);
  if (PATH === undefined) assert.equal(runs, RUNS);
});

/** The steps that matter, and how to see them again. */
async function report({
  failed,
  seed,
  counterexamplePath,
  counterexample,
  errorInstance,
}: fc.RunDetails<[Omit<WorldOptions, 'keys'>, Step[]]>): Promise<void> {
  if (!failed) return;
  const [options, steps = []] = counterexample ?? [];
  const told = steps.filter((step) => step.do !== 'nothing').map((step) => `  ${JSON.stringify(step)}`);
  throw new Error(
    [
      `after these ${told.length} steps: ${errorInstance instanceof Error ? errorInstance.message : errorInstance}`,
      `  ${JSON.stringify(options)}`,
      ...told,
      `again: MESHCERT_MODEL_SEED=${seed} MESHCERT_MODEL_PATH=${counterexamplePath} npm test -- test/model`,
    ].join('\n'),
    { cause: errorInstance },
  );
}
