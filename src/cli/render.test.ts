import assert from 'node:assert/strict';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { say } from '../../test/support/io.ts';

const ISTIO = `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: istio, namespace: emissary}
spec:
  istio: {ca: {serviceAccount: emissary}}
  labels: {gateway: edge}
`;
const LINKERD = `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: linkerd, namespace: emissary}
spec:
  linkerd: {serviceAccount: {name: emissary}, targets: [{serviceAccount: web, namespace: shop}]}
`;

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'meshcert-render-'));
});

async function file(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

interface Rendered {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
  spec?: Record<string, unknown>;
  stringData?: Record<string, string>;
  rules?: { resources: string[]; resourceNames?: string[] }[];
}

const objects = (text: string): Rendered[] => parseAllDocuments(text).map((document) => document.toJS());

test('the objects are shown in the order of writing, without a key', async () => {
  const { code, stdout, stderr } = await say(['render', '-f', await file('istio.yaml', ISTIO)]);
  assert.equal(code, 0, stderr);
  const shown = objects(stdout);
  assert.deepEqual(
    shown.map(({ kind, metadata }) => `${kind} ${metadata.name}`),
    ['Secret istio-ca', 'Secret istio-identity', 'TLSContext istio'],
  );
  for (const { metadata } of shown) {
    assert.equal(metadata.namespace, 'emissary');
    assert.equal(metadata.labels?.gateway, 'edge');
    assert.equal(metadata.labels?.['meshcert.dev/owner'], 'emissary.istio');
  }
  assert.deepEqual(shown[1]?.stringData, {
    'tls.crt': '<leaf and intermediates from istio>',
    'tls.key': '<the private key, created by the agent>',
    'ca.crt': '<the roots of istio>',
  });
  assert.doesNotMatch(stdout, /BEGIN/);
});

test('in Linkerd each listed target has its context, with its name as SNI', async () => {
  const { stdout } = await say(['render', '-f', await file('linkerd.yaml', LINKERD)]);
  const context = objects(stdout).find(({ kind }) => kind === 'TLSContext');
  assert.equal(context?.spec?.sni, 'web.shop.serviceaccount.identity.linkerd.cluster.local');
  assert.equal(context?.spec?.min_tls_version, 'v1.3');
});

test('--rbac gives the Role for exactly these MeshCertificates, in their namespace', async () => {
  const { stdout } = await say(['render', '--rbac', '-f', await file('two.yaml', `${ISTIO}---\n${LINKERD}`)]);
  const role = objects(stdout).find(({ kind, metadata }) => kind === 'Role' && metadata.namespace === 'emissary');
  const secrets = role?.rules?.filter(({ resources }) => resources.includes('secrets'));
  assert.deepEqual(
    secrets?.map(({ resourceNames }) => resourceNames),
    [undefined, ['istio-ca', 'istio-identity', 'linkerd-ca', 'linkerd-identity']],
  );
  assert.ok(objects(stdout).some(({ kind, metadata }) => kind === 'Role' && metadata.namespace === 'linkerd'));
});

test('a document for --config needs no rights on custom resources', async () => {
  const groups = async (...flags: string[]) => {
    const { stdout } = await say(['render', '--rbac', ...flags, '-f', await file('role.yaml', ISTIO)]);
    return stdout.includes('meshcertificates/status');
  };
  assert.equal(await groups(), true);
  assert.equal(await groups('--as-file'), false);
});

test('json is one List', async () => {
  const { stdout } = await say(['render', '-o', 'json', '-f', await file('j.yaml', ISTIO)]);
  assert.equal(JSON.parse(stdout).items.length, 3);
});

test('a mistake in a file is reported by its line, and nothing is printed', async () => {
  const path = await file('bad.yaml', `${ISTIO}  trust: {hodl: 1m}\n`);
  const { code, stdout, stderr } = await say(['render', '-f', path]);
  assert.deepEqual([code, stdout], [1, '']);
  assert.equal(stderr, `${path}:7: spec.trust.hodl: unknown field "hodl"; did you mean "hold"?\n`);
  assert.equal((await say(['render'])).code, 2);
  assert.equal((await say(['render', '-f', join(directory, 'absent')])).code, 2);
});

test('the schema is JSON for editors, and with --crd what kubectl applies', async () => {
  const json = JSON.parse((await say(['schema'])).stdout);
  assert.equal(json.title, 'MeshCertificate');
  const [crd] = objects((await say(['schema', '--crd'])).stdout);
  assert.equal(crd?.kind, 'CustomResourceDefinition');
  assert.equal((await say(['schema', '-o', 'xml'])).code, 2);
});

const DISCOVERED = `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: linkerd, namespace: emissary}
spec:
  linkerd: {serviceAccount: {name: emissary}}
  mappings: {selector: {matchLabels: {mesh: linkerd}}}
`;
const GIVEN = `apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: linkerd-config, namespace: linkerd}, data: {values: "identityTrustDomain: mesh.example\\nclusterDomain: cluster.local\\n"}}
  - apiVersion: getambassador.io/v3alpha1
    kind: Mapping
    metadata: {name: web, namespace: emissary, labels: {mesh: linkerd}}
    spec: {hostname: "*", prefix: /, service: "https://web.shop"}
  - apiVersion: getambassador.io/v3alpha1
    kind: Mapping
    metadata: {name: plain, namespace: emissary, labels: {mesh: linkerd}}
    spec: {hostname: "*", prefix: /plain/, service: "web.shop:443"}
  - apiVersion: getambassador.io/v3alpha1
    kind: Mapping
    metadata: {name: elsewhere, namespace: shop, labels: {mesh: linkerd}}
    spec: {hostname: "*", prefix: /plain/, service: "web.shop:443"}
  - apiVersion: v1
    kind: Service
    metadata: {name: web, namespace: shop}
    spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 443}]}
  - apiVersion: discovery.k8s.io/v1
    kind: EndpointSlice
    metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
    ports: [{name: http, port: 8080}]
    endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: web-0, namespace: shop}}]
  - apiVersion: v1
    kind: Pod
    metadata: {name: web-0, namespace: shop, labels: {linkerd.io/control-plane-ns: linkerd}}
    spec: {serviceAccountName: web}
`;

test('targets are found from the given objects, and each Mapping that is not changed has its reason', async () => {
  const given = await file('given.yaml', GIVEN);
  const { code, stdout, stderr } = await say(['render', '-f', await file('found.yaml', DISCOVERED), '--given', given]);
  assert.equal(code, 0, stderr);
  const [context, mapping, ...more] = objects(stdout).slice(2);
  assert.equal(context?.metadata.name, 'linkerd-web-shop');
  assert.equal(context?.spec?.sni, 'web.shop.serviceaccount.identity.linkerd.mesh.example');
  assert.deepEqual(mapping, {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace: 'emissary' },
    spec: { tls: 'linkerd-web-shop' },
  });
  assert.deepEqual(more, []);
  assert.match(
    stderr,
    /^MeshCertificate emissary\/linkerd: ERR_TARGET_NO_HTTPS: Mapping emissary\/plain cannot use the certificate: /,
  );
  assert.equal(stderr.trim().split('\n').length, 1, stderr);
});

test('the given objects must be YAML', async () => {
  const { code, stderr } = await say([
    'render',
    '-f',
    await file('l.yaml', LINKERD),
    '--given',
    await file('bad.yaml', 'a: ['),
  ]);
  assert.equal(code, 2);
  assert.match(stderr, /bad\.yaml is not YAML/);
});
