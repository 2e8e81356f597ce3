import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import {
  configMap,
  envoyProxy,
  GATEWAYS,
  type GatewayLab,
  gateway,
  policy,
  route,
  type Seen,
  SHOP,
  serialOf,
  service,
  serviceRef,
  startGatewayLab,
  startUpstream,
  type Upstream,
  useProxy,
} from './parts/gateway-lab.ts';
import { writePair } from './parts/mesh-files.ts';
import { type Authority, authority, type KeyPair } from './servers/authority.ts';
import type { ApplyObject } from './servers/kube-client.ts';
import { discard, scratchDir } from './servers/process.ts';

const DAY = 86_400_000;
const CLIENT = 'spiffe://cluster.local/ns/gw/sa/gateway';
const WEB = 'spiffe://cluster.local/ns/shop/sa/web';
const API = 'spiffe://cluster.local/ns/shop/sa/api';

/** The two places where a certificate is named, each with a MeshCertificate, a Gateway and a Service of its own. */
const PLACES = ['proxy', 'standard'] as const;
type Place = (typeof PLACES)[number];

const labelled = (object: ApplyObject, mesh: string): ApplyObject => ({
  ...object,
  metadata: { ...object.metadata, labels: { mesh }, annotations: { 'meshcert.dev/allow-from': GATEWAYS } },
});

const gateways = {
  proxy: labelled(gateway('proxy', useProxy('proxy')), 'proxy'),
  standard: labelled(gateway('standard'), 'standard'),
};

const document = (place: Place, directory: string): string => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${place}, namespace: ${GATEWAYS}}
spec:
  file: {directory: ${directory}}
  gatewayApi:
    gateways: {selector: {matchLabels: {mesh: ${place}}}}
    clientCertificate: ${place === 'proxy' ? 'EnvoyProxy' : 'Gateway'}
    services: {selector: {matchLabels: {mesh: ${place}}}, namespaces: [${SHOP}]}
    subjectAltNames: ["${WEB}"]
`;

describe('Gateway API on real parts: kube-apiserver, Envoy Gateway, Envoy, the agent', () => {
  let lab: GatewayLab;
  let mesh: Authority;
  let agent: AgentProcess;
  const dirs = { proxy: '', standard: '' };
  const upstreams: Upstream[] = [];

  let ttlMs = DAY;
  // A leaf that ends no later than the published one is not published.
  const issue = (): Promise<KeyPair> => {
    ttlMs += 60_000;
    return mesh.issue({ uri: [CLIENT], ttlMs });
  };
  async function put(place: Place, pair: KeyPair): Promise<KeyPair> {
    await writePair(dirs[place], pair, mesh.root);
    return pair;
  }
  async function serve(name: string, place: Place, id: string): Promise<ApplyObject> {
    const upstream = await startUpstream({ leaf: await mesh.issue({ uri: [id] }), roots: mesh.root });
    upstreams.push(upstream);
    await lab.envoyGateway.expose(upstream.port);
    const [first, ...rest] = service(name, upstream);
    assert.ok(first);
    await lab.apply(labelled(first, place), ...rest);
    return first;
  }
  const policyOf = (place: Place, name: string) => lab.read(policy(`${place}-${name}-https`));
  const written = (place: Place, name: string) =>
    eventually(
      `a policy for ${name}`,
      async () => (await policyOf(place, name)).kind === 'BackendTLSPolicy',
      () => agent.log(),
    );
  const reports = (service: string, code: string) =>
    eventually(
      `${code} of ${service}`,
      async () => {
        const found = (await agent.statuses()).find(({ name }) => name === 'proxy');
        return found?.status.mappings.some(({ name, state }) => name === service && state === code) === true;
      },
      () => agent.log(),
    );
  const becomes = (
    place: Place,
    name: string,
    what: string,
    holds: (status: number, seen: Seen | undefined) => boolean,
  ) =>
    eventually(
      what,
      async () => {
        const { status, seen } = await lab.ask(gateways[place], `/${name}`);
        return holds(status, seen);
      },
      () => agent.log(),
    );

  before(async () => {
    mesh = await authority('mesh', 3 * DAY);
    lab = await startGatewayLab();
    for (const place of PLACES) dirs[place] = scratchDir(`files-${place}`);
    await lab.apply(envoyProxy('proxy', {}), gateways.proxy, gateways.standard);
    for (const place of PLACES) await put(place, await issue());
    agent = await startAgentProcess({
      kubeconfig: lab.apiserver.kubeconfigFile,
      documents: PLACES.map((place) => document(place, dirs[place])).join('---\n'),
      args: ['--namespace', GATEWAYS],
    });
  });
  after(async () => {
    await agent?.stop();
    await lab?.[Symbol.asyncDispose]();
    for (const one of upstreams) await one[Symbol.asyncDispose]();
    for (const dir of Object.values(dirs)) discard(dir);
  });

  for (const place of PLACES) {
    it(`presents a rotated leaf at once and loses no request, with the certificate named by the ${place === 'proxy' ? 'EnvoyProxy' : 'Gateway'}`, async () => {
      const first = await put(place, await issue());
      const name = `web${place}`;
      await serve(name, place, WEB);
      await written(place, name);
      await lab.apply(route(name, [gateways[place]]));
      await becomes(place, name, 'the first certificate', (_, seen) => seen?.serial === serialOf(first));
      const failed: number[] = [];
      const plain: string[] = [];
      let answered = 0;
      const load = async () => {
        const { status, seen } = await lab.ask(gateways[place], `/${name}`);
        if (status !== 200) failed.push(status);
        else if (!seen?.tls) plain.push(name);
        else answered += 1;
        return seen?.serial;
      };
      for (let rotation = 0; rotation < 3; rotation += 1) {
        const wanted = serialOf(await put(place, await issue()));
        await eventually('the next certificate', async () => (await load()) === wanted, agent.log.bind(agent));
      }
      assert.deepEqual([failed, plain], [[], []], agent.log());
      assert.ok(answered > 0);
    });
  }

  it('lets only the identity answer that the policy names', async () => {
    await serve('impostor', 'proxy', API);
    await written('proxy', 'impostor');
    await lab.apply(route('impostor', [gateways.proxy]));
    const refused = async () => (await lab.refusal(gateways.proxy, '/impostor')).includes('SAN_matcher');
    await eventually('503, because of the SAN', refused, lab.envoyGateway.log);
  });

  it('takes over from the policy of another client without plaintext, by the steps that the error names', async () => {
    const foreign = policy('theirs', { sans: [WEB] });
    await lab.apply(configMap('mesh-ca', { 'ca.crt': mesh.root }), foreign);
    await serve('theirs', 'proxy', WEB);
    await lab.apply(route('theirs', [gateways.proxy]));
    let plain = 0;
    const answers = (holds: (status: number, seen: Seen | undefined) => boolean) =>
      becomes('proxy', 'theirs', 'the answer', (status, seen) => {
        if (seen && !seen.tls) plain += 1;
        return holds(status, seen);
      });
    await answers((status, seen) => status === 200 && seen?.tls === true);
    await reports('theirs', 'ERR_TARGET_FOREIGN_POLICY');

    await lab.apply(route('theirs', []));
    await answers((status) => status === 404);
    await lab.apiserver.call(
      'DELETE',
      `/apis/gateway.networking.k8s.io/v1/namespaces/${SHOP}/backendtlspolicies/theirs`,
    );
    await written('proxy', 'theirs');
    await lab.apply(route('theirs', [gateways.proxy]));
    await answers((status, seen) => status === 200 && seen?.tls === true);
    assert.equal(plain, 0);
  });

  it('says so once Envoy Gateway has accepted each policy that a route uses', async () => {
    const live = async () => {
      const found = (await agent.statuses()).find(({ name }) => name === 'proxy');
      return found?.status.conditions.find(({ type }) => type === 'Live');
    };
    const accepted = async (count: number) => (await live())?.message.includes(`have accepted ${count} `) === true;
    const become = (count: number) => eventually(`${count} accepted`, () => accepted(count), agent.log.bind(agent));
    // webproxy, impostor and theirs.
    await become(3);
    assert.deepEqual([(await live())?.status, (await live())?.reason], ['Unknown', 'StatusAccepted']);
    await serve('unused', 'proxy', WEB);
    await written('proxy', 'unused');
    assert.deepEqual([(await live())?.status, await accepted(3)], ['Unknown', true]);
    await lab.apply(route('unused', [gateways.proxy]));
    await become(4);
  });

  it('keeps a policy that a route uses although its Service is no longer selected', async () => {
    const before = await policyOf('proxy', 'webproxy');
    const found = await lab.read({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'webproxy', namespace: SHOP },
    });
    const path = `/api/v1/namespaces/${SHOP}/services/webproxy`;
    await lab.apiserver.call('PUT', path, { ...found, metadata: { ...found.metadata, labels: {} } });
    const states = async () => (await agent.statuses()).find(({ name }) => name === 'proxy')?.status.mappings ?? [];
    const holds = async () => (await states()).some(({ state }) => state === 'ERR_TARGET_UNSELECTED');
    await eventually('it is reported', holds, agent.log.bind(agent));
    assert.deepEqual((await policyOf('proxy', 'webproxy')).spec, before.spec);
    const { seen } = await lab.ask(gateways.proxy, '/webproxy');
    assert.equal(seen?.tls, true);
  });

  it('leaves a Service to an older policy of another client for all of its ports, and says so', async () => {
    const foreign = policy('whole', { target: serviceRef('whole'), sans: [WEB] });
    await lab.apply(configMap('mesh-ca', { 'ca.crt': mesh.root }), foreign);
    await serve('whole', 'proxy', WEB);
    await lab.apply(route('whole', [gateways.proxy]));
    await becomes('proxy', 'whole', 'an answer', (status, seen) => status === 200 && seen?.tls === true);
    await reports('whole', 'ERR_TARGET_FOREIGN_POLICY');
    assert.notEqual((await policyOf('proxy', 'whole')).kind, 'BackendTLSPolicy');
    await lab.apply(route('whole', []));
    await lab.remove(foreign);
    await written('proxy', 'whole');
  });

  it('stays in force beside a later policy of another client for all ports of its Service, and says so', async () => {
    await serve('early', 'proxy', WEB);
    await written('proxy', 'early');
    await lab.apply(route('early', [gateways.proxy]));
    await becomes('proxy', 'early', 'an answer', (status, seen) => status === 200 && seen?.tls === true);
    // It would refuse the workload.
    const foreign = policy('late', { target: serviceRef('early'), sans: [API] });
    await lab.apply(configMap('mesh-ca', { 'ca.crt': mesh.root }), foreign);
    await reports('early', 'ERR_TARGET_FOREIGN_POLICY');
    // Once Envoy Gateway has taken what came after the other policy, it has taken that too.
    await serve('after', 'proxy', WEB);
    await written('proxy', 'after');
    await lab.apply(route('after', [gateways.proxy]));
    await becomes('proxy', 'after', 'an answer', (status, seen) => status === 200 && seen?.tls === true);
    assert.equal((await lab.ask(gateways.proxy, '/early')).seen?.tls, true);
    assert.equal((await policyOf('proxy', 'early')).kind, 'BackendTLSPolicy');
    assert.equal((await lab.read(foreign)).status, undefined, 'it lost, and has no status');
  });
});
