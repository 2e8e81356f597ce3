import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EVENT_REASONS } from '../../src/agent/sinks.ts';
import { REASONS } from '../../src/core/status-of.ts';
import { gateways } from '../../src/gateways.ts';
import { ROOT } from '../tree.ts';

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
const runbook = read('docs/runbook.md');
const entries = [...runbook.matchAll(/^### (\w+)$/gm)].map(([, name = '']) => name);
const rules = read('deploy/alerts/meshcert.yaml') + read('deploy/alerts/independent.yaml');
const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name = '']) => name);
const gatewayReasons = gateways.flatMap(({ wording, loading }) => [...wording.reasons, ...(loading?.reasons ?? [])]);
const known = new Set<string>([...alerts, ...REASONS, ...EVENT_REASONS, ...gatewayReasons]);

test('every alert and every reason has an entry in the runbook', () => {
  assert.deepEqual(
    [...known].filter((name) => !entries.includes(name)),
    [],
  );
});

test('the runbook has no entry for a reason that cannot occur, and none twice', () => {
  assert.deepEqual(
    entries.filter((name) => !known.has(name)),
    [],
  );
  assert.equal(new Set(entries).size, entries.length);
});

test('each alert links to its entry', () => {
  const links = [...rules.matchAll(/runbook: docs\/runbook\.md#(\w+)/g)];
  assert.deepEqual(
    links.map(([, anchor]) => anchor),
    alerts.map((name) => name.toLowerCase()),
  );
});
