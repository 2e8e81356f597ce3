import assert from 'node:assert/strict';
import { it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { askGateway } from '../../src/agent/live.ts';
import { systemClock } from '../../src/async/clock.ts';
import {
  diagnosticsRequests,
  type ExpectedFiles,
  expectedFiles,
  judgeAnswers,
} from '../../src/gateway/emissary/loading.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { eventually } from './parts/eventually.ts';
import { type Followed, followedByEmissary } from './servers/emissary-judge.ts';
import { startEnvoy } from './servers/envoy.ts';
import { scratchDir } from './servers/process.ts';

const GETAMBASSADOR = 'getambassador.io/v3alpha1';
const object = (apiVersion: string, kind: string, name: string, rest: object): KubeObject => ({
  ...{ apiVersion, kind, metadata: { name, namespace: 'emissary' } },
  ...rest,
});
const base64 = (text: string) => Buffer.from(text).toString('base64');

/** What is published of one pair, and how Emissary's Go part sends it to diagd. */
function publication(roots: readonly SandboxCa[], lifetimeMs: number) {
  const [ca] = roots;
  assert.ok(ca);
  const { key, chain } = ca.identity({ uris: ['spiffe://cluster.local/ns/emissary/sa/emissary'], lifetimeMs });
  const pair = { 'tls.crt': base64(chain.map(({ pem }) => pem).join('')), 'tls.key': base64(key.toPem()) };
  const secrets = [
    object('v1', 'Secret', 'istio-identity', { type: 'kubernetes.io/tls', data: pair }),
    object('v1', 'Secret', 'istio-ca', {
      type: 'Opaque',
      data: { 'tls.crt': base64(roots.map(({ root }) => root.pem).join('')) },
    }),
  ];
  const names = { secretName: 'istio-identity', caSecretName: 'istio-ca' };
  const expected = expectedFiles(
    names,
    secrets.map((one) => ({ object: one })),
  );
  assert.ok(expected);
  return { secrets, expected };
}

const snapshot = (
  { secrets }: ReturnType<typeof publication>,
  routes: { readonly Mapping?: readonly KubeObject[]; readonly TCPMapping?: readonly KubeObject[] },
  changed: readonly (readonly [string, string])[],
) => ({
  Kubernetes: {
    Listener: [
      ['http', 8080, 'HTTP'],
      ['tcp', 9000, 'TCP'],
    ].map(([name, port, protocol]) =>
      object(GETAMBASSADOR, 'Listener', String(name), {
        spec: { port, protocol, securityModel: 'XFP', hostBinding: { namespace: { from: 'ALL' } } },
      }),
    ),
    TLSContext: [
      object(GETAMBASSADOR, 'TLSContext', 'istio', { spec: { secret: 'istio-identity', ca_secret: 'istio-ca' } }),
    ],
    Mapping: [mapping('plain', { service: 'http://plain.invalid:80' }), ...(routes.Mapping ?? [])],
    TCPMapping: routes.TCPMapping ?? [],
    secret: secrets,
  },
  Consul: {},
  Invalid: [],
  Deltas: changed.map(([kind, name]) => ({
    ...{ kind, deltaType: 'update', metadata: { name, namespace: 'emissary' } },
    apiVersion: kind === 'Secret' ? 'v1' : GETAMBASSADOR,
  })),
});
const mapping = (name: string, spec: object): KubeObject =>
  object(GETAMBASSADOR, 'Mapping', name, { spec: { hostname: '*', prefix: `/${name}/`, ...spec } });

const SECRET = ['Secret', 'istio-identity'] as const;
const CA_SECRET = ['Secret', 'istio-ca'] as const;
const CONTEXT = ['TLSContext', 'istio'] as const;
const OTHER = ['Mapping', 'plain'] as const;
const WEB = { Mapping: [mapping('web', { service: 'https://web.invalid:443', tls: 'istio' })] };
const TCP = {
  TCPMapping: [
    object(GETAMBASSADOR, 'TCPMapping', 'db', { spec: { port: 9000, service: 'db.invalid:443', tls: 'istio' } }),
  ],
};

/** A real Envoy with the clusters of Emissary's code, which keeps the files of Secrets below the returned directory. */
async function envoyWith({ clusters }: Followed) {
  const envoy = await startEnvoy({ listeners: [], clusters });
  const { signal } = new AbortController();
  const read = async (request: Parameters<typeof askGateway>[0]) => {
    const answer = await askGateway(request, systemClock, signal);
    if ('failure' in answer) throw new Error(answer.failure);
    return answer.body;
  };
  const [, wanted] = diagnosticsRequests('http://pod:8877');
  return {
    envoy,
    certs: () => read({ url: new URL(`${envoy.adminUrl}/certs`) }),
    /** What Emissary's /metrics passes on. */
    metrics: () => read({ ...wanted, url: new URL(`${envoy.adminUrl}/stats/prometheus`) }),
    [Symbol.asyncDispose]: () => envoy[Symbol.asyncDispose](),
  };
}

const arrival = (answers: readonly unknown[], expected: ExpectedFiles) => judgeAnswers(answers, expected)?.arrival;

for (const [routes, is] of [
  [WEB, 'a Mapping'],
  [TCP, 'a TCPMapping'],
] as const) {
  it(`by Emissary's diagnostics and Envoy's metrics, ${is} is live exactly when Envoy uses the new pair`, async (test) => {
    const ca = SandboxCa.root();
    const [old, next] = [publication([ca], 3_600_000), publication([ca], 7_200_000)];
    const [first, mixed, complete] = await followedByEmissary(
      [
        snapshot(old, routes, [SECRET, CA_SECRET, CONTEXT]),
        snapshot(next, routes, [SECRET, OTHER]),
        snapshot(next, routes, [CONTEXT]),
      ],
      scratchDir('live-emissary'),
    );
    assert.ok(first && mixed && complete);
    await using it = await envoyWith(first);
    const seen: (string | undefined)[] = [];
    const judge = async ({ diagnostics }: Followed, { expected }: typeof old) => {
      const found = arrival([diagnostics, await it.metrics()], expected);
      // Envoy's own list of files decides whether this is right.
      const truth = arrival([await it.certs()], expected);
      assert.equal(found, truth);
      seen.push(found);
      return found;
    };
    assert.equal(await judge(first, old), 'live');
    assert.equal(await judge(first, next), 'stale', 'Emissary has not read it');
    await it.envoy.swap(mixed.clusters);
    assert.equal(await judge(mixed, next), 'stale', 'a Mapping changed in the same batch');
    assert.equal(await judge(complete, next), 'stale', 'Emissary has read it, and Envoy has not');
    await it.envoy.swap(complete.clusters);
    await eventually('the new pair', async () => (await judge(complete, next)) === 'live');
    assert.equal(
      arrival([complete.diagnostics, undefined], next.expected),
      'read',
      'the diagnostics alone prove nothing',
    );
    test.diagnostic(`${is}: ${seen.join(', ')}`);
  });
}

it("by Emissary's diagnostics and Envoy's metrics, a new trust bundle is live once Envoy has it", async () => {
  const [one, two] = [SandboxCa.root({ name: 'one' }), SandboxCa.root({ name: 'two', lifetimeMs: 40 * 86_400_000 })];
  const old = publication([one], 3_600_000);
  const bundle = publication([two, one], 3_600_000);
  const [pair] = old.secrets;
  const [, trust] = bundle.secrets;
  assert.ok(pair && trust);
  const secrets = [pair, trust];
  const expected = expectedFiles(
    { secretName: 'istio-identity', caSecretName: 'istio-ca' },
    secrets.map((object) => ({ object })),
  );
  assert.ok(expected);
  const next = { secrets, expected };
  const [first, mixed, complete] = await followedByEmissary(
    [
      snapshot(old, WEB, [SECRET, CA_SECRET, CONTEXT]),
      snapshot(next, WEB, [CA_SECRET, OTHER]),
      snapshot(next, WEB, [CONTEXT]),
    ],
    scratchDir('live-emissary'),
  );
  assert.ok(first && mixed && complete);
  await using it = await envoyWith(first);
  const judge = async ({ diagnostics }: Followed) => arrival([diagnostics, await it.metrics()], expected);
  assert.equal(await judge(first), 'stale');
  await it.envoy.swap(mixed.clusters);
  assert.equal(await judge(mixed), 'stale');
  await it.envoy.swap(complete.clusters);
  await eventually('the new bundle', async () => (await judge(complete)) === 'live');
  await eventually('by its files too', async () => arrival([await it.certs()], expected) === 'live');
});
