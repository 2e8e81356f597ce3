import { type Definition, METRICS } from '../../src/telemetry/metrics.ts';

/** The table of docs/metrics.md. */
export function renderMetrics(): string {
  const rows = Object.values<Definition>(METRICS).map(
    ({ name, type, labels, help }) =>
      `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(' ')} | ${help} |`,
  );
  return `| name | type | labels | meaning |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}
