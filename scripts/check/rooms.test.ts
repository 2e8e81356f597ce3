import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { capture } from '../run.ts';
import { ROOT } from '../tree.ts';
import { ROOMS, roomFindings } from './rooms.ts';
import { seededTree } from './seeded-tree.ts';

const importing = (source: string): string => `import { thing } from '${source}';\n\nexport const used = thing;\n`;

/** The findings in a tree of one file. */
const findings = (file: string, source: string): string[] =>
  roomFindings(seededTree({ 'src/x': '', 'adapters/x': '', 'sandbox/x': '', [file]: importing(source) }));

test('this repository keeps the rules', () => {
  assert.deepEqual(roomFindings(ROOT), []);
});

test('a room may import the rooms that are listed for it, itself, async and objects, and no others', () => {
  for (const [from, { imports }] of Object.entries(ROOMS)) {
    for (const to of Object.keys(ROOMS)) {
      const isForAll = (to === 'async' || to === 'objects') && from !== 'pki' && from !== 'async';
      const allowed = from === to || imports.includes(to) || isForAll;
      const found = allowed ? [] : [`src/${from}/deep/a.ts may not import src/${to}/x.ts`];
      assert.deepEqual(findings(`src/${from}/deep/a.ts`, `../../${to}/x.ts`), found);
    }
  }
});

test('the rooms import each other in one direction', () => {
  const below = (room: string, seen: readonly string[] = []): string[] => {
    assert.ok(!seen.includes(room), [...seen, room].join(' -> '));
    return (ROOMS[room]?.imports ?? []).flatMap((to) => [to, ...below(to, [...seen, room])]);
  };
  for (const room of Object.keys(ROOMS)) below(room);
});

test('an import on demand, of a type or again for others counts', () => {
  const found = ['src/core/a.ts may not import src/agent/x.ts'];
  for (const text of [
    "const a = () => import('../agent/x.ts');\n",
    "type A = import('../agent/x.ts').A;\n",
    "export type { A } from '../agent/x.ts';\n",
  ]) {
    assert.deepEqual(roomFindings(seededTree({ 'src/core/a.ts': text, 'adapters/x': '', 'sandbox/x': '' })), found);
  }
});

test('each third-party client has one room', () => {
  for (const from of Object.keys(ROOMS)) {
    assert.equal(findings(`src/${from}/a.ts`, '@kubernetes/client-node').length, from === 'kube' ? 0 : 1, from);
    assert.equal(findings(`src/${from}/a.ts`, '@grpc/grpc-js').length, from === 'grpc' ? 0 : 1, from);
  }
  assert.deepEqual(findings('sandbox/grpc/a.ts', '@grpc/grpc-js'), []);
  assert.equal(findings('sandbox/istio/a.ts', '@grpc/grpc-js').length, 1);
});

test('only agent and cli know adapters, through their lists', () => {
  for (const from of Object.keys(ROOMS)) {
    assert.equal(findings(`src/${from}/a.ts`, '../../adapters/istio/adapter.ts').length, 1, from);
    assert.equal(
      findings(`src/${from}/a.ts`, '../../adapters/index.ts').length,
      ['agent', 'cli'].includes(from) ? 0 : 1,
    );
  }
});

test('an adapter imports async, objects, pki, mesh, grpc and zod, and nothing of the sandbox', () => {
  for (const to of Object.keys(ROOMS)) {
    const expected = ['async', 'objects', 'pki', 'mesh', 'grpc'].includes(to) ? 0 : 1;
    assert.equal(findings('adapters/istio/a.ts', `../../src/${to}/x.ts`).length, expected, to);
  }
  assert.equal(findings('adapters/istio/a.ts', '../../sandbox/istio/mesh.ts').length, 1);
  assert.deepEqual(findings('adapters/istio/a.ts', 'zod'), []);
});

test('the sandbox imports anything but what it judges; the demo runs the agent; the product has only the demo', () => {
  for (const to of Object.keys(ROOMS)) {
    const judged = ['agent', 'preflight', 'probe', 'cli'].includes(to);
    assert.equal(findings('sandbox/istio/a.ts', `../../src/${to}/x.ts`).length, judged ? 1 : 0, to);
    assert.equal(findings('sandbox/demo/a.ts', `../../src/${to}/x.ts`).length, to === 'cli' ? 1 : 0, to);
    assert.equal(findings(`src/${to}/a.ts`, '../../sandbox/demo/x.ts').length, to === 'cli' ? 0 : 1, to);
    assert.equal(findings(`src/${to}/a.ts`, '../../sandbox/kube/x.ts').length, 1, to);
  }
});

test('the pure rooms do no I/O', () => {
  for (const [from, { pure }] of Object.entries(ROOMS)) {
    assert.equal(findings(`src/${from}/a.ts`, 'node:fs/promises').length, pure ? 1 : 0, from);
    assert.deepEqual(findings(`src/${from}/a.ts`, 'node:path'), []);
  }
});

test('tests may import anything', () => {
  assert.deepEqual(findings('src/core/a.test.ts', '../cli/x.ts'), []);
});

test('only Clock has timers, and only config and cli read the environment', async () => {
  const config = JSON.parse(readFileSync(join(ROOT, 'biome.json'), 'utf8'));
  delete config.$schema;
  const files: Record<string, string> = { 'biome.json': JSON.stringify(config) };
  const rooms = [...Object.keys(ROOMS).map((room) => `src/${room}`), 'adapters/istio', 'sandbox/istio'];
  for (const room of rooms) {
    files[`${room}/timer.ts`] = 'export const wait = (done: () => void) => setTimeout(done, 1);\n';
    files[`${room}/environment.ts`] = 'export const home = process.env.HOME;\n';
  }
  const biome = join(ROOT, 'node_modules', '.bin', 'biome');
  const arguments_ = ['lint', '--reporter=github', '--max-diagnostics=none', '.'];
  const { output } = await capture(biome, arguments_, seededTree(files));
  const found = [...output.matchAll(/title=lint\/\w+\/(\w+),file=([^,]+)/g)].map(([, rule, file]) => `${file} ${rule}`);
  const has = (file: string, rule: string) => found.some((one) => one.endsWith(`${file} ${rule}`));
  for (const room of rooms) {
    assert.equal(has(`${room}/timer.ts`, 'noRestrictedGlobals'), true, room);
    assert.equal(has(`${room}/environment.ts`, 'noProcessEnv'), !['src/config', 'src/cli'].includes(room), room);
  }
});
