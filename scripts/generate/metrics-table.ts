import { type Definition, METRICS } from '../../src/telemetry/metrics.ts';

/** docs/reference/metrics.md. */
export function renderMetrics(): string {
  const rows = Object.values<Definition>(METRICS).map(
    ({ name, type, labels, help }) =>
      `| \`${name}\` | ${type} | ${labels.map((label) => `\`${label}\``).join(' ')} | ${help} |`,
  );
  return `# Metrics

Generated from the code by \`npm run gen\`. [metrics.md](../metrics.md) says how to scrape them, and has queries and alerts.

| name | type | labels | meaning |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}
