import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROOT } from '../tree.ts';
import { ALLOWED_FILES, gatewayNames } from './gateway-names.ts';
import { meshNames } from './mesh-names.ts';
import { seededTree as tree } from './seeded-tree.ts';
import { registryHosts, tracesOfMachine } from './traces.ts';

test('paths of one machine are found anywhere, and others are ignored', () => {
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

test('nothing outside adapters names a mesh, except names that a gateway chose', () => {
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

test('nothing outside its folder names a gateway, except public fields and the files that are listed', () => {
  const root = tree({
    'src/agent/a.ts': "if (object.kind === 'TLSContext') return;\nconst { mappings } = status;\n",
    'src/kube/b.ts': "const api = 'getambassador.io/v3alpha1';\n",
    'src/core/c.ts': '// as Emissary does with a Mapping\n// meshcert status mesh -n emissary\n',
    'src/gateway/emissary/d.ts': "'TLSContext'\n",
    'src/agent/a.test.ts': "'TLSContext'\n",
    'src/old/e.ts': "'Mapping'\n",
    'adapters/istio/f.ts': "const name = 'tlsContext';\n",
  });
  assert.deepEqual(gatewayNames(root, { 'src/old/': 'allowed' }), [
    'src/agent/a.ts:1: names TLSContext; a gateway is named in its folder alone',
    'src/core/c.ts:1: names Emissary; a gateway is named in its folder alone',
    'src/kube/b.ts:1: names ambassador; a gateway is named in its folder alone',
    'adapters/istio/f.ts:1: names tlsContext; a gateway is named in its folder alone',
  ]);
  assert.deepEqual(gatewayNames(ROOT), []);
});

test('every file that may name a gateway still does', () => {
  for (const start of Object.keys(ALLOWED_FILES)) {
    const others = Object.fromEntries(Object.entries(ALLOWED_FILES).filter(([other]) => other !== start));
    assert.notDeepEqual(gatewayNames(ROOT, others), [], start);
  }
});
