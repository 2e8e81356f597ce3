import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { it } from 'node:test';
import { RUN_CONFIG } from '../../scripts/image/content.ts';
import { Fleets } from './fleets.ts';
import { startBundle } from './parts/bundle.ts';
import { broken, environment, markdown } from './report.ts';
import type { Context, Sizes } from './scenario.ts';
import { due } from './scenarios/due.ts';
import { first } from './scenarios/first.ts';
import { mass } from './scenarios/mass.ts';
import { flat } from './scenarios/memory.ts';
import { reflectorRow } from './scenarios/reflector.ts';

/** Scenarios that need no peer, at a size that only shows that they run and count. */
const SIZES = { due: 5, first: [3], dueSandbox: 3, rounds: 1, flat: 5, awayMs: 100 } as unknown as Sizes;

it('measures on the sandbox in separate processes, observes every counted limit, and reports what is missing', async () => {
  await using fleets = new Fleets('there is none here');
  const context: Context = { sizes: SIZES, fleets, say: () => {} };
  const findings = await due.run(context);
  const report = { environment: environment('tiny', 'sandbox'), outcomes: [{ scenario: due, seconds: 1, findings }] };
  assert.deepEqual(broken(report), []);
  const counted = findings.counts.filter(({ limit }) => limit !== undefined).map(({ value }) => value);
  assert.deepEqual(counted, [2, 1, 2, 1], 'two requests and one certificate a rotation, in both fleets');
  assert.match(findings.notes.join(), /kube-apiserver: there is none here/);
  assert.match(
    markdown(report.outcomes[0] ?? assert.fail()),
    /sandbox: 5 rotations \| \/s \| [\d.]+ \| [\d.]+ \| [\d.]+ \|/,
  );
});

it('counts the requests of first issues and of what changes at once, by the shipped bundle', async () => {
  await using fleets = new Fleets('there is none here');
  const context: Context = { sizes: SIZES, fleets, say: () => {} };
  const issued = await first.run(context);
  assert.match(issued.notes[0] ?? '', /6 create secrets, 3 create tlscontexts, 3 patch meshcertificates\/status/);
  const changed = await mass.run(context);
  assert.deepEqual(
    changed.counts.map(({ value }) => value),
    [3, 2],
    'two Secrets and a status for a new root, a Secret and a status for a renewal',
  );
  assert.match(changed.rows.at(-3)?.what ?? '', /away for 0.1 s, to the last Secret/);
  const rotated = await flat(context);
  assert.equal(rotated.notes[0]?.split(', ').length, 12, 'a heap before the first of ten rotations and after each');
});

it('runs the bundle with the variables of its image', async () => {
  await using fleets = new Fleets('there is none here');
  const { kubeconfigFile } = await fleets.world('sandbox');
  await using agent = await startBundle(kubeconfigFile, ['-n', 'default', '--no-leader-elect']);
  const environ = (await readFile(`/proc/${agent.pid}/environ`, 'utf8')).split('\0');
  const wanted = RUN_CONFIG.Env?.filter((setting) => !setting.startsWith('PATH=')) ?? [];
  assert.ok(wanted.length > 0);
  assert.deepEqual(
    wanted.filter((setting) => !environ.includes(setting)),
    [],
  );
});

it('finds the last object of a watch in both readers', async () => {
  const { ours, theirs } = await reflectorRow(1, 1_500);
  assert.ok(ours.min > 0 && (theirs?.min ?? 0) > 0);
});
