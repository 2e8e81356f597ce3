import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { type SandboxUpstream, startUpstream } from '../../sandbox/tls/upstream.ts';
import { connect } from '../../src/kube/client.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { Crl, formatCrls } from '../../src/pki/crl.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { clusterOf } from './parts/envoy-clusters.ts';
import { type EnvoyGateway, startEnvoyGateway } from './parts/envoy-gateway.ts';
import { eventually } from './parts/eventually.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
/** A set leaves the gateway a minute before it expires. */
const SOON_MS = 90_000;
const UPSTREAMS = ['web', 'old'] as const;

const workload = (ca: SandboxCa, name: string): Identity =>
  ca.identity({ uris: [`spiffe://cluster.local/ns/shop/sa/${name}`], lifetimeMs: DAY });

describe("CRLs of Istio's plug-in CA, on real istiod, API server and Envoy", () => {
  const key = PrivateKey.generate();
  const root = SandboxCa.root({ name: 'Plug-in Root', organization: 'shop' });
  const intermediate = root.intermediate({ name: 'Plug-in Intermediate', key });
  const identities = { web: workload(intermediate, 'web'), old: workload(intermediate, 'old') };
  const crl = (ca: SandboxCa, options: Parameters<SandboxCa['crl']>[0] = {}) => Crl.fromDer(ca.crl(options));

  let apiserver: KubeApiserver;
  let kube: ReturnType<typeof connect>;
  let istiod: Istiod;
  let agent: AgentProcess;
  let gateway: EnvoyGateway;
  let upstreams: Record<(typeof UPSTREAMS)[number], SandboxUpstream>;

  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, { emissary: ['gateway'], 'istio-system': [] });
    istiod = await startIstiod({
      apiserver,
      cacerts: {
        'ca-cert.pem': intermediate.certificate.pem,
        'ca-key.pem': key.toPem(),
        'cert-chain.pem': formatCertificates([intermediate.certificate, root.certificate]),
        'root-cert.pem': root.certificate.pem,
      },
    });
    const start = (name: keyof typeof identities) =>
      startUpstream({ identity: () => identities[name], trust: () => [root.certificate] });
    upstreams = { web: await start('web'), old: await start('old') };
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    for (const name of UPSTREAMS) {
      await apiserver.apply('/apis/getambassador.io/v3alpha1/namespaces/emissary/mappings', mapping(name));
    }
    gateway = await startEnvoyGateway({
      kube,
      resolve: (host) => upstreams[host.replace('.shop', '') as keyof typeof upstreams]?.port,
      freshEvery: 1,
    });
    agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: document(istiod),
      args: ['--namespace', 'emissary', '--no-leader-elect'],
    });
  });
  after(async () => {
    await agent?.stop();
    await gateway?.[Symbol.asyncDispose]();
    kube?.close();
    for (const name of UPSTREAMS) await upstreams?.[name].stop();
    await istiod?.stop();
    await apiserver?.stop();
  });

  const of = (name: string) => [...gateway.configuration.clusters.values()].find(({ host }) => host === `${name}.shop`);
  const status = async (cluster: string): Promise<number> =>
    (await fetch(`${gateway.url}/`, { headers: { 'x-cluster': cluster } })).status;
  const statusOf = async (name: (typeof UPSTREAMS)[number]): Promise<number> => status(of(name)?.name ?? 'none');
  const crlIn = (name: string) => of(name)?.tls?.crl?.pem;
  const awaitGateway = async (what: string, holds: () => boolean) => {
    await gateway.until(holds, MINUTE).catch((error) => {
      throw new Error(`${what}: ${error.message}\n${agent.log().slice(-4_000)}\n${istiod.log().slice(-2_000)}`);
    });
  };
  const publish = async (crls: readonly Crl[]) => {
    await istiod.writeCrls(formatCrls(crls));
    const path = '/api/v1/namespaces/emissary/configmaps/istio-ca-crl';
    const isThere = async () => (await apiserver.call('GET', path)).body?.data?.['ca-crl.pem'] === formatCrls(crls);
    await eventually('the ConfigMap of istiod', isThere, istiod.log);
  };
  const lastError = async () => (await agent.statuses())[0]?.status.lastError;
  const verifyErrors = async () => {
    const stats = await gateway.envoy.stats('ssl\\.fail_verify_error$');
    return Object.values(stats).reduce((sum, value) => sum + value, 0);
  };

  it('never reach Envoy while they cover only the intermediate: it would refuse every upstream by them', async () => {
    await awaitGateway('mTLS', () => UPSTREAMS.every((name) => of(name)?.tls?.ca !== undefined));
    const gap = crl(intermediate).pem;
    await istiod.writeCrls(gap);
    // istiod refuses such a set as well; other writers of the ConfigMap need not. Its own is empty, and frozen here.
    await eventually('the refusal of istiod', async () => /missing CRL signed by/.test(istiod.log()), istiod.log);
    await istiod.kill('SIGSTOP');
    await apiserver.apply('/api/v1/namespaces/emissary/configmaps', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'istio-ca-crl', namespace: 'emissary' },
      data: { 'ca-crl.pem': gap },
    });
    await eventually(
      'the reason',
      async () => /^the mesh has no CRL of "[^"]*Plug-in Root"/.test((await lastError())?.message ?? ''),
      agent.log,
    );
    assert.equal((await lastError())?.code, 'ERR_CRL_MISSING');
    assert.equal(crlIn('web'), undefined);
    assert.equal((await apiserver.call('GET', '/api/v1/namespaces/emissary/secrets/mesh-crl')).status, 404);
    assert.deepEqual([await statusOf('web'), await statusOf('old')], [200, 200]);

    const config = of('web');
    assert.ok(config?.tls);
    const name = 'with-a-gap';
    const tls = { ...config.tls, crl: { path: '/gap.user', pem: gap } };
    const port = upstreams.web.port;
    const clusters = await Promise.all([
      clusterOf({ ...config, name, tls }, port, gateway.envoy.dir, 1),
      clusterOf(config, port, gateway.envoy.dir, 1),
    ]);
    await gateway.envoy.swap(clusters);
    assert.deepEqual([await status(name), await status(config.name)], [503, 200]);
    await istiod.kill('SIGCONT');
  });

  it('reach Envoy once they cover the root too, and every upstream is still accepted', async () => {
    await publish([crl(intermediate), crl(root)]);
    await awaitGateway('the CRLs', () => UPSTREAMS.every((name) => crlIn(name) !== undefined));
    assert.deepEqual([await statusOf('web'), await statusOf('old')], [200, 200]);
    await eventually('the end of the failure', async () => (await lastError()) === undefined, agent.log);
  });

  it('make Envoy refuse the upstream whose certificate is revoked, and no other', async () => {
    const before = await verifyErrors();
    const served = upstreams.old.requests;
    const revoked = crl(intermediate, { revoked: [leafOf(identities.old)], number: 2, thisUpdate: Date.now() - 1000 });
    await publish([revoked, crl(root)]);
    await awaitGateway('the revocation', () => crlIn('old')?.includes(revoked.pem.trim()) === true);
    assert.deepEqual([await statusOf('old'), await statusOf('web')], [503, 200]);
    assert.equal(upstreams.old.requests, served);
    assert.ok((await verifyErrors()) > before);
  });

  it('leave Envoy before they expire, and no request fails', async () => {
    const nextUpdate = Date.now() + SOON_MS;
    const short = crl(intermediate, { number: 3, thisUpdate: Date.now() - 500, nextUpdate });
    await publish([short, crl(root)]);
    await awaitGateway('the short CRL', () => crlIn('web')?.includes(short.pem.trim()) === true);
    const statuses: number[] = [];
    await eventually('the end of the CRLs', async () => {
      statuses.push(await statusOf('web'));
      return crlIn('web') === undefined;
    });
    statuses.push(await statusOf('web'));
    assert.ok(Date.now() < nextUpdate);
    assert.deepEqual([...new Set(statuses)], [200]);
    await eventually('the reason', async () => (await lastError())?.code === 'ERR_CRL_EXPIRED', agent.log);
  });
});

function document({ secureAddress, serverName }: Istiod): string {
  const ca = JSON.stringify({ address: secureAddress, serverName, serviceAccount: 'gateway' });
  return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: emissary}
spec:
  istio: {ca: ${ca}}
  trust: {crl: true}
  mappings: {selector: {matchLabels: {mesh: istio}}}
`;
}

function mapping(name: string) {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name, namespace: 'emissary', labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: `/${name}/`, service: `https://${name}.shop:443` },
  };
}
