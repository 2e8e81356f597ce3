import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { grantedKubeconfig } from './parts/agent-in-role.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import {
  backend,
  backendRef,
  type Condition,
  configMap,
  fromSecret,
  GATEWAYS,
  type GatewayLab,
  gateway,
  policy,
  route,
  SHOP,
  secret,
  serialOf,
  service,
  startGatewayLab,
  startUpstream,
  type Upstream,
} from './parts/gateway-lab.ts';
import { writePair } from './parts/mesh-files.ts';
import { type Authority, authority, type KeyPair } from './servers/authority.ts';
import type { ApplyObject } from './servers/kube-client.ts';
import { discard, scratchDir } from './servers/process.ts';

const DAY = 86_400_000;
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const TENANT = 'tenant';
/** More than a ReferenceGrant has entries; the last one has a Gateway that Envoy Gateway runs. */
const EDGES = Array.from({ length: 20 }, (_, at) => `edge${String(at).padStart(2, '0')}`);
const LAST = 'edge19';
const OTHER_CONTROLLER = 'example.com/other';
const allow = { 'meshcert.dev/allow-from': GATEWAYS };

const documents = (directory: string): string => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: granted, namespace: ${GATEWAYS}}
spec:
  file: {directory: ${directory}}
  gatewayApi:
    gateways: {selector: {matchLabels: {mesh: granted}}, namespaces: ["*", ${EDGES.join(', ')}]}
    clientCertificate: Gateway
    controllers: [${OTHER_CONTROLLER}]
    services: {selector: {matchLabels: {mesh: granted}}, namespaces: [${SHOP}]}
    subjectAltNames: ["${WEB}"]
---
apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: closed, namespace: ${GATEWAYS}}
spec:
  file: {directory: ${directory}}
  gatewayApi:
    backends: {selector: {matchLabels: {mesh: closed}}}
    subjectAltNames: ["${WEB}"]
`;

const placed = (object: ApplyObject, namespace: string, more: object = {}, spec: object = {}): ApplyObject => ({
  ...object,
  metadata: { name: object.metadata.name, namespace, ...more },
  spec: { ...(object.spec as object), ...spec },
});
const to = (object: ApplyObject, through: ApplyObject): ApplyObject => ({
  ...object,
  spec: {
    ...(object.spec as object),
    parentRefs: [{ name: through.metadata.name, namespace: through.metadata.namespace }],
  },
});

/** What upstreams saw of some requests; `other`: the gateway answered by itself. */
interface Tally {
  mtls: number;
  bare: number;
  plaintext: number;
  other: number;
}

describe('who may create Gateways, routes, Backends and policies, on the real Envoy Gateway', () => {
  let lab: GatewayLab;
  let mesh: Authority;
  let agent: AgentProcess;
  let pair: KeyPair;
  const files = scratchDir('tenant');
  const upstreams: Upstream[] = [];
  const edge = gateway('edge');
  const last = placed(gateway('last'), LAST, { labels: { mesh: 'granted' }, annotations: allow });
  const tenants = placed(gateway('theirs', { tls: { backend: fromSecret('granted-identity', GATEWAYS) } }), TENANT);
  const log = () => agent.log() + lab.envoyGateway.log();

  async function upstream(): Promise<Upstream> {
    const one = await startUpstream({ leaf: await mesh.issue({ uri: [WEB] }), roots: mesh.root, merelyAsks: true });
    upstreams.push(one);
    await lab.envoyGateway.expose(one.port);
    return one;
  }
  const start = async () => {
    const given = documents(files);
    agent = await startAgentProcess({
      kubeconfig: await grantedKubeconfig(lab.apiserver, { namespace: GATEWAYS, documents: given }),
      documents: given,
      args: ['--namespace', GATEWAYS, '--observe', 'names'],
    });
  };
  /** Requests, one after the other, until `over` resolves to true. */
  async function tally(through: ApplyObject, path: string, over: (seen: Tally) => Promise<boolean>): Promise<Tally> {
    const seen: Tally = { mtls: 0, bare: 0, plaintext: 0, other: 0 };
    const step = async () => {
      const { seen: found } = await lab.ask(through, path);
      if (!found) seen.other += 1;
      else if (!found.tls) seen.plaintext += 1;
      else if (found.serial === null) seen.bare += 1;
      else seen.mtls += 1;
      return await over(seen);
    };
    await eventually(`the end of the requests to ${path}`, step, log);
    return seen;
  }
  const grants = async (): Promise<readonly ApplyObject[]> => {
    const path = `/apis/gateway.networking.k8s.io/v1beta1/namespaces/${GATEWAYS}/referencegrants`;
    return (await lab.apiserver.call('GET', path)).body.items;
  };

  before(async () => {
    mesh = await authority('mesh', 3 * DAY);
    pair = await mesh.issue({ uri: ['spiffe://cluster.local/ns/gw/sa/gateway'], ttlMs: DAY });
    await writePair(files, pair, mesh.root);
    lab = await startGatewayLab();
    for (const namespace of [TENANT, ...EDGES]) await lab.apiserver.ensureNamespace(namespace);
    const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'meshcert', namespace: GATEWAYS } };
    await lab.apiserver.ensure(`/api/v1/namespaces/${GATEWAYS}/serviceaccounts`, account);
    const other = {
      ...{ apiVersion: 'gateway.networking.k8s.io/v1', kind: 'GatewayClass', metadata: { name: 'other' } },
      spec: { controllerName: OTHER_CONTROLLER },
    };
    await lab.apiserver.kubectl(['apply', '-f', '-'], { input: JSON.stringify(other) });
    for (const namespace of EDGES.filter((one) => one !== LAST)) {
      const meta = { labels: { mesh: 'granted' }, annotations: allow };
      await lab.apply(placed(gateway('far'), namespace, meta, { gatewayClassName: 'other' }));
    }
    await lab.apply(edge, last);
    await start();
  });
  after(async () => {
    await agent?.stop();
    await lab?.[Symbol.asyncDispose]();
    for (const one of upstreams) await one[Symbol.asyncDispose]();
    discard(files);
  });

  it('gives the certificate to the Gateways of 20 namespaces that are named and consent, and goes on with Services', async () => {
    await eventually('20 grants', async () => (await grants()).length === EDGES.length, log);
    const one = await upstream();
    const [first, ...rest] = service('web', one);
    assert.ok(first);
    const meta = { ...first.metadata, labels: { mesh: 'granted' }, annotations: allow };
    await lab.apply({ ...first, metadata: meta }, ...rest);
    const wanted = policy('granted-web-https');
    await eventually('the policy', async () => (await lab.read(wanted)).kind === 'BackendTLSPolicy', log);
    await lab.apply(to(route('web', []), last));
    await eventually(
      'the certificate at the last Gateway',
      async () => (await lab.ask(last, '/web')).seen?.serial === serialOf(pair),
      log,
    );
  });

  it('gives nothing to a Gateway that merely names the Secret: Envoy Gateway says so, and its upstream sees no certificate', async (t) => {
    const one = await upstream();
    const theirs = [...service('own', one), policy('own', { sans: [WEB] })].map((object) => ({
      ...object,
      metadata: { ...object.metadata, namespace: TENANT },
    }));
    const bundle = configMap('mesh-ca', { 'ca.crt': mesh.root });
    await lab.apply({ ...bundle, metadata: { ...bundle.metadata, namespace: TENANT } }, ...theirs, tenants);
    const own = to(route('own', []), tenants);
    await lab.apply({ ...own, metadata: { ...own.metadata, namespace: TENANT } });
    const refused = async () => {
      const { conditions = [] } = ((await lab.read(tenants)).status ?? {}) as { conditions?: readonly Condition[] };
      return conditions.some(({ type, reason }) => type === 'ResolvedRefs' && reason === 'RefNotPermitted');
    };
    await eventually('RefNotPermitted', refused, log);
    // Envoy takes changes of a cluster after 15 s.
    const end = Date.now() + 20_000;
    const seen = await tally(tenants, '/own', async () => Date.now() > end);
    t.diagnostic(JSON.stringify(seen));
    assert.equal(seen.mtls, 0, 'the leaf of the mesh was presented to the tenant');
    assert.ok(!(await grants()).some(({ spec }) => JSON.stringify(spec).includes(`"${TENANT}"`)));
    const named = agent
      .log()
      .split('\n')
      .filter((line) => line.includes(`${TENANT}/theirs`));
    assert.deepEqual(named, [], 'it is of no concern to the agent');
  });

  const named = () => ({
    ...backend('shut', upstreams.at(-1) ?? { port: 0 }),
    metadata: { name: 'shut', namespace: GATEWAYS, labels: { mesh: 'closed' } },
  });
  const withCertificate = (object: ApplyObject): ApplyObject => ({
    ...object,
    spec: { ...(object.spec as object), tls: fromSecret('closed-identity') },
  });
  const ours = (object: ApplyObject): ApplyObject => ({
    ...object,
    metadata: { ...object.metadata, namespace: GATEWAYS },
  });
  const shown = () =>
    eventually('mTLS', async () => (await lab.ask(edge, '/shut')).seen?.serial === serialOf(pair), log);

  it('sends neither plaintext nor anything without the certificate when an object is deleted, the agent alive or away', async (t) => {
    await upstream();
    await lab.apply(withCertificate(named()), ours(to(route('shut', [], backendRef('shut')), edge)));
    await shown();
    const objects = {
      policy: ours(policy('closed-shut.backend')),
      ConfigMap: ours(configMap('closed-ca', {})),
      Secret: secret('closed-identity', pair),
    };
    for (const [what, object] of Object.entries(objects)) {
      await lab.remove(object);
      let row = 0;
      const alive = await tally(edge, '/shut', async ({ mtls }) => {
        row = mtls;
        return row > 50;
      });
      await agent.stop();
      await lab.remove(object);
      const end = Date.now() + 10_000;
      const away = await tally(edge, '/shut', async () => Date.now() > end);
      await start();
      await shown();
      t.diagnostic(`${what} deleted, agent alive ${JSON.stringify(alive)}, away ${JSON.stringify(away)}`);
      assert.deepEqual([alive.plaintext, alive.bare, away.plaintext, away.bare], [0, 0, 0, 0], what);
    }
  });

  it('never leads anywhere without the certificate when a Backend that names it is deleted and created again', async (t) => {
    for (const isAway of [false, true]) {
      if (isAway) await agent.stop();
      await lab.remove(named());
      const end = Date.now() + 20_000;
      let isBack = false;
      const seen = await tally(edge, '/shut', async () => {
        if (!isBack && Date.now() > end - 17_000) {
          isBack = true;
          await lab.apply(withCertificate(named()));
        }
        return Date.now() > end;
      });
      t.diagnostic(`agent ${isAway ? 'away' : 'alive'}: ${JSON.stringify(seen)}`);
      assert.deepEqual([seen.plaintext, seen.bare], [0, 0]);
      if (isAway) await start();
      await shown();
    }
  });

  it('uses TLS without a certificate, and never plaintext, for a while when a Backend comes back that does not name it', async (t) => {
    await lab.remove(named());
    await lab.apply(named());
    const seen = await tally(edge, '/shut', async ({ mtls, bare, other }) => mtls > 50 && bare + other >= 0);
    t.diagnostic(JSON.stringify(seen));
    assert.equal(seen.plaintext, 0);
    await shown();
  });
});
