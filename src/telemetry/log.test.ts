import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LogLevel } from '../mesh/log.ts';
import { PrivateKey } from '../pki/key.ts';
import { createLog } from './log.ts';

const PEM = PrivateKey.generate().toPem();
const body = PEM.split('\n')[1] ?? '';
const JWT = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZXNoIn0.c2lnbmF0dXJl';

function logged(write: (log: ReturnType<typeof createLog>) => void, level: LogLevel = 'debug') {
  const lines: string[] = [];
  write(createLog({ level, destination: { write: (line) => lines.push(line) } }));
  return lines;
}

test('a line is one JSON object with time, level, message and fields', () => {
  const [line = ''] = logged((log) => log.info({ mesh: 'istio', count: 2 }, 'published'));
  const { time, ...rest } = JSON.parse(line);
  assert.match(time, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  assert.deepEqual(rest, { level: 'info', msg: 'published', mesh: 'istio', count: 2 });
});

test('lines below the level are not written', () => {
  const lines = logged((log) => {
    log.debug({}, 'no');
    log.warn({}, 'yes');
  }, 'warn');
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).msg),
    ['yes'],
  );
  assert.deepEqual(
    logged((log) => log.error({}, 'x'), 'silent'),
    [],
  );
});

test('no key and no token is ever written, at any depth and in any form', () => {
  const error = Object.assign(new Error(`cannot load ${PEM}`), { response: { headers: { authorization: JWT } } });
  const deep = { a: { b: { c: { d: [{ pem: PEM }, { 'tls.key': 'dGxz' }] } } } };
  const lines = logged((log) => {
    log.info({ deep }, 'object');
    log.info({ keyPem: 'opaque-key-text', token: 'opaque-token' }, 'fields');
    log.error({ err: error }, 'error');
    log.error({ err: new Error('outer', { cause: error }) }, 'cause');
    log.error({ err: new AggregateError([error], 'many') }, 'aggregate');
    log.info({}, `message with ${PEM} and ${JWT}`);
    log.info({ header: `Bearer ${'x'.repeat(20)}` }, 'bearer');
    log.info({ key: PrivateKey.fromPem(PEM), map: new Map([['k', PEM]]), set: new Set([JWT]) }, 'holders');
    log.info({ bytes: Buffer.from(PEM) }, 'bytes');
    log.child({ token: 'opaque-token', nested: { pem: PEM } }).info({}, 'child');
  });
  assert.equal(lines.length, 10);
  for (const line of lines) {
    assert.ok(!line.includes(body), line);
    assert.ok(!line.includes('eyJ'), line);
    assert.doesNotMatch(line, /opaque|dGxz|x{20}/);
  }
});

test('an error keeps its code, its message and its cause', () => {
  const cause = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  const error = Object.assign(new Error('cannot reach istiod', { cause }), { code: 'ERR_MESH_UNREACHABLE' });
  const [line = ''] = logged((log) => log.warn({ err: error }, 'failed'));
  const { err } = JSON.parse(line);
  assert.equal(err.code, 'ERR_MESH_UNREACHABLE');
  assert.equal(err.message, 'cannot reach istiod');
  assert.equal(err.cause.code, 'ECONNREFUSED');
});

test('cycles, bytes and great depth do not break a line', () => {
  const cycle: Record<string, unknown> = { n: 1n };
  cycle.self = cycle;
  let deep: unknown = 'bottom';
  for (let i = 0; i < 50; i++) deep = { deep };
  const [line = ''] = logged((log) => log.info({ cycle, deep, der: new Uint8Array(3) }, 'x'));
  const parsed = JSON.parse(line);
  assert.equal(parsed.cycle.self, '[cycle]');
  assert.equal(parsed.cycle.n, '1');
  assert.equal(parsed.der, '[3 bytes]');
  assert.ok(!line.includes('bottom'));
});
