import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROOT } from '../tree.ts';
import { meshNames } from './mesh-names.ts';
import { seededTree as tree } from './seeded-tree.ts';
import { registryHosts, tracesOfMachine } from './traces.ts';

test('paths of one machine are found wherever they stand, and others are left alone', () => {
  const path = ['', 'root', 'project', 'x.ts'].join('/');
  const root = tree({
    'docs/a.md': `see\n\`${path}\`\n`,
    'src/b.ts': `// ${['', 'home', 'somebody', 'src'].join('/')}\n`,
    'docs/ok.md': '/rooted/x, https://example.com/work/item, src/work/x, /home/nonroot/x, ./root/x',
    'node_modules/x.md': path,
    'image.png': path,
  });
  assert.deepEqual(tracesOfMachine(root, { hosts: [] }), [
    `docs/a.md:2: a path of one machine: ${['', 'root', 'project'].join('/')}`,
    `src/b.ts:1: a path of one machine: ${['', 'home', 'somebody', 'src'].join('/')}`,
  ]);
});

test('registries of one machine are found, and a lock file with download addresses', () => {
  const root = tree({ 'package-lock.json': '{"resolved": "https://npm.corp.example/x"}', '.npmrc': 'save-exact=true' });
  assert.deepEqual(tracesOfMachine(root, { hosts: ['npm.corp.example'] }), [
    'package-lock.json: holds download addresses; .npmrc omits them: run npm install once more',
    'package-lock.json:1: the package registry of one machine',
  ]);
  assert.deepEqual(
    registryHosts(
      { GOPROXY: 'https://go.corp.example,direct', PIP_INDEX_URL: 'https://pypi.org/simple' },
      'https://npm.corp.example:8443/',
    ),
    ['npm.corp.example', 'go.corp.example'],
  );
});

test('nothing outside adapters names a mesh, except what a gateway named so', () => {
  const root = tree({
    'src/core/a.ts': "const MESH = 'istio';\nconst other = 'spired';\n",
    'src/agent/b.ts': '// as Linkerd does, and SPIRE\n',
    'src/kube/c.ts': "const secret = 'istio-certs'; // consulResolvers, spiffe://a/b\n",
    'src/core/a.test.ts': "'consul'\n",
    'adapters/istio/d.ts': "'istio'\n",
  });
  assert.deepEqual(meshNames(root), [
    'src/agent/b.ts:1: names Linkerd; a mesh is named in its adapter alone',
    'src/core/a.ts:1: names istio; a mesh is named in its adapter alone',
  ]);
  assert.deepEqual(meshNames(ROOT), []);
});
