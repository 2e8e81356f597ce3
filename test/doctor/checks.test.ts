import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { validator } from '../../src/config/validate.ts';
import { checksOf, diagnose } from '../../src/doctor/doctor.ts';
import { gateways } from '../../src/gateways.ts';
import type { Finding } from '../../src/mesh/object-check.ts';
import { material, objectsOf, readExamples } from './examples.ts';
import { readJudgements } from './judged.ts';

const { texts } = material();
const { base, gatewayApi, examples } = readExamples();
const HOUR = 3_600_000;
const validate = validator(adapters, gateways);

function findingsOf(...yaml: readonly string[]): Finding[] {
  return diagnose({
    ...{ adapters, objects: objectsOf(texts, ...yaml), now: Date.now(), whole: new Set() },
    validate(object) {
      const result = validate(object);
      return result.ok ? [] : result.issues.map(({ message }) => message);
    },
    parse(object) {
      const result = validate(object);
      return result.ok ? result.value : undefined;
    },
  });
}

test('the objects that every example starts from have no finding except the note that always applies', () => {
  assert.deepEqual(
    findingsOf(base).map(({ code }) => code),
    ['MC1307'],
  );
  assert.deepEqual(
    findingsOf(gatewayApi).map(({ code }) => code),
    ['MC1307'],
  );
});

test('a MeshCertificate that another gateway uses is no concern of this one', () => {
  const certificate = (gateway: string) => `
apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: elsewhere, namespace: emissary}
spec:
  istio: {ca: {serviceAccount: emissary}}
  ${gateway}
---
apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {name: elsewhere, namespace: emissary}
spec: {hosts: [], secret: some-secret}
`;
  const codes = (gateway: string) =>
    findingsOf(base, certificate(gateway))
      .map(({ code }) => code)
      .filter((code) => code.startsWith('MC50'));
  assert.deepEqual(codes('tlsContext: {}'), ['MC5002', 'MC5005']);
  assert.deepEqual(
    codes(
      'gatewayApi: {gateways: {selector: {matchLabels: {mesh: istio}}}, services: {selector: {matchLabels: {mesh: istio}}}}',
    ),
    [],
  );
});

test('the page has a section for each check, with its title, and no other section', () => {
  assert.deepEqual(
    examples.map(({ code, title }) => `${code} ${title}`),
    checksOf(adapters).map(({ code, title }) => `${code} ${title}`),
  );
  for (const { code, section } of examples) {
    assert.match(section, /\*\*Hurts:\*\* \S/, `${code} says how it hurts`);
    assert.match(section, /\*\*Fix:\*\* \S/, `${code} says how to fix it`);
  }
});

test('the last table has a row for each check, which says where its harm is shown or why it is not', () => {
  const rows = readJudgements();
  assert.deepEqual(
    rows.map(({ code }) => code),
    checksOf(adapters).map(({ code }) => code),
  );
  for (const { code, places, otherwise } of rows) assert.notEqual(places.length > 0, otherwise.length > 0, code);
});

for (const { code, title, base: before, yaml } of examples) {
  test(`the example of ${code} has its finding: ${title}`, () => {
    const found = findingsOf(before, yaml);
    const own = found.filter((finding) => finding.code === code);
    assert.ok(own.length > 0, `found only ${found.map((finding) => `${finding.code} ${finding.message}`).join('\n')}`);
    for (const { message, fix } of own) {
      assert.ok(message.length > 20 && fix.length > 5);
      assert.doesNotMatch(message, /undefined|\[object|NaN/);
    }
  });
}

test('worst findings come first', () => {
  const severities = findingsOf(base, ...examples.slice(0, 12).map(({ yaml }) => yaml)).map(({ severity }) => severity);
  const order = ['error', 'warning', 'note'];
  assert.deepEqual(
    severities,
    [...severities].sort((a, b) => order.indexOf(a) - order.indexOf(b)),
  );
  assert.ok(new Set(severities).size > 1);
});

test('of a directory without Secrets, none is said to be missing', () => {
  const withoutSecrets = base
    .split('---\n')
    .filter((part) => !part.includes('kind: Secret'))
    .join('---\n');
  assert.deepEqual(
    findingsOf(withoutSecrets).map(({ code }) => code),
    [],
  );
});

test('nobody is advised to remove the only root, or to edit a Secret that the agent publishes', () => {
  const ended = SandboxCa.root({ notBefore: Date.now() - 2 * HOUR, notAfter: Date.now() - HOUR }).certificate.pem;
  const published = '{name: mesh-ca, namespace: emissary, labels: {meshcert.dev/owner: emissary.mesh}}';
  const fixOf = (metadata: string) =>
    diagnose({
      ...{ adapters, now: Date.now(), whole: new Set<string>() },
      objects: objectsOf({ ...texts, roots: ended }, base.replace('{name: mesh-ca, namespace: emissary}', metadata)),
    }).find(({ code }) => code === 'MC1209')?.fix;
  assert.match(fixOf('{name: mesh-ca, namespace: emissary}') ?? '', /^put the current roots of the mesh in its place/);
  assert.match(fixOf(published) ?? '', /do not edit it/);
});

test('each of two gateways is judged by its own environment', () => {
  const edge = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: edge, namespace: emissary}
spec:
  template:
    spec:
      containers:
        - {name: edge, image: 'emissary:4.1.0', env: [{name: AMBASSADOR_ID, value: edge}]}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: edge-web, namespace: emissary}
spec: {ambassador_id: [edge], hostname: '*', prefix: /edge/, service: 'https://web.shop:80', tls: mesh}
`;
  const errors = findingsOf(base, edge).filter(({ severity }) => severity === 'error');
  assert.deepEqual(
    errors.map(({ code, object }) => `${code} ${object.metadata.name}`),
    ['MC1002 edge-web'],
  );
});

test('a selected Mapping of another namespace that does not consent is reported with the missing annotation', () => {
  const selecting = (annotations: string) => `
apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: edge, namespace: emissary}
spec:
  istio: {ca: {serviceAccount: emissary}}
  mappings: {selector: {matchLabels: {mesh: edge}}, namespaces: [shop]}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: far, namespace: shop, labels: {mesh: edge}${annotations}}
spec: {hostname: '*', prefix: /far/, service: 'https://web.shop:80'}
`;
  const fixOf = (yaml: string) => {
    const whole = new Set(['Mapping']);
    const found = diagnose({ objects: objectsOf(texts, base, yaml), now: Date.now(), whole, adapters });
    return found.find(({ code, object }) => code === 'MC5007' && object.metadata.name === 'far')?.fix;
  };
  assert.match(fixOf(selecting('')) ?? '', /annotate it: meshcert\.dev\/allow-from=emissary/);
  const other = fixOf(selecting(", annotations: {meshcert.dev/allow-from: 'a, emissary'}"));
  assert.match(other ?? '', /status\.mappings/);
});
