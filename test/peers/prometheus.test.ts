import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { systemClock } from '../../src/async/clock.ts';
import { startHttp } from '../../src/http/server.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { createMetrics, deriveSeries, type Exposition, METRICS, type Metric } from '../../src/telemetry/metrics.ts';

import { Board, goodStatus } from '../support/board.ts';
import { scratchDir } from './servers/process.ts';
import { type Prometheus, startPrometheus } from './servers/prometheus.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ALERTS = join(ROOT, 'deploy/alerts');
const RULES = ['meshcert', 'independent'];
const run = promisify(execFile);

/** The text format with something in every metric. */
function exposition(format?: Exposition): string {
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
  return metrics.expose(format);
}

test('promtool has no complaint about our metrics', async () => {
  const child = spawn('promtool', ['check', 'metrics'], { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (said += text));
  child.stdin.end(exposition());
  const code = await new Promise((resolve, reject) => child.once('error', reject).once('close', resolve));
  assert.deepEqual([said, code], ['', 0]);
});

test('the alert rules are valid and fire when they should', async () => {
  for (const name of RULES) {
    await run('promtool', ['check', 'rules', `${name}.yaml`], { cwd: ALERTS });
    const { stdout } = await run('promtool', ['test', 'rules', `${name}.test.yaml`], { cwd: ALERTS });
    assert.match(stdout, /SUCCESS/);
  }
});

test('every alert is tested', async () => {
  for (const file of RULES) {
    const rules = await readFile(join(ALERTS, `${file}.yaml`), 'utf8');
    const tests = await readFile(join(ALERTS, `${file}.test.yaml`), 'utf8');
    for (const [, name] of rules.matchAll(/- alert: (\w+)/g)) assert.match(tests, new RegExp(`"?${name}\\b`), name);
  }
});

test('kube-state-metrics is configured to read fields that the definition has, under the names that the rules use', async () => {
  const config = parse(await readFile(join(ALERTS, 'kube-state-metrics.yaml'), 'utf8'));
  const [resource] = config.spec.resources;
  const definition = parse(await readFile(join(ROOT, 'deploy/crd/meshcertificate.yaml'), 'utf8'));
  const { group, names, versions } = definition.spec;
  assert.deepEqual(resource.groupVersionKind, { group, version: versions[0].name, kind: names.kind });
  const rules = await readFile(join(ALERTS, 'independent.yaml'), 'utf8');
  for (const { name, each } of resource.metrics) {
    const [, field] = each.gauge.path;
    assert.equal(versions[0].schema.openAPIV3Schema.properties.status.properties[field].format, 'date-time');
    assert.ok(rules.includes(`${resource.metricNamePrefix}_${name}`), name);
  }
});

test('alerts and dashboard use metrics that exist', async () => {
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

test('a real Prometheus scrapes the agent in OpenMetrics and reads every series', async () => {
  const dir = scratchDir('prometheus');
  let format = '';
  const http = await startHttp({
    allowedHosts: [],
    ...{ host: '127.0.0.1', port: 0, version: '1.2.3', clock: systemClock, log: silentLog },
    source: new Board(),
    health: () => ({ ready: true, problems: [] }),
    metrics: {
      expose: (asked = 'prometheus') => {
        format = asked;
        return exposition(asked);
      },
    },
  });
  interface Targets {
    readonly activeTargets: readonly { readonly health: string; readonly lastError: string }[];
  }
  const scrapedBy = async (ask: Prometheus['ask']) => ((await ask('/api/v1/targets')) as Targets).activeTargets[0];
  const job = {
    job_name: 'meshcert',
    scrape_interval: '1s',
    static_configs: [{ targets: [`127.0.0.1:${http.port}`] }],
  };
  await using server = await startPrometheus(
    dir,
    { scrape_configs: [job] },
    async (ask) => ((await scrapedBy(ask))?.health ?? 'unknown') !== 'unknown',
  );
  try {
    const { health, lastError } = (await scrapedBy(server.ask)) ?? {};
    assert.deepEqual([health, lastError, format], ['up', '', 'openmetrics'], server.log());
    const names = (await server.ask('/api/v1/label/__name__/values')) as string[];
    for (const { name, type } of Object.values(METRICS)) {
      assert.ok(names.includes(type === 'histogram' ? `${name}_count` : name), name);
    }
  } finally {
    await http.stop();
  }
});
