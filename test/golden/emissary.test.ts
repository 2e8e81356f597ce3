import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAllDocuments, stringify } from 'yaml';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { MeshCertificateSpec } from '../../src/config/schema/mesh-certificate.ts';
import { desiredObjects, publicationRefs } from '../../src/gateway/desired.ts';
import type { EmissaryConfig } from '../../src/gateway/emissary/config.ts';
import type { Target } from '../../src/gateway/emissary/routes.ts';
import { gatewaysOf } from '../../src/gateway/gateway.ts';
import { ownerLabel, readPublication } from '../../src/gateway/publication.ts';
import { gateways } from '../../src/gateways.ts';
import type { Adapter } from '../../src/mesh/adapter.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { FakeClock } from '../support/fake-clock.ts';

const HOUR = 3_600_000;
const START = Date.parse('2026-01-01T00:00:00Z');
const clock = new FakeClock(START);
const old = SandboxCa.root({ name: 'old', clock });
const root = SandboxCa.root({ name: 'root', clock });
const issuing = root.intermediate({ clock });
const identity = issuing.identity({ uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'], lifetimeMs: HOUR });
const meta = { name: 'istio', namespace: 'emissary' };

/** Placeholders in the golden files, so that they are readable. */
const names: [string, string][] = [
  ['<leaf>\n', identity.chain[0]?.pem ?? ''],
  ['<intermediate>\n', issuing.certificate.pem],
  ['<root>\n', root.certificate.pem],
  ['<old root>\n', old.certificate.pem],
  ['<key>\n', identity.key.toPem()],
];

function context(
  tlsContext: Partial<EmissaryConfig['tlsContext']> & { readonly name: string },
): MeshCertificateSpec['gateways'] {
  return { emissary: { tlsContext: { enabled: true, ambassadorIds: [], ...tlsContext } } satisfies EmissaryConfig };
}

function usesOf(given: MeshCertificateSpec, targets?: readonly Target[]) {
  return gatewaysOf(given, gateways).map((use) => ({ ...use, targets }));
}

function spec(changes: Partial<MeshCertificateSpec> = {}): MeshCertificateSpec {
  return {
    mesh: { name: 'istio', config: {} },
    secretName: 'istio-identity',
    caSecretName: 'istio-ca',
    gateways: context({ name: 'istio' }),
    labels: {},
    renewal: { at: 0.6, jitter: 0.06 },
    trust: { retainMs: 24 * HOUR, holdMs: 600_000, withdrawn: [] },
    paused: false,
    deletionPolicy: 'Retain',
    ...changes,
  };
}

function written(given: MeshCertificateSpec, tls: Adapter['tls'], targets?: readonly Target[]): readonly KubeObject[] {
  const desired = desiredObjects({
    meta,
    spec: given,
    tls,
    identity,
    bundle: [root.certificate, old.certificate],
    since: new Map([[old.certificate.fingerprint, { state: 'retained', at: START }]]),
    uses: usesOf(given, targets),
  });
  return [...desired].sort((a, b) => a.order - b.order).map(({ object }) => object);
}

function readable(objects: readonly KubeObject[]): string {
  const documents = objects.map((object) => {
    const data = Object.entries((object.data ?? {}) as Record<string, string>).map(([key, value]) => {
      let text = object.kind === 'Secret' ? Buffer.from(value, 'base64').toString() : value;
      for (const [name, pem] of names) text = text.replaceAll(pem, name);
      return [key, text];
    });
    return stringify(data.length > 0 ? { ...object, data: Object.fromEntries(data) } : object);
  });
  return documents.join('---\n').replaceAll(old.certificate.fingerprint.slice(0, 16), '<old root fp>');
}

/** With GOLDEN=write in the environment, the files are written again. */
function golden(name: string, text: string): void {
  const path = new URL(`${name}.yaml`, import.meta.url);
  if (process.env.GOLDEN === 'write') writeFileSync(path, text);
  assert.equal(text, readFileSync(path, 'utf8'));
  for (const document of parseAllDocuments(text)) assert.deepEqual(document.errors, []);
}

test('for Istio: two Secrets and one TLSContext with its application protocols', () => {
  golden('istio', readable(written(spec(), { alpnProtocols: 'istio-http/1.1,istio,http/1.1' })));
});

test('for Linkerd: one TLSContext for each target, with its server name and only TLS 1.3', () => {
  const targets = ['web', 'orders'].map((account) => ({
    contextName: `linkerd-${account}-shop`,
    sni: `${account}.shop.serviceaccount.identity.linkerd.cluster.local`,
  }));
  const given = spec({
    secretName: 'linkerd-identity',
    caSecretName: 'linkerd-ca',
    gateways: context({ name: 'linkerd' }),
  });
  golden('linkerd', readable(written(given, { minTlsVersion: 'v1.3', maxTlsVersion: 'v1.3' }, targets)));
});

test("with every user setting, the user's values win, except for the owner labels", () => {
  const given = spec({
    configMapName: 'mesh.roots',
    labels: { team: 'edge', 'meshcert.dev/owner': 'somebody.else' },
    gateways: context({
      name: 'istio',
      ambassadorIds: ['edge', 'edge-2'],
      sni: 'web.shop',
      alpnProtocols: 'h2',
      minTlsVersion: 'v1.2',
      maxTlsVersion: 'v1.3',
    }),
  });
  golden('everything', readable(written(given, { alpnProtocols: 'istio' })));
});

test('equal inputs give equal objects, whatever the time', async () => {
  const before = written(spec(), {});
  await clock.advance(HOUR);
  assert.deepEqual(written(spec(), {}), before);
});

test('without a desired TLSContext, none is written', () => {
  const given = spec({ gateways: context({ enabled: false, name: 'istio' }) });
  assert.deepEqual(
    written(given, {}).map(({ kind }) => kind),
    ['Secret', 'Secret'],
  );
});

test('what is written reads back: roots, their times, key and chain', () => {
  const { bundle, since, identity: read, problems } = readPublication(spec(), written(spec(), {}));
  assert.deepEqual(problems, []);
  assert.deepEqual(
    bundle.map(({ fingerprint }) => fingerprint),
    [root.certificate.fingerprint, old.certificate.fingerprint],
  );
  assert.deepEqual([...since.keys()], [old.certificate.fingerprint]);
  assert.equal(read?.key.publicKeyFingerprint, identity.key.publicKeyFingerprint);
  assert.equal(read?.chain.length, 2);
});

test('damaged objects are reported, not thrown, and the good ones are still read', () => {
  const damaged = written(spec(), {}).map((object) =>
    object.metadata.name === 'istio-identity' ? { ...object, data: { 'tls.crt': 'bm9uc2Vuc2U=' } } : object,
  );
  const { bundle, identity: read, problems } = readPublication(spec(), damaged);
  assert.equal(bundle.length, 2);
  assert.equal(read, undefined);
  assert.match(problems[0]?.object ?? '', /Secret emissary\/istio-identity/);
});

test('a publication lists its objects in write order, and the reverse order deletes contexts before their Secrets', () => {
  const order = ['Secret istio-ca', 'Secret istio-identity', 'TLSContext istio'];
  assert.deepEqual(
    written(spec(), {}).map(({ kind, metadata: { name } }) => `${kind} ${name}`),
    order,
  );
  assert.deepEqual(
    publicationRefs({ metadata: meta, spec: spec() }, usesOf(spec())).map(({ kind, name }) => `${kind} ${name}`),
    order,
  );
});

test('names that Emissary would misread, an empty bundle and an empty chain are refused', () => {
  const cases: [Partial<MeshCertificateSpec>, RegExp][] = [
    [{ secretName: 'istio.identity' }, /ERR_GATEWAY_NAME.*has a dot/],
    [{ caSecretName: 'istio-certs' }, /ERR_GATEWAY_NAME.*istio-certs/],
    [{ gateways: context({ name: 'a.b' }) }, /ERR_GATEWAY_NAME.*has a dot/],
    [{ gateways: context({ name: 'web-context' }) }, /ERR_GATEWAY_NAME.*Host named web/],
  ];
  for (const [changes, expected] of cases) {
    assert.throws(
      () => written(spec(changes), {}),
      (error: Error & { code?: string }) => expected.test(`${error.code} ${error.message}`),
    );
  }
  const input = { meta, spec: spec(), tls: {}, identity, bundle: [], since: new Map(), uses: usesOf(spec()) };
  assert.throws(() => desiredObjects(input), { code: 'ERR_GATEWAY_EMPTY_BUNDLE' });
  const noChain = { ...input, bundle: [root.certificate], identity: { ...identity, chain: [] } };
  assert.throws(() => desiredObjects(noChain), { code: 'ERR_GATEWAY_EMPTY_CHAIN' });
});

test('an owner label fits into 63 characters and stays unique', () => {
  assert.equal(ownerLabel({ namespace: 'emissary', name: 'istio' }), 'emissary.istio');
  const long = 'a'.repeat(100);
  const [one, two] = [
    ownerLabel({ namespace: 'ns', name: `${long}1` }),
    ownerLabel({ namespace: 'ns', name: `${long}2` }),
  ];
  assert.ok((one?.length ?? 99) <= 63 && one !== two);
});
