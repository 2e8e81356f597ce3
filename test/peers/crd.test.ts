import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import { stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import { CONTRACT_VERSION, outsideAdapter } from '../../src/mesh/outside/adapter.ts';
import { eventually } from './parts/eventually.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const CRD = join(fileURLToPath(new URL('../..', import.meta.url)), 'deploy/crd/meshcertificate.yaml');
const PATH = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';

let server: KubeApiserver;

before(async () => {
  server = await startKubeApiserver();
  await server.ensureNamespace('emissary');
  await server.kubectl(['apply', '-f', CRD]);
  await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev', '--timeout=30s']);
});

after(() => server?.stop());

const object = (name: string, spec: object) => ({
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  metadata: { name, namespace: 'emissary' },
  spec,
});

const ISTIO = { istio: { ca: { serviceAccount: 'emissary' } } };

async function refused(spec: object, name = 'refused'): Promise<string> {
  const { status, body } = await server.call('POST', `${PATH}?dryRun=All`, object(name, spec));
  assert.equal(status, 422, JSON.stringify(body));
  return body.message;
}

test('the API server accepts the definition as structural and complete', async () => {
  const { body } = await server.call(
    'GET',
    '/apis/apiextensions.k8s.io/v1/customresourcedefinitions/meshcertificates.meshcert.dev',
  );
  const conditions = body.status.conditions.map((one: { type: string; status: string }) => `${one.type}=${one.status}`);
  assert.ok(conditions.includes('NamesAccepted=True'));
  assert.ok(conditions.includes('Established=True'));
  assert.ok(!conditions.some((text: string) => text.startsWith('NonStructuralSchema')));
});

test('a minimal object of each mesh is accepted, and stored as it is', async () => {
  const meshes = {
    istio: ISTIO,
    linkerd: { linkerd: { serviceAccount: { name: 'emissary' } } },
    consul: { consul: { http: { address: 'https://consul-server.consul.svc:8501' } } },
    spiffe: { spiffe: { socket: '/run/spire/agent-sockets/spire-agent.sock' } },
    file: { file: { directory: '/certs' } },
  };
  for (const [name, spec] of Object.entries(meshes)) {
    const { status, body } = await server.call('POST', PATH, object(name, spec));
    assert.equal(status, 201, JSON.stringify(body));
    assert.deepEqual(body.spec, spec, 'an older agent refuses fields that it does not know');
  }
});

test('exactly one mesh may be named', async () => {
  assert.match(await refused({}), /exactly one of istio, linkerd, consul, spiffe, file must be set/);
  assert.match(
    await refused({ ...ISTIO, consul: { http: { address: 'http://127.0.0.1:8500' } } }),
    /exactly one of istio, linkerd, consul, spiffe, file must be set/,
  );
});

test('mutually exclusive fields within a mesh are refused too', async () => {
  assert.match(await refused({ istio: { ca: { serviceAccount: 'x' }, sds: {} } }), /exactly one of ca and sds/);
  assert.match(await refused({ istio: {} }), /exactly one of ca and sds/);
  assert.match(await refused({ istio: { ca: {} } }), /exactly one of serviceAccount and tokenFile/);
  assert.match(await refused({ linkerd: {} }), /exactly one of serviceAccount and tokenFile/);
  assert.match(await refused({ consul: {} }), /exactly one of http, grpc/);
  const http = { address: 'http://127.0.0.1:8500' };
  assert.match(await refused({ consul: { http, auth: {} } }), /exactly one of tokenFile, token, login/);
});

test('names that Emissary would misread are refused with our message', async () => {
  assert.match(await refused({ ...ISTIO, secretName: 'istio-certs' }), /Emissary creates a Secret of that name/);
  assert.match(await refused({ ...ISTIO, secretName: 'a', caSecretName: 'a' }), /caSecretName must differ/);
  assert.match(await refused({ ...ISTIO, secretName: 'a.b' }), /spec\.secretName/);
  assert.match(await refused({ ...ISTIO, mappings: { selector: { matchLabels: {} } } }), /at least one label/);
  assert.match(await refused({ ...ISTIO, labels: { 'meshcert.dev/owner': 'x' } }), /set by meshcert/);
  assert.match(await refused({ ...ISTIO, renewal: { at: 0.8, jitter: 0.2 } }), /at most 0\.9/);
  assert.match(await refused({ ...ISTIO, renewal: { at: 0.85 } }), /at most 0\.9/);
  assert.match(await refused({ ...ISTIO, renewal: { jitter: 0.2, at: 0.75 } }), /at most 0\.9/);
  assert.match(await refused({ ...ISTIO, trust: { hold: 'soon' } }), /spec\.trust\.hold/);
  assert.match(
    await refused({ ...ISTIO, tlsContext: { minTlsVersion: 'v1.3', maxTlsVersion: 'v1.2' } }),
    /must not be above/,
  );
  assert.match(await refused(ISTIO, 'a.b'), /must have no dots/);
  assert.match(await refused({ ...ISTIO, deletionPolicy: 'Keep' }), /supported values: "Retain", "Delete"/i);
});

test('kubectl shows the columns, by the short name too, and explains the fields', async () => {
  const conditions = [
    { type: 'Ready', status: 'True', reason: 'Serving', message: '', lastTransitionTime: '2026-01-01T00:00:00Z' },
  ];
  const status = {
    mesh: 'istio',
    id: 'spiffe://cluster.local/ns/emissary/sa/emissary',
    notAfter: '2026-01-02T00:00:00Z',
    renewalTime: '2026-01-01T15:00:00Z',
    roots: [],
    mappings: [],
    targets: [],
    rotations: 0,
    conditions,
  };
  const type = { contentType: 'application/merge-patch+json' };
  const { status: code, body } = await server.call('PATCH', `${PATH}/istio/status`, { status }, type);
  assert.equal(code, 200, JSON.stringify(body));
  const table = await server.kubectl(['get', 'mcert', '-n', 'emissary', 'istio']);
  assert.match(table, /^NAME\s+MESH\s+IDENTITY\s+READY\s+NOT-AFTER\s+RENEWAL\s+AGE\n/);
  assert.match(
    table,
    /istio\s+istio\s+spiffe:\/\/cluster\.local\/ns\/emissary\/sa\/emissary\s+True\s+2026-01-02T00:00:00Z/,
  );
  const explained = await server.kubectl(['explain', 'mcert.spec.trust']);
  assert.match(explained, /hold\s+<string>[\s\S]*held back, so that\s+upstreams\s+learn\s+the\s+root\s+first/);
  assert.match(
    await server.kubectl(['explain', 'meshcertificate']),
    /certificate\s+of\s+a\s+service\s+mesh\s+that\s+an\s+API\s+gateway\s+uses/,
  );
});

test('the status cannot be written with the object, nor the object with the status', async () => {
  const { body } = await server.call('GET', `${PATH}/linkerd`);
  await server.call('PUT', `${PATH}/linkerd`, { ...body, status: { mesh: 'forged', roots: [], mappings: [] } });
  // What a resource has that no agent has seen.
  const unreported = { observedGeneration: -1, mesh: '', rotations: 0 };
  const lists = { roots: [], mappings: [], targets: [], conditions: [] };
  assert.deepEqual((await server.call('GET', `${PATH}/linkerd`)).body.status, { ...unreported, ...lists });
});

test('the definition with an adapter from outside takes any fields of it, as an object, and one mesh as before', async () => {
  const adapter = {
    mesh: 'vault',
    title: 'Vault',
    config: { parse() {} },
    tls: {},
    expect() {},
    needs() {},
    open() {},
  };
  const outside = outsideAdapter({ contractVersion: CONTRACT_VERSION, adapter }, 'vault.js');
  const definition = stringify(customResourceDefinition([...adapters, outside], gateways));
  await server.kubectl(['apply', '-f', '-'], { input: definition });
  const vault = { address: 'https://vault.vault:8200', auth: { role: 'meshcert', ttls: [1, '2h'] } };
  // The API server follows a changed definition within a second or so.
  await eventually('the changed definition', async () => {
    const { status, body } = await server.call('POST', `${PATH}?dryRun=All`, object('vault', { vault }));
    return status === 201 && isDeepStrictEqual(body.spec.vault, vault);
  });
  assert.match(await refused({ vault: 'text' }), /spec\.vault.*must be of type object/);
  assert.match(await refused({ ...ISTIO, vault }), /exactly one of .*, vault must be set/);
});
