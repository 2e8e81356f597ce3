import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import { startLinkerd } from '../../sandbox/linkerd/linkerd.ts';
import { serviceObjects } from '../../sandbox/linkerd/objects.ts';
import { ROOT } from '../../scripts/tree.ts';
import { connect } from '../../src/kube/client.ts';
import { fields } from '../../src/objects/objects.ts';
import { shippedMain } from '../support/io.ts';
import * as made from '../support/onboard-cluster.ts';
import { peer } from './build.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { startEnvoyGateway } from './parts/envoy-gateway.ts';
import { eventually } from './parts/eventually.ts';
import { startIstioWorkload } from './parts/istio-workload.ts';
import { startLoad } from './parts/load.ts';
import { prepareCluster } from './parts/prepare.ts';
import { startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { discard, output, scratchDir } from './servers/process.ts';

const LEAF_MS = 45_000;
const ACCOUNT = 'emissary-ingress';
const RIGHTS = ['roles,rolebindings,clusterroles,clusterrolebindings', '-A', '-l', 'meshcert.dev/agent'];
const COLUMNS =
  'custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name,AGENT:.metadata.labels.meshcert\\.dev/agent,MANAGED:.metadata.labels.app\\.kubernetes\\.io/managed-by';
type Gateway = 'emissary' | 'edge' | 'team';

describe('agents of several gateways in one cluster, with Linkerd and a real istiod', () => {
  const stops: (() => unknown)[] = [];
  const keep = <T extends AsyncDisposable>(one: T): T => {
    stops.push(() => one[Symbol.asyncDispose]());
    return one;
  };
  const agents = new Map<Gateway, AgentProcess>();
  let apiserver: KubeApiserver;
  let kube: ReturnType<typeof connect>;
  let settings: readonly string[];
  const ports: Record<string, number> = {};

  before(async () => {
    apiserver = keep(await startKubeApiserver());
    const own = [ACCOUNT];
    await prepareCluster(apiserver, {
      ...{ emissary: own, edge: own, team: own },
      ...{ linkerd: [], 'linkerd-apps': ['web'], shop: ['pay'], 'istio-system': [] },
    });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'test' });
    stops.push(() => kube.close());
    const istiod = keep(await startIstiod({ apiserver }));
    const allow = (id: string) => id === `spiffe://cluster.local/ns/emissary/sa/${ACCOUNT}`;
    const pay = keep(await startIstioWorkload({ apiserver, istiod, namespace: 'shop', serviceAccount: 'pay', allow }));
    const linkerd = await startLinkerd({ leafLifetimeMs: LEAF_MS, skewMs: LEAF_MS / 10 });
    stops.push(() => linkerd.stop());
    await linkerd.install(kube);
    const identities = ['emissary', 'edge', 'team'].map((namespace) => linkerd.identityOf(ACCOUNT, namespace));
    const pod = await linkerd.startPod({
      ...{ name: 'web-1', namespace: 'linkerd-apps', serviceAccount: 'web', policy: { identities } },
    });
    const service = { name: 'web', namespace: 'linkerd-apps', port: 443, pods: [pod], podPort: 8443 };
    const objects = [
      ...serviceObjects({ ...service, controlPlane: 'linkerd' }),
      ...made.istiod().filter(({ kind }) => kind !== 'ConfigMap'),
      ...made.app('istio', 'pay', 'shop', 443),
      ...(['emissary', 'edge', 'team'] as const).flatMap((namespace) => [
        made.gateway({ namespace, env: { AMBASSADOR_NAMESPACE: namespace, AMBASSADOR_SINGLE_NAMESPACE: 'true' } }),
        made.mapping('web', namespace, { service: 'web.linkerd-apps:443' }),
      ]),
      made.mapping('pay', 'emissary', { service: 'pay.shop:443' }),
    ];
    for (const object of objects) await kube.apply(object, { fieldManager: 'test', force: true });
    Object.assign(ports, { 'web.linkerd-apps': pod.port, 'pay.shop': pay.upstream.port });
    settings = [
      ...['--set', `istio.ca.address=${istiod.secureAddress}`, '--set', `istio.ca.serverName=${istiod.serverName}`],
      ...['--set', `linkerd.address=${linkerd.address}`],
      ...Object.entries(ports).flatMap(([host, port]) => ['--connect-to', `${host}:443=127.0.0.1:${port}`]),
    ];
  });
  after(async () => {
    for (const agent of agents.values()) await agent.stop();
    for (const stop of stops.reverse()) await stop();
  });

  /** The command as its users run it. */
  async function meshcert(...argv: readonly string[]): Promise<string> {
    let text = '';
    const write = (more: string) => {
      text += more;
    };
    const main = await shippedMain();
    const { signal } = new AbortController();
    const env = { KUBECONFIG: apiserver.kubeconfigFile };
    const code = await main(argv, { stdout: { write }, stderr: { write }, env, signal });
    assert.equal(code, 0, `${argv.join(' ')}\n${text}\n${[...agents.values()].map((one) => one.log()).join('\n')}`);
    return text;
  }

  /** As its Deployment would: with the account that onboarding, or a release, has made. */
  async function startAgent(namespace: Gateway): Promise<void> {
    const account = `/api/v1/namespaces/${namespace}/serviceaccounts/meshcert`;
    await eventually('the account', async () => (await apiserver.call('GET', account)).status === 200);
    const audience = 'https://kubernetes.default.svc.cluster.local';
    const token = await apiserver.serviceAccountToken({ namespace, name: 'meshcert', audience });
    const kubeconfig = await apiserver.kubeconfigFor(`meshcert-${namespace}`, token);
    agents.set(
      namespace,
      await startAgentProcess({ kubeconfig, args: ['--namespace', namespace, '--observe', 'names'] }),
    );
  }

  async function restart(namespace: Gateway): Promise<void> {
    await agents.get(namespace)?.stop();
    await startAgent(namespace);
  }

  async function leaf(namespace: Gateway): Promise<X509Certificate> {
    const secret = await kube.get({ apiVersion: 'v1', kind: 'Secret', namespace, name: 'linkerd-identity' });
    const data = fields(secret?.data)['tls.crt'];
    assert.ok(typeof data === 'string', `${namespace} has no leaf`);
    return new X509Certificate(Buffer.from(data, 'base64'));
  }

  /** Until the leaf of this moment has ended, and the API server has another one that has not. */
  async function outlive(namespace: Gateway): Promise<void> {
    const end = Date.parse((await leaf(namespace)).validTo);
    await delay(Math.max(0, end - Date.now()) + 2_000);
    const next = Date.parse((await leaf(namespace)).validTo);
    assert.ok(next > Date.now(), `the leaf of ${namespace} ended\n${agents.get(namespace)?.log()}`);
  }

  async function onboard(namespace: Gateway, mesh: string): Promise<void> {
    const agent = agents.has(namespace) ? undefined : startAgent(namespace);
    await meshcert('onboard', '--yes', '--gateway', `${namespace}/${ACCOUNT}`, '--mesh', mesh, ...settings);
    await agent;
  }

  const mayRead = async (namespace: Gateway): Promise<boolean> => {
    const who = `system:serviceaccount:${namespace}:meshcert`;
    const argv = ['auth', 'can-i', 'get', 'configmaps/linkerd-config', '-n', 'linkerd', '--as', who];
    return (await apiserver.kubectl(argv).catch(() => 'no')).trim() === 'yes';
  };

  const table = () => apiserver.kubectl(['get', ...RIGHTS, '-o', COLUMNS, '--sort-by', '.metadata.name']);

  /** Requests through a real Envoy into Linkerd's workload. */
  async function traffic(namespace: Gateway) {
    const gateway = keep(
      await startEnvoyGateway({
        ...{ kube, env: { namespace, singleNamespace: true }, freshEvery: 5 },
        resolve: (host) => ports[host],
      }),
    );
    let cluster = '';
    await gateway.until(({ clusters }) => {
      const found = [...clusters.values()].find(({ host, tls }) => host === 'web.linkerd-apps' && tls?.ca);
      cluster = found?.name ?? '';
      return found !== undefined;
    });
    return startLoad(`${gateway.url}/`, cluster, 20);
  }

  it('keep their rights while the others come, restart and go, and no request fails', async () => {
    await onboard('emissary', 'istio,linkerd');
    await onboard('edge', 'linkerd');
    const loads = { emissary: await traffic('emissary'), edge: await traffic('edge') };
    for (const namespace of ['emissary', 'edge'] as const) assert.ok(await mayRead(namespace), namespace);
    const both = await table();
    console.log(`two gateways\n${both}`);

    for (const namespace of ['emissary', 'edge'] as const) await restart(namespace);
    await Promise.all([outlive('emissary'), outlive('edge')]);
    await loads.edge.stop();
    await meshcert('offboard', '--yes', '-n', 'edge');
    await agents.get('edge')?.stop();
    agents.delete('edge');
    const one = await table();
    console.log(`after the offboarding of edge\n${one}`);
    assert.deepEqual(
      one.split('\n').slice(1),
      both
        .split('\n')
        .slice(1)
        .filter((line) => !/ edge\.meshcert /.test(line)),
    );
    assert.deepEqual([await mayRead('emissary'), await mayRead('edge')], [true, false]);
    const left = await apiserver.kubectl(['get', 'leases,serviceaccounts', '-n', 'edge', '-o', 'name']);
    assert.doesNotMatch(left, /meshcert/);

    await restart('emissary');
    await outlive('emissary');
    await loads.emissary.stop();
    for (const [namespace, { answered, failed, failures }] of Object.entries(loads)) {
      console.log(`${namespace}: ${answered} answered, ${failed} failed`);
      assert.deepEqual(failures, []);
      assert.ok(answered > 0);
    }
  });

  it('come from a Helm release too, of which onboard and offboard change nothing', async () => {
    const dir = scratchDir('helm');
    stops.push(() => discard(dir));
    const helm = await peer('helm');
    const values = stringify({
      certificates: [{ name: 'other', spec: { linkerd: { serviceAccount: { name: ACCOUNT } } } }],
    });
    const install = ['upgrade', '--install', 'meshcert', `${ROOT}/deploy/helm/meshcert`, '-n', 'team', '-f', '-'];
    const env = { ...process.env, KUBECONFIG: apiserver.kubeconfigFile, HELM_CACHE_HOME: dir, HELM_CONFIG_HOME: dir };
    await output(helm, install, { env, input: values });
    const ours = ['deployments,serviceaccounts,roles,rolebindings', '-A', '-l', 'app.kubernetes.io/instance=meshcert'];
    const owned = async () => {
      const list = JSON.parse(await apiserver.kubectl(['get', ...ours, '-o', 'json', '--show-managed-fields']));
      return list.items.map(
        ({ kind, metadata }: { kind: string; metadata: { name: string; resourceVersion: string } }) =>
          [kind, metadata.name, kind === 'Deployment' ? '' : metadata.resourceVersion].join(' '),
      );
    };
    const before = await owned();
    assert.ok(before.length >= 6, before.join());
    await startAgent('team');
    await onboard('team', 'istio');
    console.log(`a Helm release beside\n${await table()}`);
    await restart('team');
    await meshcert('offboard', '--yes', '-n', 'team', 'istio');
    assert.deepEqual(await owned(), before);
    assert.ok(await mayRead('team'));
  });
});
