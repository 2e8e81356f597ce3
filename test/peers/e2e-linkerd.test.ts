import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { parseDocuments } from '../../src/config/documents.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import { MAPPING_FIELD_MANAGER } from '../../src/gateway/emissary/config.ts';
import { gateways } from '../../src/gateways.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { startEnvoyGateway } from './parts/envoy-gateway.ts';
import { eventually } from './parts/eventually.ts';
import { putBackend, startLinkerdWorkload } from './parts/linkerd-workload.ts';
import { startLoad } from './parts/load.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { authority } from './servers/authority.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { startLinkerdJudge } from './servers/linkerd-judge.ts';

const MINUTE = 60_000;
const AMBASSADOR = 'getambassador.io/v3alpha1';
const WEB = 'web.shop';
const AGENT = 'system:serviceaccount:emissary:meshcert';

describe('Linkerd on real parts: identity service on its own types, kube-apiserver, Envoy', () => {
  let apiserver: KubeApiserver;
  let kube: Kube;
  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { emissary: ['emissary', 'meshcert'], shop: ['web', 'api'], linkerd: [] });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  });
  after(async () => {
    kube?.close();
    await apiserver?.stop();
  });

  it('finds its targets, sets their Mappings, rotates under load, and holds no more rights than it renders', async () => {
    const root = await authority('root.linkerd.cluster.local');
    await using judge = await startLinkerdJudge({
      apiserver,
      root,
      trustDomain: 'mesh.example',
      lifetime: '15s',
      skew: '5s',
    });
    const gatewayId = judge.identity('emissary', 'emissary');
    await using workload = await startLinkerdWorkload(root, judge.identity('shop', 'web'), gatewayId);
    await putBackend(apiserver, 'web', [{ account: 'web' }, { account: 'web' }]);
    await putBackend(apiserver, 'db', [{ account: 'web', podPort: 3306 }]);
    await putBackend(apiserver, 'bare', [{ account: 'web', meshed: false }]);
    await putBackend(apiserver, 'mixed', [{ account: 'web' }, { account: 'api' }]);
    await mapping('web', `https://${WEB}`);
    await mapping('plain', 'web.shop:443');
    await mapping('db', 'https://db.shop');
    await mapping('bare', 'https://bare.shop');
    await mapping('mixed', 'https://mixed.shop');
    await mapping('missing', 'https://missing.shop');

    const documents = `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: linkerd, namespace: emissary}
spec:
  linkerd: {serviceAccount: {name: emissary}, address: "${judge.tlsAddress}"}
  mappings: {selector: {matchLabels: {mesh: linkerd}}, namespaces: [emissary, shop]}
  trust: {hold: 15s, retain: 2m}
`;
    const place = { namespace: 'emissary', identity: 'linkerd-identity', ca: 'linkerd-ca', form: 'dns' } as const;
    await using pair = watchPair(kube, place);
    await using gateway = await startEnvoyGateway({
      kube,
      resolve: (host) => (host === WEB ? workload.port : undefined),
    });
    await using agent = await startAgentProcess({
      kubeconfig: await leastPrivilege(documents),
      documents,
      args: ['--namespace', 'emissary'],
    });
    let cluster = '';
    await gateway
      .until(({ clusters }) => {
        const found = [...clusters.values()].find(
          ({ host, tls }) => host === WEB && tls?.certificate && tls.ca && tls.sni,
        );
        cluster = found?.name ?? '';
        return found !== undefined;
      })
      .catch((error) => {
        throw new Error(`${error.message}\n${agent.log()}`);
      });

    const load = startLoad(`${gateway.url}/`, cluster, 25);
    await pair.until(() => pair.leaves.length >= 3, 2 * MINUTE, 'the second rotation');
    await judge.replaceIssuer();
    await pair.until(() => pair.leaves.length >= 5, 2 * MINUTE, 'two rotations under the new issuer');
    await load.stop();
    assert.deepEqual(pair.violations, []);
    assert.deepEqual([load.failed, load.failures], [0, []], agent.log());
    assert.deepEqual([...workload.counts.clients.keys()], [gatewayId]);
    assert.ok(load.answered > 200, `${load.answered}`);
    assert.deepEqual(pair.leaves.at(-1)?.names.dns, [gatewayId]);

    await ownsOneField();
    assert.deepEqual(await codes(agent), {
      bare: 'ERR_TARGET_UNMESHED',
      db: 'ERR_TARGET_OPAQUE_PORT',
      missing: 'ERR_TARGET_NO_SERVICE',
      mixed: 'ERR_TARGET_DISAGREE',
      plain: 'ERR_TARGET_NO_HTTPS',
      web: 'ok',
    });

    // The pods move to another account: its context is created, the Mapping follows, the old context is deleted.
    await putBackend(apiserver, 'web', [{ account: 'api' }, { account: 'api' }]);
    await eventually(
      'the other context',
      async () => (await contexts()).join() === 'linkerd-api-shop',
      () => agent.log(),
    );
    assert.equal((await get('Mapping', 'web'))?.tls, 'linkerd-api-shop');
    assert.deepEqual(await refusals(), [], 'the agent asks for nothing that its Role does not give');
  });

  const mapping = (name: string, service: string) =>
    apiserver.apply(`/apis/${AMBASSADOR}/namespaces/emissary/mappings`, {
      apiVersion: AMBASSADOR,
      kind: 'Mapping',
      metadata: { name, labels: { mesh: 'linkerd' } },
      spec: { hostname: '*', prefix: `/${name}/`, service },
    });

  async function get(kind: string, name: string) {
    const object = await kube.get({ apiVersion: AMBASSADOR, kind, namespace: 'emissary', name });
    return (
      object && { ...(object.spec as { tls?: string; sni?: string }), managed: object.metadata.managedFields ?? [] }
    );
  }

  async function contexts(): Promise<string[]> {
    const list = (await kube.raw(`/apis/${AMBASSADOR}/namespaces/emissary/tlscontexts`)) as { items: KubeObject[] };
    return list.items.map(({ metadata }) => metadata.name).sort();
  }

  async function ownsOneField(): Promise<void> {
    const web = await get('Mapping', 'web');
    assert.equal(web?.tls, 'linkerd-web-shop');
    const ours = web?.managed.filter(({ manager }) => manager === MAPPING_FIELD_MANAGER);
    assert.deepEqual(
      ours?.map(({ operation, fieldsV1 }) => [operation, fieldsV1]),
      [['Apply', { 'f:spec': { 'f:tls': {} } }]],
    );
    assert.equal(
      (await get('TLSContext', 'linkerd-web-shop'))?.sni,
      'web.shop.serviceaccount.identity.linkerd.mesh.example',
    );
  }

  async function codes(agent: AgentProcess): Promise<Record<string, string>> {
    const [entry] = await agent.statuses();
    const mappings = entry?.status.mappings ?? [];
    return Object.fromEntries(mappings.map(({ name, state }) => [name, state]).sort());
  }

  /** A kubeconfig of the agent's account with the Roles that are rendered for these documents. */
  async function leastPrivilege(documents: string): Promise<string> {
    const { documents: certificates, errors } = parseDocuments(documents, 'mesh.yaml', adapters, gateways);
    assert.deepEqual(errors, []);
    const account = { name: 'meshcert', namespace: 'emissary' };
    const options = {
      adapters,
      gateways,
      name: 'meshcert',
      serviceAccount: account,
      leaseName: 'meshcert',
      shards: 1,
      resources: false,
    };
    for (const object of rbacFor(certificates, options)) {
      await kube.apply(object, { fieldManager: 'test', force: true });
    }
    const audience = 'https://kubernetes.default.svc.cluster.local';
    const { token } = await kube.token(account, audience, 3600);
    return apiserver.kubeconfigFor('meshcert', token);
  }

  /** The agent's refused requests, from the API server's audit log. */
  async function refusals(): Promise<string[]> {
    const entries = await apiserver.audit();
    return entries
      .filter(({ user, responseStatus }) => user.username === AGENT && responseStatus?.code === 403)
      .map(({ verb, requestURI }) => `${verb} ${requestURI}`);
  }
});
