import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { after, test } from 'node:test';
import { capture } from '../run.ts';
import { ROOT } from '../tree.ts';

/** Which room may import which: the table of CONTRIBUTING.md. */
const ROOMS: Readonly<Record<string, readonly string[]>> = {
  async: [],
  pki: [],
  mesh: ['async', 'pki'],
  core: ['async', 'pki', 'mesh'],
  config: ['async', 'pki', 'mesh', 'core'],
  gateway: ['async', 'pki', 'mesh', 'core', 'config'],
  kube: ['async', 'pki', 'mesh', 'core', 'gateway'],
  grpc: ['async', 'pki', 'mesh'],
  preflight: ['async', 'pki', 'mesh', 'core'],
  probe: ['async', 'pki', 'mesh', 'config'],
  telemetry: ['async', 'mesh', 'core'],
  http: ['async', 'mesh', 'core', 'config', 'telemetry'],
  doctor: ['async', 'pki', 'mesh', 'core', 'config', 'gateway', 'kube'],
  onboard: ['async', 'pki', 'mesh', 'core', 'config', 'gateway', 'kube', 'probe'],
  agent: [
    ...['async', 'pki', 'mesh', 'core', 'config', 'gateway', 'kube', 'grpc', 'telemetry', 'http', 'doctor', 'probe'],
  ],
  cli: [
    ...['async', 'pki', 'mesh', 'core', 'config', 'gateway', 'kube', 'grpc', 'telemetry', 'http', 'doctor', 'agent'],
    ...['preflight', 'probe', 'onboard', 'demo'],
  ],
  demo: [
    ...['async', 'pki', 'mesh', 'core', 'config', 'gateway', 'kube', 'grpc', 'telemetry', 'http', 'doctor', 'agent'],
    ...['preflight', 'probe', 'onboard', 'sandbox'],
  ],
  sandbox: [
    ...['async', 'pki', 'mesh', 'core', 'config', 'gateway', 'kube', 'grpc', 'telemetry', 'http', 'doctor', 'onboard'],
  ],
};

const root = realpathSync(mkdtempSync(join(tmpdir(), 'meshcert-rooms-')));
after(() => rmSync(root, { recursive: true }));

function seed(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

function importing(source: string): string {
  return `import { thing } from '${source}';\n\nexport const used = thing;\n`;
}

/**
 * Creates one file for each thing that could be imported, and lints them all at once by the rules of this repository.
 */
async function lintSeeded(): Promise<Map<string, Set<string>>> {
  const config = JSON.parse(readFileSync(join(ROOT, 'biome.json'), 'utf8'));
  delete config.$schema;
  seed('biome.json', JSON.stringify(config));
  for (const from of Object.keys(ROOMS)) {
    for (const to of Object.keys(ROOMS)) if (to !== from) seed(`src/${from}/to-${to}.ts`, importing(`../${to}/x.ts`));
    seed(`src/${from}/deep/to-itself.ts`, importing('../x.ts'));
    seed(`src/${from}/deep/to-agent.ts`, importing('../../agent/x.ts'));
    seed(`src/${from}/to-client-node.ts`, importing('@kubernetes/client-node'));
    seed(`src/${from}/to-grpc-js.ts`, importing('@grpc/grpc-js'));
    seed(`src/${from}/to-adapter.ts`, importing('../../adapters/istio/adapter.ts'));
    seed(`src/${from}/to-adapters.ts`, importing('../../adapters/index.ts'));
    seed(`src/${from}/to-fs.ts`, importing('node:fs/promises'));
    seed(`src/${from}/timer.ts`, 'export const wait = (done: () => void) => setTimeout(done, 1);\n');
    seed(`src/${from}/environment.ts`, 'export const home = process.env.HOME;\n');
    seed(`src/${from}/any.test.ts`, importing('../cli/x.ts'));
  }
  for (const to of Object.keys(ROOMS)) {
    seed(`adapters/istio/to-${to}.ts`, importing(`../../src/${to}/x.ts`));
    seed(`adapters/istio/sandbox/to-${to}.ts`, importing(`../../../src/${to}/x.ts`));
  }
  seed('adapters/istio/to-its-sandbox.ts', importing('./sandbox/mesh.ts'));
  seed('adapters/istio/to-zod.ts', importing('zod'));
  seed('adapters/istio/to-grpc-js.ts', importing('@grpc/grpc-js'));

  const biome = join(ROOT, 'node_modules', '.bin', 'biome');
  const { output } = await capture(biome, ['lint', '--reporter=github', '--max-diagnostics=none', '.'], root);
  const found = new Map<string, Set<string>>();
  for (const [, rule = '', path = ''] of output.matchAll(/title=lint\/\w+\/(\w+),file=([^,]+)/g)) {
    const file = relative(root, path);
    found.set(file, (found.get(file) ?? new Set()).add(rule));
  }
  return found;
}

const violations = await lintSeeded();

const refused = (file: string, rule = 'noRestrictedImports'): boolean => violations.get(file)?.has(rule) ?? false;

test('a room may import the rooms below it and no others', () => {
  for (const [from, allowed] of Object.entries(ROOMS)) {
    for (const to of Object.keys(ROOMS)) {
      if (to === from) continue;
      assert.equal(refused(`src/${from}/to-${to}.ts`), !allowed.includes(to), `${from} → ${to}`);
    }
    assert.equal(refused(`src/${from}/deep/to-itself.ts`), false, `${from}/deep → ${from}`);
    assert.equal(
      refused(`src/${from}/deep/to-agent.ts`),
      !['agent', 'demo', 'cli'].includes(from),
      `${from}/deep → agent`,
    );
  }
});

test('each third-party client has one room', () => {
  for (const from of Object.keys(ROOMS)) {
    assert.equal(refused(`src/${from}/to-client-node.ts`), from !== 'kube', `${from} → @kubernetes/client-node`);
    assert.equal(refused(`src/${from}/to-grpc-js.ts`), from !== 'grpc', `${from} → @grpc/grpc-js`);
  }
});

test('only agent, demo and cli know adapters, through their lists', () => {
  for (const from of Object.keys(ROOMS)) {
    assert.equal(refused(`src/${from}/to-adapter.ts`), true, `${from} → adapters/istio`);
    assert.equal(refused(`src/${from}/to-adapters.ts`), !['agent', 'demo', 'cli'].includes(from), `${from} → adapters`);
  }
});

test('an adapter imports async, pki, mesh, grpc and zod', () => {
  for (const to of Object.keys(ROOMS)) {
    assert.equal(
      refused(`adapters/istio/to-${to}.ts`),
      !['async', 'pki', 'mesh', 'grpc'].includes(to),
      `adapters → ${to}`,
    );
  }
  assert.equal(refused('adapters/istio/to-its-sandbox.ts'), true);
  assert.equal(refused('adapters/istio/to-zod.ts'), false);
  assert.equal(refused('adapters/istio/to-grpc-js.ts'), true);
});

test("a mesh's sandbox imports anything but agent, preflight and cli", () => {
  for (const to of Object.keys(ROOMS)) {
    const expected = ['agent', 'preflight', 'probe', 'demo', 'cli'].includes(to);
    assert.equal(refused(`adapters/istio/sandbox/to-${to}.ts`), expected, `adapters/istio/sandbox → ${to}`);
  }
});

test('the pure rooms do no I/O, only Clock has timers, and only config and cli read the environment', () => {
  for (const from of Object.keys(ROOMS)) {
    assert.equal(
      refused(`src/${from}/to-fs.ts`),
      ['async', 'pki', 'mesh', 'core', 'gateway'].includes(from),
      `${from} → node:fs`,
    );
    assert.equal(refused(`src/${from}/timer.ts`, 'noRestrictedGlobals'), true, `${from}: setTimeout`);
    assert.equal(refused(`src/${from}/environment.ts`, 'noProcessEnv'), !['config', 'cli'].includes(from), from);
  }
});

test('tests may import anything', () => {
  for (const from of Object.keys(ROOMS)) assert.equal(refused(`src/${from}/any.test.ts`), false, from);
});
