import assert from 'node:assert/strict';
import { symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseAllDocuments, stringify } from 'yaml';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { connect } from '../../src/kube/client.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { type Load, startLoad } from '../peers/parts/load.ts';
import { type PairWatch, watchPair } from '../peers/parts/pair-watch.ts';
import { NAMESPACE as ENVOY_GATEWAY } from '../peers/servers/envoy-gateway.ts';
import { noCluster } from './cluster.ts';
import { type Life, startLife } from './life.ts';
import { installEnvoyGateway, type ManagedProxy, managedProxy, PROVIDER } from './mesh/envoy-gateway.ts';
import { GATEWAY, GATEWAY_ID } from './mesh/gateway.ts';
import { CLIENT_HEADERS, installWorkload } from './mesh/istio.ts';
import { eventsAndLogs } from './mesh/objects.ts';
import { blocksOf } from './session.ts';
import type { World } from './world.ts';

const skip = noCluster();
const { namespace } = GATEWAY;
const GUIDE = 'docs/gateway-api.md';
/** Requests a second by each route through the Gateway, beside those through Emissary. */
const PER_SECOND = 50;

let life: Life;
let proxy: ManagedProxy;
/** What the Envoy was before the first rotation. */
let first: string;
/** The last step of the guide: the route. */
let routeScript: string;

/** A route through the Gateway, the pair that it presents, and the requests by it. */
interface Way {
  readonly path: string;
  readonly pair: PairWatch;
  readonly load: Load;
}
const ways: Partial<Record<'service' | 'backend', Way>> = {};
const stops: (() => PromiseLike<unknown>)[] = [];

// biome-ignore lint/suspicious/noExplicitAny: objects of the guide, of any kind
const objectsOf = (yaml = ''): any[] => parseAllDocuments(yaml).map((document) => document.toJS());

async function guide(heading: string, language: 'yaml' | 'sh'): Promise<string[]> {
  return (await blocksOf(GUIDE, heading)).filter((block) => block.language === language).map(({ text }) => text);
}

/**
 * What the guide creates, word for word, but for the image of the Envoy, and with both MeshCertificates in the values of
 * the chart: one for Emissary and Services, and one for Backends.
 */
async function install(world: World): Promise<string> {
  const { shell, chart } = world;
  const [[gateway, service], [backend, backendRoute], [both, route], scripts] = await Promise.all([
    guide('## Set it up', 'yaml'),
    guide('## Backends', 'yaml'),
    guide('## Move from Emissary', 'yaml'),
    guide('## Move from Emissary', 'sh'),
  ]);
  routeScript = scripts.find((script) => script.includes('route.yaml')) ?? '';
  const [envoyProxy, ...gateways] = objectsOf(gateway);
  const [leading, certificate] = objectsOf(backend);
  // The guide's MeshCertificate is `istio`; here that one serves Emissary and Services.
  leading.spec.tls.clientCertificateRef.name = 'backends-identity';
  const traffic = {
    apiVersion: 'gateway.envoyproxy.io/v1alpha1',
    kind: 'BackendTrafficPolicy',
    metadata: { name: 'edge', namespace },
    spec: {
      targetRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'edge' }],
      // Handshakes never stop.
      circuitBreaker: { maxRequestsPerConnection: 5 },
      timeout: { http: { maxConnectionDuration: '5s' } },
    },
  };
  const values = {
    certificates: [
      { name: 'istio', spec: objectsOf(both)[0].spec },
      { name: 'backends', spec: { ...certificate.spec, deletionPolicy: 'Delete' } },
    ],
  };
  const files = {
    'gateway.yaml': [{ ...envoyProxy, spec: { ...envoyProxy.spec, provider: PROVIDER } }, ...gateways, traffic],
    'service.yaml': objectsOf(service),
    'backend.yaml': [leading],
    'backend-route.yaml': objectsOf(backendRoute),
    'route.yaml': objectsOf(route),
    'mesh-values.yaml': [values],
  };
  for (const [name, objects] of Object.entries(files)) {
    await writeFile(join(shell.dir, name), objects.map((object) => stringify(object)).join('---\n'));
  }
  await symlink(await builtBundle(), join(shell.dir, 'kubectl-meshcert'));
  await installEnvoyGateway(world);
  return `kubectl apply -f gateway.yaml -f service.yaml -f backend.yaml
    helm install meshcert ${chart} -n emissary --wait -f mesh-values.yaml`;
}

before(async () => {
  if (skip) return;
  life = await startLife(install, 'envoy-gateway');
  proxy = await managedProxy(life.world.cluster, { namespace, name: 'edge' });
  first = await proxy.life();
});
after(async () => {
  for (const stop of stops.reverse()) await stop();
  await life?.[Symbol.asyncDispose]();
});

/** Requests by a route, from its first answer on. */
async function open(path: string, pair: PairWatch): Promise<Way> {
  await presented({ path, pair });
  const load = startLoad(`${proxy.url}${path}`, '', PER_SECOND);
  stops.push(() => load.stop());
  return { path, pair, load };
}

/** The workload sees the certificate that was published last. */
async function presented({ path, pair }: Pick<Way, 'path' | 'pair'>): Promise<void> {
  let seen = '';
  await eventually(
    `the published certificate by ${path}`,
    async () => {
      const { status, headers } = await fetch(`${proxy.url}${path}`);
      const [id, fingerprint] = [headers.get(CLIENT_HEADERS.id), headers.get(CLIENT_HEADERS.fingerprint)];
      seen = `${status} ${id} ${fingerprint}`;
      return status === 200 && id === GATEWAY_ID && fingerprint === pair.leaves.at(-1)?.fingerprint;
    },
    () => seen,
  );
}

/** No request failed, none was in plaintext, each pair is good, and it is still the same Envoy. */
async function unharmed(): Promise<string> {
  const { cluster } = life.world;
  const trouble = async () =>
    [...(await proxy.failures()).slice(0, 5), await eventsAndLogs(cluster, ENVOY_GATEWAY)].join('\n');
  const said: string[] = [];
  for (const [name, { load, pair }] of Object.entries(ways)) {
    if (load.failed > 0) assert.fail(`${name}: ${load.failures.join('\n')}\n${await trouble()}`);
    assert.deepEqual(pair.violations, []);
    said.push(`${name}: ${load.answered} answered, ${load.failed} failed, ${pair.leaves.length} leaves`);
  }
  // A connection counts before its handshake does.
  let seen = { made: 0, failed: 0, byTls: 0 };
  const allByTls = async () => {
    seen = await proxy.connections();
    return seen.byTls > 0 && seen.made - seen.failed <= seen.byTls;
  };
  await eventually('every connection by TLS', allByTls, () => JSON.stringify(seen), 5_000);
  assert.equal(await proxy.life(), first, 'the Envoy was restarted, or its Deployment changed');
  return `Emissary: ${await life.unharmed()}; ${said.join('; ')}; ${seen.byTls} of ${seen.made} connections by TLS`;
}

/** What the status says about a Service or another object. */
const reasonsOf = (certificate: string): Promise<string> =>
  life.get(`mcert ${certificate} -o jsonpath='{.status.mappings} {.status.conditions}'`);

test('where istiod watches the Gateway API, a Service is left with the reason, and a Backend is served', {
  skip,
}, async (t) => {
  let said = '';
  const isLeft = async () => {
    said = await reasonsOf('istio');
    return said.includes('ERR_TARGET_MESH_POLICY');
  };
  await eventually('the reason', isLeft, () => said);
  const policies = 'kubectl get backendtlspolicies -A -o name';
  await life.user(`kubectl -n emissary wait --for=create backendtlspolicy/backends-web.backend --timeout=60s
    kubectl apply -f backend-route.yaml
    kubectl -n emissary wait --for=jsonpath='{.status.conditions[?(@.type=="Live")].reason}'=StatusAccepted meshcertificate/backends --timeout=60s`);
  assert.doesNotMatch(await life.user(policies), /istio-web/);
  const kube = connect({ kubeconfig: life.world.cluster.kubeconfigFile, userAgent: 'watcher' });
  stops.push(async () => kube.close());
  const pair = watchPair(kube, { namespace, identity: 'backends-identity', ca: 'backends-ca' });
  stops.push(() => pair[Symbol.asyncDispose]());
  ways.backend = await open('/', pair);
  t.diagnostic(await unharmed());
});

test('istiod without the Gateway API, as the guide says: the Service is served too', { skip }, async (t) => {
  await life.user(`before=$(kubectl -n istio-system get pods -o name)
    kubectl -n istio-system set env deployment/istiod PILOT_ENABLE_GATEWAY_API=false
    kubectl -n istio-system rollout status deployment/istiod --timeout=2m
    kubectl -n istio-system wait --for=delete $before --timeout=2m
    kubectl get gatewayclasses --no-headers -o custom-columns=:metadata.name,:spec.controllerName |
      awk '$2 ~ /^istio.io/ {print $1}' | xargs kubectl delete gatewayclass
    kubectl -n shop wait --for=create backendtlspolicy/istio-web-https --timeout=60s
    ${routeScript}`);
  ways.service = await open('/web/', life.pair);
  for (const scope of ['', '-n emissary']) {
    const found = await life.user(`PATH=$PWD:$PATH kubectl meshcert doctor ${scope} || true`);
    assert.doesNotMatch(found, /^error /m, found);
  }
  t.diagnostic(await unharmed());
});

test('the leaf rotates: each gateway presents the new one, and no Envoy restarts', { skip }, async (t) => {
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  for (const way of Object.values(ways)) await presented(way);
  t.diagnostic(await unharmed());
});

test('the writer is evicted', { skip }, async (t) => {
  const { cluster } = life.world;
  const writer = await life.writer();
  const body = { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name: writer, namespace } };
  const path = `/api/v1/namespaces/${namespace}/pods/${writer}/eviction`;
  assert.equal((await cluster.call('POST', path, body)).status, 201);
  const [other, write] = await Promise.all([life.nextWriter(writer), life.nextWrite()]);
  for (const way of Object.values(ways)) await presented(way);
  t.diagnostic(`another writer after ${other} ms, next write after ${write} ms`);
  t.diagnostic(await unharmed());
});

test('a pod with another ServiceAccount, which was announced as the guide says, is not refused', {
  skip,
}, async (t) => {
  const { cluster } = life.world;
  const { all } = await proxy.changes();
  await life.user('kubectl -n shop annotate service web meshcert.dev/next-service-accounts=web-new');
  await eventually('each changed policy is used', async () => {
    const now = await proxy.changes();
    return now.all >= all + Object.keys(ways).length && now.pending === 0;
  });
  await installWorkload(cluster, { name: 'web-new', namespace: 'shop', service: { name: 'web' }, client: GATEWAY_ID });
  await life.user('kubectl -n shop annotate service web meshcert.dev/next-service-accounts-');
  for (const { path } of Object.values(ways)) {
    const answers = async () => (await fetch(`${proxy.url}${path}`)).text();
    await eventually(`an answer of the new pod by ${path}`, async () => (await answers()) === 'web-new');
  }
  t.diagnostic(await unharmed());
});

test('Envoy Gateway itself is replaced during a rotation', { skip }, async (t) => {
  await life.user(`kubectl -n ${ENVOY_GATEWAY} delete pod -l control-plane=envoy-gateway --force --grace-period=0`);
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  for (const way of Object.values(ways)) await presented(way);
  t.diagnostic(await unharmed());
});

test('deletionPolicy: Delete waits for the Backend and its route, and then leaves nothing', { skip }, async (t) => {
  await life.user('kubectl -n emissary delete mcert backends --wait=false');
  let said = '';
  const waits = async () => {
    said = await reasonsOf('backends');
    return said.includes('ERR_RETIRE_WAITS');
  };
  await eventually('what it waits for', waits, () => said);
  t.diagnostic(said);
  const { backend } = ways;
  await backend?.load.stop();
  t.diagnostic(await unharmed());
  delete ways.backend;
  await life.user(`kubectl -n emissary delete httproute web
    kubectl -n emissary delete backends.gateway.envoyproxy.io web
    kubectl -n emissary wait --for=delete mcert/backends --timeout=60s`);
  const left = await life.user(
    'kubectl -n emissary get secrets,configmaps,backendtlspolicies.gateway.networking.k8s.io -o name',
  );
  assert.doesNotMatch(left, /backends/);
  t.diagnostic(await unharmed());
});

test('the root is renewed', { skip }, async (t) => {
  const roots = () => new Set(life.pair.bundles.flat()).size;
  await life.pair.until(() => roots() >= 2, 240_000, 'a second root');
  t.diagnostic(`next write after ${await life.nextWrite()} ms`);
  for (const way of Object.values(ways)) await presented(way);
  t.diagnostic(`${roots()} roots; ${await unharmed()}`);
});

test('helm uninstall leaves what both gateways use', { skip }, async (t) => {
  await life.nextWrite();
  await life.user('helm uninstall meshcert -n emissary --wait');
  const named = 'kubectl -n emissary get envoyproxy edge -o jsonpath={.spec.backendTLS.clientCertificateRef.name}';
  assert.equal(await life.user(named), 'istio-identity');
  const columns = 'custom-columns=:kind,:metadata.namespace,:metadata.name';
  const left = await life.user(`kubectl get -A secrets,configmaps,backendtlspolicies --no-headers -o ${columns}`);
  for (const [kind, place, name] of [
    ['Secret', 'emissary', 'istio-identity'],
    ['Secret', 'emissary', 'istio-ca'],
    ['ConfigMap', 'shop', 'istio-ca'],
    ['BackendTLSPolicy', 'shop', 'istio-web-https'],
  ]) {
    assert.match(left, new RegExp(`^${kind} +${place} +${name}$`, 'm'));
  }
  const { service } = ways;
  const { load } = service ?? assert.fail('the Service is not served');
  const { answered } = load;
  await eventually('50 more answers', async () => load.answered >= answered + 50 || load.failed > 0);
  await load.stop();
  await life.load.stop();
  t.diagnostic(`from the first test to here: ${await unharmed()}`);
});
