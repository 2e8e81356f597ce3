import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type RunningGateway, startGateway } from '../../sandbox/emissary/gateway.ts';
import { ROOT } from '../../scripts/tree.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { shippedMain } from '../support/io.ts';
import * as made from '../support/onboard-cluster.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { startIstioWorkload, type Workload } from './parts/istio-workload.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Consul, startConsul } from './servers/consul.ts';
import { type ConsulConnectProxy, startConsulConnectProxy } from './servers/consul-connect-proxy.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const GATEWAY_ID = 'spiffe://cluster.local/ns/emissary/sa/emissary-ingress';
const MAPPING = { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping' };
const DOCUMENT = join(ROOT, 'docs/onboarding.md');

describe('meshcert onboard on a real API server, with a real istiod and a real Consul', () => {
  const stops: (() => unknown)[] = [];
  const keep = <T extends AsyncDisposable>(one: T): T => {
    stops.push(() => one[Symbol.asyncDispose]());
    return one;
  };
  let apiserver: KubeApiserver;
  let kube: Kube;
  let istiod: Istiod;
  let consul: Consul;
  let web: Workload;
  let pay: ConsulConnectProxy;
  let gateway: RunningGateway;
  let session = '';

  before(async () => {
    apiserver = keep(await startKubeApiserver());
    await prepareCluster(apiserver, { emissary: ['emissary-ingress'], shop: ['web'], bank: ['pay'], consul: [] });
    istiod = keep(await startIstiod({ apiserver }));
    consul = keep(await startConsul({ acl: false }));
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'test' });
    stops.push(() => kube.close());
    const allow = (id: string) => id === GATEWAY_ID;
    web = keep(await startIstioWorkload({ apiserver, istiod, namespace: 'shop', serviceAccount: 'web', allow }));
    pay = keep(await startPay(consul, stops));
    for (const object of furniture()) await kube.create(object, { fieldManager: 'test' });
    const ports: Record<string, number> = { 'web.shop': web.upstream.port, 'pay.bank': pay.port };
    gateway = await startGateway({
      kube,
      resolve: (host) => (ports[host] === undefined ? undefined : { host: '127.0.0.1', port: ports[host] }),
    });
    stops.push(() => gateway.stop());
  });
  after(async () => {
    for (const stop of stops.reverse()) await stop();
  });

  const status = async (path: string) => (await fetch(`${gateway.url}${path}`)).status;

  it('goes from nothing to traffic, then to no change, and back', async () => {
    assert.deepEqual([await status('/web/'), await status('/pay/')], [503, 503]);
    const flags = [
      ...['--set', `istio.ca.address=${istiod.secureAddress}`, '--set', `istio.ca.serverName=${istiod.serverName}`],
      ...['--set', `consul.grpc.addresses=["${consul.grpcAddress}"]`],
      ...['--connect-to', `web.shop:443=127.0.0.1:${web.upstream.port}`],
      ...['--connect-to', `pay.bank:443=127.0.0.1:${pay.port}`],
      ...['--gateway-url', gateway.url, '--settle', '3s'],
    ];
    const agent = agentOf(apiserver);
    stops.push(async () => (await agent).stop());
    assert.equal(await run('onboard', '--yes', ...flags), 0, (await agent).log());
    assert.deepEqual([await status('/web/'), await status('/pay/')], [200, 200]);
    assert.equal(await run('onboard', ...flags), 0);
    assert.match(session, /\$ meshcert onboard[^$]*Nothing to do: everything is as it should be\.\n$/);
    assert.equal(await run('status', '--namespace', 'emissary'), 0);
    assert.equal(await run('offboard', '--yes'), 0);
    for (const [name, service] of Object.entries({ web: 'web.shop:443', pay: 'pay.bank:443' })) {
      const mapping = await kube.get({ ...MAPPING, namespace: 'emissary', name });
      assert.deepEqual(mapping?.spec, { hostname: '*', prefix: `/${name}/`, service });
    }
    assert.deepEqual([await status('/web/'), await status('/pay/')], [503, 503]);
  });

  it('is what docs/onboarding.md shows', async () => {
    const recorded = recording(session);
    const text = await readFile(DOCUMENT, 'utf8');
    const block = /(<!-- session -->\n```text\n)([\s\S]*?)(```\n<!-- \/session -->)/;
    if (process.env.MESHCERT_RECORD) {
      await writeFile(
        DOCUMENT,
        text.replace(block, (_all, head, _old, tail) => head + recorded + tail),
      );
      return;
    }
    const shown = block.exec(text)?.[2] ?? '';
    assert.equal(withoutWaits(shown), withoutWaits(recorded), 'record it again with MESHCERT_RECORD=1');
  });

  async function run(...argv: readonly string[]): Promise<number> {
    session += `$ meshcert ${argv.map(quoted).join(' ')}\n`;
    const write = (text: string) => {
      session += text;
    };
    const { signal } = new AbortController();
    const main = await shippedMain();
    return main(argv, { stdout: { write }, stderr: { write }, env: { KUBECONFIG: apiserver.kubeconfigFile }, signal });
  }

  /** With the usual ports of these servers, and without the parts that differ from run to run. */
  function recording(text: string): string {
    const ports: readonly (readonly [number | string, number])[] = [
      [istiod.securePort, 15012],
      [consul.grpcAddress.split(':')[1] ?? '', 8502],
      [web.upstream.port, 30443],
      [pay.port, 30444],
      [new URL(gateway.url).port, 8080],
    ];
    let result = text;
    for (const [port, custom] of ports) result = result.replaceAll(`127.0.0.1:${port}`, `127.0.0.1:${custom}`);
    return result
      .replace(/^Agent: .*$/gm, 'Agent: meshcert-7d9c5b7f4-x2k8p')
      .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.consul/g, '6a1f1c9e-0d0c-4b58-8a4e-1c1f4f0f3f11.consul')
      .replace(/ (--(?:set|connect-to|gateway-url)) /g, ' \\\n    $1 ');
  }
});

/** The waits depend on the machine, and the table of `status` on the time. */
const withoutWaits = (text: string): string =>
  text
    .split('\n')
    .filter((line) => !line.startsWith('... ') && !/^(NAME|istio|consul) {2,}/.test(line))
    .join('\n');

const quoted = (word: string): string => (/["[\]]/.test(word) ? `'${word}'` : word);

/** An agent as its Deployment would run it, with the account and the Role that onboarding creates for it. */
async function agentOf(apiserver: KubeApiserver): Promise<AgentProcess> {
  const roles = '/apis/rbac.authorization.k8s.io/v1/namespaces/emissary/rolebindings/meshcert-onboard.emissary';
  await eventually('the RoleBinding', async () => (await apiserver.call('GET', roles)).status === 200);
  const audience = 'https://kubernetes.default.svc.cluster.local';
  const token = await apiserver.serviceAccountToken({ namespace: 'emissary', name: 'meshcert', audience });
  const kubeconfig = await apiserver.kubeconfigFor('meshcert', token);
  return startAgentProcess({ kubeconfig, args: ['--namespace', 'emissary', '--observe', 'names'] });
}

/** A plain service behind a real proxy of Consul, which accepts only clients with a certificate of the mesh. */
async function startPay(consul: Consul, stops: (() => unknown)[]): Promise<ConsulConnectProxy> {
  const server = createServer((_, response) => response.end('paid\n'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  stops.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  return startConsulConnectProxy({ consul, service: 'pay', target: { port } });
}

/** What a kubelet and the meshes' injectors would have left in the API. */
function furniture(): KubeObject[] {
  const mapping = (name: string, service: string) => made.mapping(name, 'emissary', { service });
  return [
    made.gateway(),
    ...made.istiod().filter(({ kind }) => kind !== 'ConfigMap'),
    ...made.consulServer(),
    ...made.app('istio', 'web', 'shop', 443),
    ...made.app('consul', 'pay', 'bank', 443),
    ...made.app('none', 'legacy', 'shop'),
    mapping('web', 'web.shop:443'),
    mapping('pay', 'pay.bank:443'),
    mapping('legacy', 'legacy.shop'),
  ];
}
