import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { nativeArchitecture } from '../../scripts/image/oci.ts';
import { CACHE, nodeOf } from '../../scripts/image/sources.ts';
import { run } from '../../scripts/run.ts';
import { ROOT } from '../../scripts/tree.ts';
import { peer } from '../peers/build.ts';
import { Fleets } from './fleets.ts';
import { broken, document, environment, markdown, type Outcome } from './report.ts';
import { Missing, type Scenario, type Sizes } from './scenario.ts';
import { certManager } from './scenarios/cert-manager.ts';
import { consulTemplate } from './scenarios/consul-template.ts';
import { due } from './scenarios/due.ts';
import { first } from './scenarios/first.ts';
import { idle } from './scenarios/idle.ts';
import { mass } from './scenarios/mass.ts';
import { memory } from './scenarios/memory.ts';
import { micro } from './scenarios/micro.ts';
import { node } from './scenarios/node.ts';
import { outage } from './scenarios/outage.ts';
import { push } from './scenarios/push.ts';
import { shards } from './scenarios/shards.ts';
import { spiffeHelper } from './scenarios/spiffe-helper.ts';
import { start } from './scenarios/start.ts';
import { status } from './scenarios/status.ts';

const SCENARIOS: readonly Scenario[] = [
  micro,
  due,
  first,
  certManager,
  mass,
  outage,
  node,
  start,
  push,
  idle,
  memory,
  status,
  shards,
  spiffeHelper,
  consulTemplate,
];

const DEFAULT: Sizes = {
  due: 1000,
  first: [100, 500, 2000],
  certManager: [
    ['names', 500],
    ['labels', 2000],
  ],
  helpers: [1, 10],
  helperSeconds: 40,
  consulRounds: 3,
  dueSandbox: 0,
  awayMs: 60_000,
  outage: 200,
  rounds: 3,
  pushes: 500,
  idleSeconds: 30,
  memory: [1, 100, 1000],
  flat: 1000,
  micro: 5,
  events: 10_000,
  starts: 5,
};
const QUICK: Sizes = {
  due: 200,
  first: [100],
  certManager: [['names', 50]],
  helpers: [1],
  helperSeconds: 25,
  consulRounds: 1,
  dueSandbox: 0,
  awayMs: 5_000,
  outage: 20,
  rounds: 2,
  pushes: 20,
  idleSeconds: 5,
  memory: [1, 100],
  flat: 100,
  micro: 3,
  events: 5000,
  starts: 3,
};
const FULL: Sizes = {
  ...DEFAULT,
  first: [100, 500, 2000, 10_000],
  helpers: [1, 10, 30],
  helperSeconds: 60,
  consulRounds: 10,
  dueSandbox: 10_000,
  awayMs: 3_600_000,
  outage: 1_000,
  rounds: 5,
  pushes: 1000,
  idleSeconds: 120,
  memory: [1, 100, 1000, 10_000],
  micro: 9,
  events: 50_000,
  starts: 9,
};

const USAGE = `usage: npm run bench -- [ID…] [--quick | --full] [--json] [--write] [--sandbox]

${SCENARIOS.map(({ id, title }) => `  ${id.padEnd(16)} ${title}`).join('\n')}

  --quick    smaller sizes, for a first look
  --full     larger sizes and more rounds, 10,000 identities in the sandbox
  --json     one JSON document on stdout
  --write    also write docs/contributing/benchmarks.md
  --sandbox  use no real API server
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: 'boolean', default: false },
    full: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    sandbox: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (values.help) process.stdout.write(USAGE);
else process.exitCode = (await byImage()) || process.exitCode;

/** Both sides of every comparison run by the Node.js of the image, which is what ships, or by this one where it is missing. */
async function byImage(): Promise<number> {
  const node = await nodeOf(nativeArchitecture, CACHE).then(
    (directory) => join(directory, 'node'),
    () => process.execPath,
  );
  if (node === process.execPath) return await main();
  return await run(node, ['--import', 'tsx', fileURLToPath(import.meta.url), ...process.argv.slice(2)]);
}

async function main(): Promise<number> {
  const unknown = positionals.filter((id) => !SCENARIOS.some((scenario) => scenario.id === id));
  if (unknown.length > 0) {
    process.stderr.write(`no scenario ${unknown.join(', ')}\n\n${USAGE}`);
    return 2;
  }
  const chosen = SCENARIOS.filter(({ id }) => positionals.length === 0 || positionals.includes(id));
  const sizes = values.quick ? QUICK : values.full ? FULL : DEFAULT;
  const outcomes: Outcome[] = [];
  await using fleets = new Fleets(values.sandbox ? 'left out by --sandbox' : await apiserverMissing());
  for (const scenario of chosen) {
    const started = performance.now();
    const say = (text: string) => process.stderr.write(`${scenario.id}: ${text}\n`);
    const outcome = await play(scenario, { sizes, fleets, say });
    const seconds = (performance.now() - started) / 1000;
    outcomes.push({ scenario: { id: scenario.id, title: scenario.title, same: scenario.same }, seconds, ...outcome });
    say(`done in ${seconds.toFixed(0)} s`);
    const last = outcomes.at(-1);
    if (!values.json && last) process.stdout.write(`${markdown(last)}\n`);
  }
  const api = fleets.missing === undefined ? 'kube-apiserver' : `sandbox; ${fleets.missing}`;
  const report = { environment: environment(values.quick ? 'quick' : values.full ? 'full' : 'default', api), outcomes };
  if (values.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else
    process.stdout.write(
      `${Object.entries(report.environment)
        .map((pair) => pair.join(' '))
        .join(', ')}\n`,
    );
  if (values.write) {
    const path = join(ROOT, 'docs/contributing/benchmarks.md');
    const ids = SCENARIOS.map(({ id }) => id);
    const before = await readFile(path, 'utf8').catch(() => '');
    await writeFile(path, document(report, ids, before));
  }
  for (const { what, value, limit } of broken(report))
    process.stderr.write(`over its limit of ${limit}: ${what}: ${value}\n`);
  return broken(report).length === 0 ? 0 : 1;
}

async function play(
  scenario: Scenario,
  context: Parameters<Scenario['run']>[0],
): Promise<Pick<Outcome, 'findings' | 'missing'>> {
  try {
    return { findings: await scenario.run(context) };
  } catch (error) {
    if (error instanceof Missing) return { missing: error.message };
    process.exitCode = 1;
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
    return { missing: `it failed: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}` };
  }
}

async function apiserverMissing(): Promise<string | undefined> {
  try {
    await peer('kube-apiserver');
    await peer('etcd');
    return undefined;
  } catch (error) {
    return `the real API server is missing: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`;
  }
}
