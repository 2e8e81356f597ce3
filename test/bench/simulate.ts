import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ROOT } from '../../scripts/tree.ts';
import { costTable } from './costs.ts';
import { number } from './report.ts';
import { type SimulationOptions, simulate } from './simulation.ts';

const USAGE = `usage: npm run simulate -- [--identities N] [--days N] [--life HOURS] [--json] [--write]

Runs the agent's own schedule, backoff, budget and spread of root changes for a
fleet on a virtual clock, and computes what fleets cost a day. --write puts
both tables into docs/scale.md.
`;

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** First issues that one process makes Ready a second, on half of two cores: `first` in docs/contributing/benchmarks.md. */
const CAPACITY = 45;
const { values } = parseArgs({
  options: {
    identities: { type: 'string', default: '100000' },
    days: { type: 'string', default: '7' },
    life: { type: 'string', default: '24' },
    json: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (values.help) process.stdout.write(USAGE);
else await main();

async function main(): Promise<void> {
  const base = {
    identities: Number(values.identities),
    days: Number(values.days),
    leafLifetimeMs: Number(values.life) * HOUR,
    shards: 1,
    start: 'grown',
  } satisfies SimulationOptions;
  const middle = (base.days / 2) * DAY;
  const cases: readonly (readonly [string, SimulationOptions])[] = [
    ['nothing happens', base],
    ['new, and the agents start', { ...base, start: 'new', capacity: CAPACITY }],
    [
      'new, and the CA is unavailable for the first hour',
      { ...base, start: 'new', capacity: CAPACITY, outage: [0, HOUR] },
    ],
    ['all created in one minute', { ...base, start: 'born' }],
    ['the CA is unavailable for an hour', { ...base, outage: [middle, middle + HOUR] }],
    ['every process restarts', { ...base, restartAt: middle }],
    ['the mesh names another root', { ...base, rootsChangeAt: middle }],
  ];
  const rows: { what: string; shards: number; result: ReturnType<typeof simulate> }[] = [];
  for (const [what, options] of cases) {
    for (const shards of what === 'nothing happens' ? [1, 2, 4, 8, 16, 32] : [1, 8, 32]) {
      rows.push({ what, shards, result: simulate({ ...options, shards }) });
      process.stderr.write(`simulate: ${what}, ${shards} shard(s)\n`);
    }
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ ...base, rows }, null, 2)}\n`);
  const lines = [
    '| what happens | shards | issued | failed | expired | median /s | peak /s | peak /s of a shard | busiest minute ÷ even | over after |',
    '|---|---|---|---|---|---|---|---|---|---|',
    ...rows.map(({ what, shards, result: r }) => {
      const counts = [r.issued, r.failed, r.expired, r.median, r.peak, r.peakOfShard].map(number);
      const over = r.recovery === undefined ? '' : `${number(r.recovery)} s`;
      return `| ${[what, shards, ...counts, number(r.burst), over].join(' | ')} |`;
    }),
  ];
  const table = lines.join('\n');
  const costs = costTable([10, 1_000, 100_000], base.leafLifetimeMs);
  if (!values.json) process.stdout.write(`${table}\n\n${costs}\n`);
  if (!values.write) return;
  const even = number(base.identities / ((base.leafLifetimeMs * 0.63) / 1000));
  const about = `${number(base.identities)} identities, leaves of ${values.life} h, ${values.days} days; an even spread is ${even} requests a second.`;
  await replace('simulate', `${about}\n\n${table}`);
  await replace('costs', costs);
}

/** Puts `text` between the marks of this name in docs/scale.md. */
async function replace(name: string, text: string): Promise<void> {
  const path = join(ROOT, 'docs/scale.md');
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`];
  const whole = await readFile(path, 'utf8');
  const [before] = whole.split(begin);
  const after = whole.split(end)[1];
  if (before === undefined || after === undefined) throw new Error(`${path} has no place for ${name}`);
  await writeFile(path, `${before}${begin}\n${text}\n${end}${after}`);
}
