import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type RunningGateway, startGateway } from '../../sandbox/emissary/gateway.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { type SandboxUpstream, startUpstream } from '../../sandbox/tls/upstream.ts';
import { diagnose } from '../../src/doctor/doctor.ts';
import { findGateways } from '../../src/gateway/emissary/reading.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { material, objectsOf, readExamples } from './examples.ts';

const { ca, other, texts } = material();
const { base, examples } = readExamples();
const HOUR = 3_600_000;
const READ = ['Secret', 'TLSContext', 'Mapping', 'TCPMapping', 'Module'];
/** The same Mapping in its usual form. */
const withoutScheme = (yaml: string) => yaml.replaceAll('https://web.shop', 'web.shop');

interface Scene {
  readonly gateway: RunningGateway;
  readonly impostor: SandboxUpstream;
  apply(objects: readonly KubeObject[]): void;
  /** The status of a request, and whether the impostor got it. */
  request(path?: string): Promise<{ status: number; reached: boolean }>;
}

/**
 * A gateway over these objects whose upstream is an impostor: with another CA, requiring any or no client certificate,
 * or plaintext. A gateway that verifies its upstream never talks to it.
 */
async function scene(objects: readonly KubeObject[], act: (scene: Scene) => Promise<void>): Promise<void> {
  const api: KubeApi = await startKubeApi({ namespaces: ['emissary', 'shop', 'certs'], tls: false });
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  const apply = (all: readonly KubeObject[]) => {
    for (const object of all) if (READ.includes(object.kind)) api.put(object);
  };
  apply(objects);
  const server = other.identity({ uris: ['spiffe://other/impostor'], lifetimeMs: HOUR });
  const impostor = await startUpstream({
    identity: () => server,
    trust: () => [ca.certificate],
    anonymous: true,
    plaintext: true,
  });
  const env = findGateways(objects)[0]?.env ?? {};
  const gateway = await startGateway({
    kube,
    env: { ...env, batchMs: 20 },
    resolve: () => ({ host: '127.0.0.1', port: impostor.port }),
  });
  const request = async (path = '/web/') => {
    const before = impostor.requests + impostor.counts.plaintext;
    const response = await fetch(gateway.url + path);
    await response.text();
    return { status: response.status, reached: impostor.requests + impostor.counts.plaintext > before };
  };
  try {
    await act({ gateway, impostor, apply, request });
  } finally {
    await gateway.stop();
    await impostor.stop();
    kube.close();
    await api.stop();
  }
}

const example = (code: string): string => {
  const found = examples.find((one) => one.code === code);
  assert.ok(found, `docs/checks.md has no example of ${code}`);
  return found.yaml;
};

const finds = (objects: readonly KubeObject[], code: string): boolean =>
  diagnose({ adapters, objects, now: Date.now(), whole: new Set() }).some((finding) => finding.code === code);

test('without a fault, the gateway refuses the impostor', () =>
  scene(objectsOf(texts, base), async ({ request }) => {
    assert.deepEqual(await request(), { status: 503, reached: false });
  }));

const FAIL_OPEN = [
  'MC1001',
  'MC1002',
  'MC1006',
  'MC1007',
  'MC1011',
  'MC1012',
  'MC1101',
  'MC1102',
  'MC1103',
  'MC1104',
  'MC1107',
  'MC1108',
  'MC1109',
];

for (const code of FAIL_OPEN) {
  test(`${code}: the impostor is accepted, in plaintext if the Mapping has no scheme; doctor finds it before`, async () => {
    const objects = objectsOf(texts, base, example(code));
    assert.ok(finds(objects, code));
    await scene(objects, async ({ request, impostor }) => {
      assert.deepEqual(await request(), { status: 200, reached: true });
      assert.equal(impostor.counts.plaintext, 0);
      assert.equal(impostor.peers.size, 0, 'no client certificate was shown');
    });
    await scene(objectsOf(texts, withoutScheme(base), withoutScheme(example(code))), async ({ request, impostor }) => {
      assert.deepEqual(await request(), { status: 200, reached: true });
      assert.equal(impostor.counts.plaintext, 1);
    });
  });
}

for (const code of ['MC1005']) {
  test(`${code}: the upstream is not verified, so the impostor is accepted; doctor finds it before`, async () => {
    const objects = objectsOf(texts, base, example(code));
    assert.ok(finds(objects, code));
    await scene(objects, async ({ request }) => assert.deepEqual(await request(), { status: 200, reached: true }));
  });
}

for (const code of ['MC1004', 'MC1201', 'MC1202']) {
  test(`${code}: the gateway is frozen, and another, valid Mapping does not take effect`, async () => {
    const objects = objectsOf(texts, base, example(code));
    assert.ok(finds(objects, code));
    await scene(objectsOf(texts, base), async ({ gateway, apply, request }) => {
      apply(objects);
      await gateway.until(({ refusal }) => refusal !== undefined);
      const refused = gateway.counts.refused;
      apply(
        objectsOf(texts, base.replace('name: web,', 'name: later,').replace('/web/', '/later/')).filter(
          ({ kind }) => kind === 'Mapping',
        ),
      );
      await gateway.until(({ counts }) => counts.refused > refused);
      assert.equal((await request('/later/')).status, 404);
    });
  });
}

test('MC1106: a root that was replaced beside an unchanged pair is still trusted; doctor finds it before', async () => {
  const before = objectsOf({ ...texts, roots: texts['other.roots'] ?? '' }, base, example('MC1106'));
  assert.ok(finds(before, 'MC1106'));
  await scene(before, async ({ gateway, apply, request }) => {
    assert.deepEqual(await request(), { status: 200, reached: true });
    apply(objectsOf(texts, base, example('MC1106')));
    await gateway.until(({ counts }) => counts.complete === 2);
    assert.deepEqual(await request(), { status: 200, reached: true });
  });
});

test('MC1303: the second Mapping uses the cluster of the first; doctor finds it before', async () => {
  const objects = objectsOf(texts, base, example('MC1303'));
  assert.ok(finds(objects, 'MC1303'));
  await scene(objects, async ({ gateway }) => {
    assert.equal(gateway.configuration.routes.length, 2);
    assert.equal(gateway.configuration.clusters.size, 1);
  });
});

test('MC1105: the gateway trusts only its own leaf, so that no upstream of the mesh verifies', async () => {
  const objects = objectsOf(texts, base, example('MC1105'));
  assert.ok(finds(objects, 'MC1105'));
  await scene(objects, async ({ request }) => assert.deepEqual(await request(), { status: 503, reached: false }));
});
