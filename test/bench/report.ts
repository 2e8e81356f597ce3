import { cpus, totalmem } from 'node:os';
import type { Count, Findings, Row, Scenario } from './scenario.ts';
import type { Summary } from './statistics.ts';

export interface Outcome {
  readonly scenario: Pick<Scenario, 'id' | 'title' | 'same'>;
  readonly seconds: number;
  readonly findings?: Findings;
  /** Why it could not run. */
  readonly missing?: string;
}

export interface Report {
  readonly environment: Readonly<Record<string, string | number>>;
  readonly outcomes: readonly Outcome[];
}

/** `api`: the API server of the measurement, or why it was not the real one. */
export function environment(sizes: string, api: string) {
  return {
    date: new Date().toISOString().slice(0, 10),
    cpus: cpus().length,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.versions.node,
    platform: `${process.platform} ${process.arch}`,
    sizes,
    api,
  };
}

export const number = (value: number): string => {
  if (!Number.isFinite(value)) return '–';
  if (Number.isInteger(value) && Math.abs(value) < 1000) return String(value);
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString('en-US');
  return size >= 100
    ? value.toFixed(0)
    : size >= 10
      ? value.toFixed(1)
      : size >= 0.1
        ? value.toFixed(2)
        : value.toPrecision(2);
};

const spread = ({ min, median, max, count }: Summary): string =>
  count === 1 ? number(median) : `${number(median)} (${number(min)} – ${number(max)})`;

const verdict = ({ budget, met }: Row): string =>
  budget === undefined ? '' : `${budget} ${met ? 'met' : '**missed**'}`;

export function markdown(outcome: Outcome): string {
  const { scenario, findings, missing } = outcome;
  const lines = [`### \`${scenario.id}\`: ${scenario.title}`, '', scenario.same, ''];
  if (missing !== undefined) lines.push(`Not measured here: ${missing}`, '');
  if (findings && findings.rows.length > 0) {
    lines.push('| what | unit | meshcert | against | ratio | spread of ratio | budget |');
    lines.push('|---|---|---|---|---|---|---|');
    for (const row of findings.rows) {
      const cells = [
        row.what,
        row.unit,
        spread(row.ours),
        row.theirs ? spread(row.theirs) : '',
        row.ratio ? spread(row.ratio) : '',
        row.ratio && row.ratio.count > 1 ? `${number(row.ratio.spread * 100)} %` : '',
        verdict(row),
      ];
      lines.push(`| ${cells.join(' | ')} |`);
    }
    lines.push('');
  }
  if (findings && findings.counts.length > 0) {
    lines.push('| counted | value | limit |', '|---|---|---|');
    for (const count of findings.counts) lines.push(`| ${count.what} | ${number(count.value)} | ${limitOf(count)} |`);
    lines.push('');
  }
  for (const note of findings?.notes ?? []) lines.push(`- ${note}`);
  if (findings && findings.notes.length > 0) lines.push('');
  return lines.join('\n');
}

const limitOf = ({ value, limit }: Count): string =>
  limit === undefined ? '' : `≤ ${number(limit)} ${value <= limit ? 'met' : '**exceeded**'}`;

/** The counts that are over their limit: these fail the run, times never do. */
export const broken = ({ outcomes }: Report): readonly Count[] =>
  outcomes
    .flatMap(({ findings }) => findings?.counts ?? [])
    .filter(({ value, limit }) => limit !== undefined && value > limit);

/** The sections of a document, by scenario. */
function sectionsOf(text: string): Map<string, string> {
  const parts = text.split(/^(?=### `)/m).filter((part) => part.startsWith('### `'));
  return new Map(parts.map((part) => [/^### `([^`]+)`/.exec(part)?.[1] ?? '', part.trimEnd()]));
}

const placeOf = ({ date, cpus: cores, cpu, memoryGiB, node, platform }: Report['environment']): string =>
  `Measured on ${date}: ${cores} CPUs (${cpu}), ${memoryGiB} GiB, ${platform}, Node ${node}.`;

/** The whole document: sections that were not measured now stay unchanged, in the order of `ids`. */
export function document({ environment, outcomes }: Report, ids: readonly string[], before: string): string {
  const sections = sectionsOf(before);
  for (const outcome of outcomes) {
    sections.set(outcome.scenario.id, `${markdown(outcome).trimEnd()}\n\n${placeOf(environment)}`);
  }
  const all = ids.flatMap((id) => sections.get(id) ?? []);
  return `# Benchmarks

Written by \`npm run bench -- --write\`, each section by the last run of its scenario; edits are lost. API server, etcd, CA and the other side were on the same cores.

**Every time is a ratio of two things that were measured in turn in the same run**, because a time alone says more about the machine than about the program. Cells are *median (minimum – maximum)*; the spread of the ratio, (max − min) / median, says how much of a difference is noise. Counts (requests, writes, certificates) come from the API server's audit log and from the CA. They are exact, and the run fails if one exceeds its limit. Times never make a run fail.

\`npm run bench\` runs all scenarios by the Node.js of the image, \`npm run bench -- due push\` some of them, \`--quick\` uses smaller sizes, and \`--json\` is for programs. \`test/peers/build.ts\` builds the programs for comparison; the report names those that cannot be built.

${all.join('\n\n')}
`;
}
