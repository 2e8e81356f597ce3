import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { stringify } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import { validateObject } from '../../src/config/validate.ts';
import { gateways } from '../../src/gateways.ts';
import { leaseSpec } from '../../src/kube/lease.ts';
import { doctorReport, runDoctor, states } from '../doctor/run-doctor.ts';
import { say } from '../support/io.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Consul, startConsul } from './servers/consul.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type LinkerdJudge, startLinkerdJudge } from './servers/linkerd-judge.ts';

const NAMESPACE = 'emissary';
const AGENT = { name: 'meshcert', namespace: NAMESPACE };

describe('doctor on a real API server', () => {
  let apiserver: KubeApiserver;
  let istiod: Istiod;
  let judge: LinkerdJudge;
  let kubeconfig: string;

  const apply = (...objects: readonly object[]) =>
    apiserver.kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], {
      input: objects.map((object) => stringify(object)).join('---\n'),
    });
  const remove = (...what: readonly string[]) => apiserver.kubectl(['-n', NAMESPACE, 'delete', '--wait', ...what]);
  const certificate = (name: string, mesh: string, config: object) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: NAMESPACE },
    spec: { [mesh]: config },
  });
  const istio = (changes: object = {}) =>
    certificate('istio', 'istio', {
      ca: { address: istiod.secureAddress, serverName: istiod.serverName, serviceAccount: 'emissary', ...changes },
    });
  const linkerd = () =>
    certificate('linkerd', 'linkerd', { address: judge.tlsAddress, serviceAccount: { name: 'emissary' } });
  const rolesFor = (...objects: readonly object[]) => {
    const certificates = objects.map((object) => {
      const result = validateObject(object, adapters, gateways);
      assert.ok(result.ok);
      return result.value;
    });
    const options = { serviceAccount: AGENT, leaseName: 'meshcert', shards: 1, resources: true, name: 'meshcert' };
    return rbacFor(certificates, { ...options, adapters, gateways });
  };
  const deployment = () => ({
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: AGENT,
    spec: {
      selector: { matchLabels: { app: 'meshcert' } },
      template: {
        metadata: { labels: { app: 'meshcert' } },
        spec: {
          serviceAccountName: 'meshcert',
          containers: [{ name: 'agent', image: 'ghcr.io/example/meshcert:1.0.0', args: ['agent'] }],
        },
      },
    },
  });
  const lease = (ageMs: number) => {
    const renewedAt = Date.now() - ageMs;
    const record = { holder: 'meshcert-0', durationMs: 10_000, acquiredAt: renewedAt, renewedAt, transitions: 1 };
    return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: AGENT, spec: leaseSpec(record) };
  };

  before(async () => {
    apiserver = await startKubeApiserver();
    kubeconfig = await readFile(apiserver.kubeconfigFile, 'utf8');
    await prepareCluster(apiserver, { [NAMESPACE]: ['emissary', 'meshcert'], 'istio-system': [] });
    istiod = await startIstiod({ apiserver });
    judge = await startLinkerdJudge({ apiserver });
    const { stdout } = await say(['schema', '--crd']);
    await apiserver.kubectl(['apply', '--server-side', '-f', '-'], { input: stdout });
    await apiserver.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
    await apply(istio(), linkerd(), deployment(), lease(0), ...rolesFor(istio(), linkerd()));
  });
  after(async () => {
    await judge?.stop();
    await istiod?.stop();
    await apiserver?.stop();
  });

  it('is issued a certificate by the real istiod and by Linkerd’s own types, and says so', async () => {
    await apply(lease(0));
    const report = await doctorReport(kubeconfig);
    assert.deepEqual(
      states(report, 'MC60').filter((one) => !/^MC60(06|09|11|12)|root-expiry/.test(one)),
      [
        ...['MC6001', 'MC6002', 'MC6003', 'MC6004', 'MC6005', 'MC6007', 'MC6008'].map((code) => `${code} passed`),
        ...['istio-root', 'istio-connection', 'istio-token', 'istio-issue'].map((step) => `${step} passed`),
        ...['config', 'roots', 'token', 'connection', 'issue'].map((step) => `linkerd-${step} passed`),
      ],
      report.text,
    );
    assert.match(report.checked.find(({ code }) => code === 'MC6001')?.message ?? '', /v1\.\d+\.\d+/);
    assert.deepEqual(states(report, 'MC6006'), ['MC6006 failed'], 'no controller runs pods here');
  });

  it('reports what the agent may not do, once a binding is gone', async () => {
    await remove('rolebinding', `meshcert.${NAMESPACE}`);
    const report = await doctorReport(kubeconfig, '--no-issue');
    const [missing] = report.findings.filter(({ code }) => code === 'MC6008');
    assert.match(missing?.message ?? '', /^ServiceAccount emissary\/meshcert may not .*in namespace emissary/);
    assert.ok(states(report, 'MC6010').includes('istio-token skipped'), 'doctor mints nothing in its place');
    assert.ok(states(report, 'MC6010').includes('istio-connection passed'));
    await apply(...rolesFor(istio(), linkerd()));
  });

  it('names what the real istiod refuses: its name, the audience, a root that is not its own', async () => {
    const wrong: Readonly<Record<string, readonly [changes: object, step: string, message: RegExp]>> = {
      name: [{ serverName: 'istiod.example.com' }, 'istio-connection', /ERR_MESH_TLS/],
      audience: [{ audience: 'vault' }, 'istio-issue', /ERR_MESH_/],
      port: [{ address: istiod.plaintextAddress }, 'istio-connection', /ERR_MESH_(TLS|UNREACHABLE)/],
    };
    for (const [what, [changes, step, message]] of Object.entries(wrong)) {
      await apply(istio(changes));
      const report = await doctorReport(kubeconfig);
      const [found] = report.findings.filter(({ code, object }) => code === 'MC6010' && object.name === 'istio');
      assert.match(found?.message ?? '', new RegExp(`^${step}: `), `${what}: ${report.text}`);
      assert.match(found?.message ?? '', message, what);
    }
    await apply(istio());
  });

  it('reports a Lease that is not renewed, and that the agent is gone', async () => {
    await apply(lease(600_000));
    assert.match(
      (await runDoctor(kubeconfig, '--no-issue')).text,
      /error MC6007 Lease emissary\/meshcert\n {2}meshcert-0 holds it, renewed 10 min ago/,
    );
    await remove('deployment', 'meshcert');
    const { findings } = await doctorReport(kubeconfig, '--no-issue');
    assert.ok(findings.some(({ code, severity }) => code === 'MC6005' && severity === 'error'));
    await apply(deployment());
  });

  it('checks before an installation', async () => {
    const report = await doctorReport(kubeconfig, '--pre', '-n', NAMESPACE);
    assert.deepEqual(states(report, 'MC610').sort().slice(0, 2), ['MC6101 passed', 'MC6102 passed']);
  });

  describe('with the real Consul', () => {
    let consul: Consul;
    before(async () => {
      consul = await startConsul({ acl: false });
    });
    after(() => consul?.stop());

    it('is issued a certificate over gRPC with TLS', async () => {
      const object = certificate('consul', 'consul', {
        service: 'ambassador',
        datacenter: 'dc1',
        grpc: {
          addresses: [consul.grpcTlsAddress],
          tls: { ca: { inline: consul.ca.root }, serverName: consul.serverName },
        },
      });
      await apply(object, ...rolesFor(istio(), linkerd(), object), lease(0));
      const report = await doctorReport(kubeconfig);
      const steps = states(report, 'MC6010').filter((one) => one.startsWith('consul'));
      assert.deepEqual(
        steps,
        ['connection', 'token', 'roots', 'issue'].map((step) => `consul-${step} passed`),
        report.text,
      );
    });
  });
});
