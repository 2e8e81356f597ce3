import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { goodStatus } from '../../src/http/board.fixture.ts';
import { METRICS } from '../../src/telemetry/definitions.ts';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { deriveSeries } from '../../src/telemetry/observed.ts';
import type { Metric } from '../../src/telemetry/registry.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ALERTS = join(ROOT, 'deploy/alerts');
const run = promisify(execFile);

/** The text format with something in every metric. */
function exposition(): string {
  const metrics = createMetrics({ version: '1.2.3' });
  const now = Date.UTC(2026, 0, 1);
  deriveSeries(metrics, () => [
    {
      namespace: 'emissary',
      name: 'istio',
      status: goodStatus(now),
      ...{ breakerOpen: false, lastSuccess: now, leaves: 1, bundles: 1 },
    },
  ]);
  for (const metric of Object.values(metrics) as unknown[]) {
    if (typeof metric === 'function') continue;
    const { definition } = metric as Metric;
    const labels = Object.fromEntries(definition.labels.map((label) => [label, `a "quoted" \\ value\nof ${label}`]));
    if (definition.type === 'histogram') (metric as Metric).observe(labels, 0.3);
    else (metric as Metric).inc(labels);
  }
  return metrics.expose();
}

test('promtool has nothing to say about our metrics', async () => {
  const child = spawn('promtool', ['check', 'metrics'], { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  child.stdin.end(exposition());
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
  assert.deepEqual([said, code], ['', 0]);
});

test('the alert rules are good and fire when they should', async () => {
  await run('promtool', ['check', 'rules', 'meshcert.yaml'], { cwd: ALERTS });
  const { stdout } = await run('promtool', ['test', 'rules', 'meshcert.test.yaml'], { cwd: ALERTS });
  assert.match(stdout, /SUCCESS/);
});

test('every alert is tested', async () => {
  const rules = await readFile(join(ALERTS, 'meshcert.yaml'), 'utf8');
  const tests = await readFile(join(ALERTS, 'meshcert.test.yaml'), 'utf8');
  for (const [, name] of rules.matchAll(/- alert: (\w+)/g)) assert.match(tests, new RegExp(`"?${name}\\b`), name);
});

test('alerts and dashboard ask for metrics that exist', async () => {
  const known = new Set<string>(
    Object.values(METRICS).flatMap(({ name, type }) =>
      type === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    ),
  );
  for (const file of ['deploy/alerts/meshcert.yaml', 'deploy/grafana/meshcert.json']) {
    const text = await readFile(join(ROOT, file), 'utf8');
    const asked = new Set(text.match(/\b(meshcert|process)_[a-z_]+/g));
    assert.ok(asked.size > 5);
    for (const name of asked) assert.ok(known.has(name), `${file}: ${name}`);
  }
});
