import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { toyMeshes } from '../../test/support/toy-meshes.ts';
import type { EmissaryConfig } from '../gateway/emissary/config.ts';
import { gateways } from '../gateways.ts';
import { formatDocumentError, parseDocuments } from './documents.ts';

const parse = (text: string) => parseDocuments(text, 'mesh.yaml', toyMeshes, gateways, { namespace: 'emissary' });
const complaints = (text: string) => parse(text).errors.map(formatDocumentError);

const minimal = `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: istio}
spec:
  istio: {address: 'istiod:15012'}
`;

test('a minimal document gets every default', () => {
  const { documents, errors } = parse(minimal);
  assert.deepEqual(errors, []);
  assert.deepEqual(documents[0]?.metadata, { name: 'istio', namespace: 'emissary' });
  assert.deepEqual(documents[0]?.spec, {
    mesh: { name: 'istio', config: { address: 'istiod:15012', ttl: 86_400_000 } },
    secretName: 'istio-identity',
    caSecretName: 'istio-ca',
    configMapName: undefined,
    crlSecretName: undefined,
    gateways: {
      emissary: { tlsContext: { enabled: true, name: 'istio', ambassadorIds: [] }, mappings: undefined },
    },
    labels: {},
    renewal: { at: 0.6, jitter: 0.06 },
    trust: { retainMs: 86_400_000, holdMs: 600_000, withdrawn: [] },
    probe: undefined,
    upstreams: { intervalMs: 300_000, serviceAccounts: false, identities: [] },
    paused: false,
    deletionPolicy: 'Retain',
  });
});

test('a file that is nested too deeply is an error, not an exception', () => {
  for (const text of ['['.repeat(200_000), '- '.repeat(200_000), `a: ${'{b: '.repeat(100_000)}`]) {
    const { documents, errors } = parse(text);
    assert.equal(documents.length, 0);
    assert.ok(errors.length > 0);
  }
});

test('every field can be set', () => {
  const { documents, errors } = parse(`${minimal}
  secretName: a
  caSecretName: b
  configMapName: roots.example
  tlsContext: {enabled: true, name: c, ambassadorIds: [edge], sni: web, alpnProtocols: istio, minTlsVersion: v1.2, maxTlsVersion: v1.3}
  labels: {team: edge}
  mappings: {selector: {matchLabels: {mesh: istio}}}
  renewal: {at: 0.5, jitter: 0}
  trust: {retain: 48h, hold: 0s}
  probe: {address: 'web.shop:443', id: 'spiffe://cluster.local/ns/shop/sa/web', sni: web, http: {path: /health}}
  paused: true
  deletionPolicy: Delete
`);
  assert.deepEqual(errors, []);
  assert.deepEqual(documents[0]?.spec.trust, { retainMs: 172_800_000, holdMs: 0, withdrawn: [] });
  assert.equal((documents[0]?.spec.gateways.emissary as EmissaryConfig | undefined)?.tlsContext.name, 'c');
  assert.deepEqual(documents[0]?.spec.probe?.http, { path: '/health' });
});

test('an error names file, line and path', () => {
  assert.deepEqual(complaints(`${minimal}  trust:\n    retain: 24h\n    hold: soon\n`), [
    'mesh.yaml:8: spec.trust.hold: expected a duration such as "8h", "1h30m" or "500ms"',
  ]);
});

test('a mistyped field is answered with the one that was probably meant', () => {
  assert.deepEqual(complaints(`${minimal}  secretNam: x\n  tlsContext:\n    minTLSVersoin: v1.2\n`), [
    'mesh.yaml:6: spec.secretNam: unknown field "secretNam"; did you mean "secretName"?',
    'mesh.yaml:8: spec.tlsContext.minTLSVersoin: unknown field "minTLSVersoin"; did you mean "minTlsVersion"?',
  ]);
  assert.deepEqual(complaints(`${minimal}  trust: {colour: blue}\n`), [
    'mesh.yaml:6: spec.trust.colour: unknown field "colour"; supported: retain, crl, hold, withdrawn',
  ]);
  assert.deepEqual(complaints(minimal.replace('address:', 'adress:')), [
    'mesh.yaml:5: spec.istio.address: is required',
    'mesh.yaml:5: spec.istio.adress: unknown field "adress"; did you mean "address"?',
  ]);
});

test('a mistyped value is answered with the possible ones', () => {
  assert.deepEqual(complaints(`${minimal}  deletionPolicy: retain\n`), [
    'mesh.yaml:6: spec.deletionPolicy: expected one of "Retain", "Delete"; did you mean "Retain"?',
  ]);
  assert.deepEqual(complaints(`${minimal}  paused: 'yes'\n`), [
    'mesh.yaml:6: spec.paused: expected boolean, found string',
  ]);
});

test('exactly one mesh must be named', () => {
  assert.deepEqual(complaints(minimal.replace("  istio: {address: 'istiod:15012'}", '  paused: true')), [
    'mesh.yaml:4: spec: exactly one of istio, consul must be set, found none',
  ]);
  assert.deepEqual(complaints(`${minimal}  consul: {}\n`), [
    'mesh.yaml:4: spec: exactly one of istio, consul must be set, found istio and consul',
  ]);
  assert.deepEqual(complaints(minimal.replace('  istio:', '  isito:')), [
    'mesh.yaml:5: spec.isito: unknown field "isito"; did you mean "istio"?',
  ]);
});

test('an adapter without a zod schema is supported too', () => {
  assert.deepEqual(complaints(minimal.replace("istio: {address: 'istiod:15012'}", 'consul: {fail: true}')), [
    'mesh.yaml:5: spec.consul: consul refuses this',
  ]);
});

test('names that Emissary would misread are refused', () => {
  assert.match(complaints(`${minimal}  secretName: a.b\n`)[0] ?? '', /spec\.secretName: must be .* without dots/);
  assert.match(complaints(`${minimal}  secretName: istio-certs\n`)[0] ?? '', /must not be "istio-certs"/);
  assert.match(complaints(`${minimal}  caSecretName: istio-identity\n`)[0] ?? '', /must differ from secretName/);
  assert.match(complaints(`${minimal}  mappings: {selector: {matchLabels: {}}}\n`)[0] ?? '', /at least one label/);
  assert.match(complaints(`${minimal}  labels: {meshcert.dev/owner: me}\n`)[0] ?? '', /set by meshcert/);
  assert.match(complaints(minimal.replace('name: istio', `name: ${'a'.repeat(60)}`))[0] ?? '', /at most 62 characters/);
});

test('numbers that would renew too late are refused', () => {
  assert.match(
    complaints(`${minimal}  renewal: {at: 0.8, jitter: 0.15}\n`)[0] ?? '',
    /spec\.renewal\.at: at \+ jitter/,
  );
  assert.match(complaints(`${minimal}  renewal: {at: 1}\n`)[0] ?? '', /spec\.renewal\.at/);
});

test('an invalid document does not affect the valid ones in its file', () => {
  const { documents, errors } = parse(
    `${minimal}---\nkind: Secret\n---\n${minimal.replace('name: istio', 'name: two')}---\n`,
  );
  assert.deepEqual(
    documents.map((one) => one.metadata.name),
    ['istio', 'two'],
  );
  assert.deepEqual(errors.map(formatDocumentError), [
    'mesh.yaml:7: apiVersion: expected "meshcert.dev/v1alpha1"',
    'mesh.yaml:7: kind: expected "MeshCertificate"',
    'mesh.yaml:7: metadata: is required',
    'mesh.yaml:7: spec: is required',
  ]);
});

test('two documents may not claim the same object', () => {
  const { documents, errors } = parse(
    `${minimal}---\n${minimal.replace('name: istio', 'name: two')}  secretName: istio-ca\n`,
  );
  assert.equal(documents.length, 1);
  assert.deepEqual(errors.map(formatDocumentError), [
    'mesh.yaml:12: spec.secretName: Secret istio-ca already belongs to MeshCertificate emissary/istio',
  ]);
});

test('TLSContexts of one name collide across namespaces, but not across gateways', () => {
  const other = minimal.replace('{name: istio}', '{name: istio, namespace: other}');
  assert.deepEqual(complaints(`${minimal}---\n${other}`), [
    'mesh.yaml:10: spec.tlsContext.name: TLSContext istio already belongs to MeshCertificate emissary/istio',
  ]);
  assert.deepEqual(complaints(`${minimal}---\n${other}  tlsContext: {ambassadorIds: [second]}\n`), []);
});

test('broken YAML is reported by its line', () => {
  const { documents, errors } = parse('apiVersion: [\nkind: {');
  assert.deepEqual(documents, []);
  assert.ok(errors.length > 0);
  assert.equal(errors[0]?.path, '');
  assert.ok((errors[0]?.line ?? 0) >= 1);
  assert.match(complaints(`${minimal}  paused: true\n  paused: false\n`)[0] ?? '', /^mesh\.yaml:7: .*unique/);
});

test('an alias bomb is refused, not expanded', () => {
  const layers = Array.from({ length: 9 }, (_, i) => `l${i + 1}: &l${i + 1} [${Array(10).fill(`*l${i}`).join(',')}]`);
  assert.match(complaints(['l0: &l0 [x]', ...layers].join('\n'))[0] ?? '', /alias/);
});

test('empty files and comments hold no documents and no errors', () => {
  for (const text of ['', '\n', '# nothing yet\n', '---\n---\n']) {
    assert.deepEqual(parse(text), { documents: [], errors: [] }, JSON.stringify(text));
  }
});

test('no text makes the reader throw', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 300 }), fc.nat(minimal.length), (noise, at) => {
      parse(noise);
      parse(minimal.slice(0, at) + noise + minimal.slice(at));
    }),
    { numRuns: 300 },
  );
});
