import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type SandboxUpstream, startUpstream } from '../../sandbox/tls/upstream.ts';
import { decodeData } from '../../src/gateway/publication.ts';
import { connect } from '../../src/kube/client.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { formatCertificates, parseCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { openssl, withFiles } from '../property/openssl.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { type EnvoyGateway, startEnvoyGateway } from './parts/envoy-gateway.ts';
import { eventually } from './parts/eventually.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type Spire, startSpire } from './servers/spire.ts';
import { startGoJudge } from './servers/x509-judges.ts';

const MINUTE = 60_000;
const NAMESPACE = 'emissary';
const CLAIMED = 'spiffe://example.org/web';
/** Whose bundle verifies the upstream, and which upstream it is. */
const ROUTES = ['home-home', 'home-forged', 'home-partner', 'partner-partner', 'partner-home'] as const;

describe('two federated servers of SPIRE', () => {
  let apiserver: KubeApiserver;
  let kube: ReturnType<typeof connect>;
  let home: Spire;
  let partner: Spire;
  let agent: AgentProcess;
  let gateway: EnvoyGateway;
  let forged: Identity;
  let upstreams: Record<string, SandboxUpstream>;

  before(async () => {
    [apiserver, home, partner] = await Promise.all([
      startKubeApiserver(),
      startSpire({ version: 'next', agent: { disable_sds_api: true } }),
      startSpire({ version: 'next', trustDomain: 'partner.example' }),
    ]);
    await prepareCluster(apiserver, { [NAMESPACE]: [] });
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
    await home.federateWith(partner);
    await home.createEntry('/gateway', { federatesWith: [partner.trustDomain] });
    const roots = parseCertificates(await home.bundle());
    forged = forge(await partner.signingKey());
    const identities = { home: await home.mint('/web'), partner: await partner.mint('/web'), forged };
    upstreams = {};
    for (const [name, identity] of Object.entries(identities)) {
      // Each trusts the gateway's trust domain, as a federated workload does.
      upstreams[name] = await startUpstream({ identity: () => identity, trust: () => roots });
    }
    for (const name of ROUTES) {
      await apiserver.apply(`/apis/getambassador.io/v3alpha1/namespaces/${NAMESPACE}/mappings`, mapping(name));
    }
    gateway = await startEnvoyGateway({
      kube,
      resolve: (host) => upstreams[host.split(/[-.]/)[1] ?? '']?.port,
      freshEvery: 1,
    });
    agent = await startAgentProcess({
      kubeconfig: apiserver.kubeconfigFile,
      documents: [document('home', home), document('partner', home, partner.trustDomain)].join('---\n'),
      args: ['--namespace', NAMESPACE, '--no-leader-elect'],
    });
  });
  after(async () => {
    await agent?.stop();
    await gateway?.[Symbol.asyncDispose]();
    kube?.close();
    for (const upstream of Object.values(upstreams ?? {})) await upstream.stop();
    await Promise.all([home?.stop(), partner?.stop(), apiserver?.stop()]);
  });

  const log = () => `${agent.log().slice(-5_000)}\n${home.log().slice(-2_000)}`;
  const of = (route: string) =>
    [...gateway.configuration.clusters.values()].find(({ host }) => host === `${route}.shop`);
  const statusOf = async (route: string): Promise<number> =>
    (await fetch(`${gateway.url}/`, { headers: { 'x-cluster': of(route)?.name ?? 'none' } })).status;
  const secret = async (name: string) => {
    const found = await kube.get({ apiVersion: 'v1', kind: 'Secret', namespace: NAMESPACE, name });
    return found ? decodeData(found) : {};
  };
  const roots = (pem: string | undefined) => (pem === undefined ? [] : parseCertificates(pem));
  const prints = (pem: string | undefined) => roots(pem).map(({ fingerprint }) => fingerprint);

  it('keep their upstreams apart: Envoy accepts each under the bundle of its own trust domain alone', async () => {
    await gateway
      .until(() => ROUTES.every((route) => of(route)?.tls?.ca !== undefined), MINUTE)
      .catch((error) => {
        throw new Error(`${error.message}\n${log()}`);
      });
    assert.deepEqual(prints((await secret('home-ca'))['tls.crt']), prints(await home.bundle()));
    assert.deepEqual(prints((await secret('partner-ca'))['tls.crt']), prints(await partner.bundle()));
    assert.deepEqual(prints((await secret('partner-identity'))['ca.crt']), prints(await home.bundle()));
    const seen: Record<string, number> = {};
    for (const route of ROUTES) seen[route] = await statusOf(route);
    assert.deepEqual(seen, {
      'home-home': 200,
      'home-forged': 503,
      'home-partner': 503,
      'partner-partner': 200,
      'partner-home': 503,
    });
    assert.equal(upstreams.forged?.requests, 0);
  });

  it('cannot claim an ID of each other: Go refuses the forged leaf by what is published for its name', async () => {
    await using judge = await startGoJudge();
    const question = { chain: formatCertificates(forged.chain), uri: CLAIMED, usages: ['server'] } as const;
    const bundle = (await secret('home-ca'))['tls.crt'] ?? '';
    const verdict = await judge.judge({ ...question, roots: bundle });
    assert.deepEqual([verdict.ok, verdict.stage], [false, 'verify'], verdict.reason);
    const byIssuer = await judge.judge({ ...question, roots: await partner.bundle() });
    assert.ok(byIssuer.ok, `the forged leaf is good otherwise: ${byIssuer.reason}`);
  });

  it('rotate their authorities apart', async () => {
    await partner.cli(['localauthority', 'x509', 'prepare']);
    await home.federateWith(partner);
    const bundles = async () => [
      prints((await secret('partner-ca'))['tls.crt']),
      prints((await secret('home-ca'))['tls.crt']),
    ];
    await eventually('both roots of the partner', async () => (await bundles())[0]?.length === 2, log);
    const [partners, own] = await bundles();
    assert.deepEqual(new Set(partners), new Set(prints(await partner.bundle())));
    assert.deepEqual(own, prints(await home.bundle()));
    assert.deepEqual([await statusOf('partner-partner'), await statusOf('home-home')], [200, 200]);
  });

  it('report that a bundle is no longer offered, and what is published stays', async () => {
    const before = prints((await secret('partner-ca'))['tls.crt']);
    await home.deleteEntry('spiffe://example.org/gateway');
    await home.createEntry('/gateway');
    await eventually(
      'the report',
      async () => {
        const statuses = await agent.statuses();
        const error = statuses.find(({ name }) => name === 'partner')?.status.lastError;
        return (
          error?.code === 'ERR_MESH_DENIED' && error.message.includes('offers no bundle of the trust domain partner')
        );
      },
      log,
    );
    assert.deepEqual(prints((await secret('partner-ca'))['tls.crt']), before);
    assert.equal(await statusOf('partner-partner'), 200);
  });
});

/** A leaf for an ID of the home domain by the authority of the other one, whose server would refuse to sign it. */
function forge({ key, certificate }: { readonly key: string; readonly certificate: string }): Identity {
  const own = PrivateKey.generate();
  const extensions = `basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
authorityKeyIdentifier=keyid
subjectAltName=URI:${CLAIMED}
`;
  const files = { 'ca.pem': certificate, 'ca.key': key, 'leaf.key': own.toPem(), extensions };
  const pem = withFiles(files, (path) => {
    const request = openssl(['req', '-new', '-key', path('leaf.key'), '-subj', '/O=SPIRE', '-out', path('leaf.csr')]);
    assert.ok(request.ok, request.output);
    const signed = openssl([
      ...['x509', '-req', '-in', path('leaf.csr'), '-CA', path('ca.pem'), '-CAkey', path('ca.key')],
      ...['-set_serial', '4711', '-days', '1', '-extfile', path('extensions')],
    ]);
    assert.ok(signed.ok, signed.output);
    return signed.output.slice(signed.output.indexOf('-----BEGIN CERTIFICATE'));
  });
  return { id: CLAIMED, key: own, chain: parseCertificates(pem), roots: parseCertificates(certificate) };
}

function document(name: string, { socket }: Spire, upstreamTrustDomain?: string): string {
  return `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${name}, namespace: ${NAMESPACE}}
spec:
  spiffe: ${JSON.stringify({ socket, upstreamTrustDomain })}
  mappings: {selector: {matchLabels: {mesh: ${name}}}}
`;
}

function mapping(route: string) {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: route, namespace: NAMESPACE, labels: { mesh: route.split('-')[0] } },
    spec: { hostname: '*', prefix: `/${route}/`, service: `https://${route}.shop:443` },
  };
}
