import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments, stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Kinds of the meshes themselves, whose definitions are not here; their text is only parsed. */
const FOREIGN = ['policy.linkerd.io/', 'consul.hashicorp.com/', 'security.istio.io/', 'networking.istio.io/'];
/** The examples of checks.md are wrong on purpose, and have a test of their own. */
const guides = ['README.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)].filter(
  (file) => file.endsWith('.md') && file !== 'docs/checks.md',
);

interface Block {
  readonly file: string;
  readonly line: number;
  readonly text: string;
}

/** Every fenced block of YAML, without the indentation of a surrounding list. */
function blocksOf(file: string): Block[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  return [...text.matchAll(/^( *)```ya?ml\n([\s\S]*?)^ *```$/gm)].map(({ 1: indent = '', 2: body = '', index }) => ({
    file,
    line: text.slice(0, index).split('\n').length,
    text: body.replace(new RegExp(`^${indent}`, 'gm'), ''),
  }));
}

const blocks = guides.flatMap(blocksOf);

let server: KubeApiserver;

before(async () => {
  server = await startKubeApiserver();
  await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
  await server.kubectl(['apply', '-f', '-'], {
    input: [...ambassadorDefinitions(), ...gatewayApiDefinitions()].map((one) => stringify(one)).join('---\n'),
  });
  await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
  for (const namespace of ['emissary', 'ambassador', 'shop', 'linkerd', 'consul', 'istio-system']) {
    await server.ensureNamespace(namespace);
  }
});

after(() => server?.stop());

type Fragment = Record<string, unknown> & { metadata?: object; spec?: Record<string, unknown> };

const MESHES = adapters.map(({ mesh }) => mesh);
const has = (value: object | undefined, ...keys: readonly string[]) => keys.some((key) => key in (value ?? {}));
const certificate = (spec: object): Fragment => ({
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  spec: { ...spec },
});
const pod = (spec: object, metadata: object = {}): Fragment => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata,
  spec: { serviceAccountName: 'default', containers: [{ name: 'any', image: 'any' }], ...spec },
});

/** The object that a fragment is part of; a whole object is returned unchanged. Throws for anything else. */
function complete(value: unknown, marked = true): Fragment {
  const named = (object: Fragment): Fragment => ({
    ...object,
    metadata: { name: 'example', namespace: 'emissary', ...object.metadata },
  });
  const fragment = value as Fragment;
  if (fragment.apiVersion !== undefined && fragment.kind !== undefined) return fragment;
  // Values of the chart.
  if (has(fragment, 'certificates')) return complete((fragment.certificates as Fragment[])[0]);
  if (!marked) throw new Error('this is not a whole object; begin the block with "# fragment of …"');
  if (Array.isArray(value) && value.every((rule) => has(rule, 'verbs'))) {
    return named({ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'Role', rules: value });
  }
  if (has(fragment.spec, ...MESHES)) return named(certificate(fragment.spec as object));
  if (has(fragment.spec, 'containers')) return named(pod(fragment.spec as object, fragment.metadata));
  if (has(fragment, 'volumes')) return named(pod(fragment));
  if (has(fragment, 'annotations', 'labels')) return named(pod({}, fragment));
  if (has(fragment, 'http', 'grpc')) return named(certificate({ consul: fragment }));
  if (has(fragment, ...MESHES)) return named(certificate(fragment));
  if (has(fragment, 'probe', 'trust', 'renewal', 'mappings', 'tlsContext')) {
    return named(certificate({ istio: { sds: {} }, ...fragment }));
  }
  throw new Error('this is neither an object nor a fragment that the test can complete');
}

test('there are examples in the README and in each guide', () => {
  for (const file of [
    'README.md',
    'docs/istio.md',
    'docs/linkerd.md',
    'docs/consul.md',
    'docs/spiffe.md',
    'docs/files.md',
  ]) {
    assert.ok(
      blocks.some((block) => block.file === file),
      file,
    );
  }
});

for (const { file, line, text } of blocks) {
  test(`the API server accepts the YAML at ${file}:${line}`, async () => {
    for (const document of parseAllDocuments(text)) {
      assert.deepEqual(document.errors, []);
      const object = complete(document.toJS(), text.startsWith('# fragment of '));
      if (FOREIGN.some((group) => String(object.apiVersion).startsWith(group))) continue;
      await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: stringify(object) });
    }
  });
}
