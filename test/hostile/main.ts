import { parseArgs } from 'node:util';
import { bundle } from '../../scripts/build.ts';
import { ATTACKS, TEXT_ATTACKS } from './attacks.ts';
import { siege } from './siege.ts';

/** Runs each attack by itself against a separate process: its cost in memory, and its effect. */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { bundle: { type: 'string' }, patience: { type: 'string', default: '20' }, lines: { type: 'boolean' } },
});
const file = values.bundle ?? (await bundle());
const wanted = [...ATTACKS, ...TEXT_ATTACKS].filter(
  ({ name }) => positionals.length === 0 || positionals.some((word) => name.includes(word)),
);
for (const attack of [undefined, ...wanted]) {
  const attacks = attack ? [attack] : [];
  const result = await siege({ bundle: file, attacks, rotations: 3, patienceMs: Number(values.patience) * 1000 });
  const { survived, peakMiB, cpuSeconds, probes, rotations, missing, stderr } = result;
  const columns = [
    (attack?.name ?? 'none').padEnd(28),
    survived ? 'lives' : 'DEAD ',
    `${Math.round(peakMiB ?? 0)} MiB`.padStart(8),
    `${(cpuSeconds ?? 0).toFixed(1)} s CPU`.padStart(10),
    `healthz ${probes.sent - probes.failed}/${probes.sent}, slowest ${Math.round(probes.slowestMs)} ms`.padEnd(36),
    `${rotations} rotations`,
    missing.length > 0 ? `MISSING ${missing.join('; ').slice(0, 300)}` : '',
    survived ? '' : (stderr.split('\n').find((line) => /^\w*Error\b/.test(line)) ?? ''),
  ];
  process.stdout.write(`${columns.join('  ').trimEnd()}\n`);
  if (values.lines) for (const line of result.lines) process.stdout.write(`  ${JSON.stringify(line).slice(0, 300)}\n`);
}
