import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { sandboxes } from '../../sandbox/meshes.ts';
import { listen } from '../../sandbox/tls/upstream.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { validateObject } from '../../src/config/validate.ts';
import { checksOf } from '../../src/doctor/doctor.ts';
import { gateways } from '../../src/gateways.ts';
import { leaseSpec } from '../../src/kube/lease.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { doctorReport, runDoctor, states } from './run-doctor.ts';

const NAMESPACE = 'emissary';
const AGENT = { name: 'meshcert', namespace: NAMESPACE };
const POD = { app: 'meshcert' };

const agentDeployment = (args: readonly string[] = ['agent']) => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: AGENT,
  spec: {
    replicas: 1,
    selector: { matchLabels: POD },
    template: {
      metadata: { labels: POD },
      spec: {
        serviceAccountName: AGENT.name,
        containers: [{ name: 'agent', image: 'ghcr.io/example/meshcert:1.0.0', args }],
      },
    },
  },
});
const serviceAccount = (name: string) => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name, namespace: NAMESPACE },
});
const lease = (ageMs: number, holder: string | undefined = 'meshcert-0') => {
  const renewedAt = Date.now() - ageMs;
  const record = { holder, durationMs: 10_000, acquiredAt: renewedAt, renewedAt, transitions: 1 };
  return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: AGENT, spec: leaseSpec(record) };
};
const userRole = (rules: readonly object[]) => [
  { apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name: 'viewer' }, rules },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'ClusterRoleBinding',
    metadata: { name: 'viewer' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'viewer' },
    subjects: [{ kind: 'ServiceAccount', name: 'viewer', namespace: NAMESPACE }],
  },
];

describe('doctor in a running system', () => {
  let cluster: SandboxCluster;
  let kubeconfig: string;
  const certificateOf = (name: string, mesh: string, config: object) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: NAMESPACE },
    spec: { [mesh]: config },
  });
  const configOf = (name: string) => {
    const mesh = cluster.meshes.find((one) => one.name === name);
    assert.ok(mesh);
    return mesh.config;
  };
  const put = (...objects: readonly object[]) => {
    for (const object of objects) cluster.api.put(object);
  };
  /** Like the controllers and the kubelet. */
  const tell = async (object: { readonly metadata: object }, status: object) => {
    const { metadata, ...rest } = object as unknown as KubeObject;
    const { name, namespace } = metadata;
    const applied = {
      apiVersion: rest.apiVersion,
      kind: rest.kind,
      metadata: { name, namespace },
      status,
    } as KubeObject;
    await cluster.kube.apply(applied, { subresource: 'status', fieldManager: 'kubelet', force: true });
  };
  const remove = async (kind: string, apiVersion: string, name: string) => {
    await cluster.kube.delete({ apiVersion, kind, namespace: NAMESPACE, name }, {});
  };
  /** Roles for what the cluster's MeshCertificates need. */
  const grant = (...certificates: readonly object[]) => {
    const valid = certificates.map((object) => {
      const result = validateObject(object, adapters, gateways);
      assert.ok(result.ok, JSON.stringify(result));
      return result.value;
    });
    put(
      ...rbacFor(valid, {
        serviceAccount: AGENT,
        leaseName: 'meshcert',
        shards: 1,
        resources: true,
        name: 'meshcert',
        adapters,
        gateways,
      }),
    );
  };

  before(async () => {
    cluster = await startCluster({ meshes: ['istio', 'linkerd', 'consul'], sandboxes, api: { rbac: true } });
    kubeconfig = cluster.kubeconfig();
    put(customResourceDefinition(adapters, gateways), serviceAccount(AGENT.name), serviceAccount('viewer'));
  });
  after(() => cluster?.stop());

  describe('when everything is right', () => {
    let all: readonly object[];
    before(async () => {
      all = ['istio', 'linkerd', 'consul'].map((mesh) => certificateOf(mesh, mesh, configOf(mesh)));
      put(...all, agentDeployment(), lease(0));
      await tell(agentDeployment(), { replicas: 1, readyReplicas: 1 });
      grant(...all);
    });
    after(async () => {
      for (const mesh of ['istio', 'linkerd', 'consul']) await remove('MeshCertificate', 'meshcert.dev/v1alpha1', mesh);
    });

    it('tries each mesh as the agent would, and reports what passed', async () => {
      const report = await doctorReport(kubeconfig);
      assert.deepEqual(
        states(report, 'MC60').filter((one) => !/MC60(09|11|12)/.test(one)),
        [
          'MC6001 passed',
          'MC6002 passed',
          'MC6003 passed',
          'MC6004 passed',
          'MC6005 passed',
          'MC6006 passed',
          'MC6007 passed',
          'MC6008 passed',
          ...['consul-connection', 'consul-token', 'consul-roots', 'consul-issue'].map((code) => `${code} passed`),
          ...['istio-root', 'istio-connection', 'istio-token', 'istio-issue'].map((code) => `${code} passed`),
          ...['config', 'roots', 'token', 'connection', 'issue'].map((step) => `linkerd-${step} passed`),
        ],
        report.text,
      );
      const text = (await runDoctor(kubeconfig)).text;
      assert.match(text, /^Kubernetes\n {2}ok {4}the API server answers/m);
      assert.match(
        text,
        /^ {2}ok {4}MeshCertificate emissary\/istio: istio-issue: issued spiffe:.* it was discarded$/m,
      );
      assert.match(text, /checked: \d+ passed, \d+ warned, \d+ failed, \d+ skipped\n$/);
    });

    it('reports a binding in a shared namespace that is for the agent of another gateway', async () => {
      const apiVersion = 'rbac.authorization.k8s.io/v1';
      const bound = (namespace: string) => ({
        ...{ apiVersion, kind: 'RoleBinding', metadata: { name: 'meshcert', namespace: 'linkerd' } },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'meshcert' },
        subjects: [{ kind: 'ServiceAccount', name: 'meshcert', namespace }],
      });
      const found = async () => (await doctorReport(kubeconfig)).findings.filter(({ code }) => code === 'MC6014');
      put(bound(NAMESPACE));
      assert.deepEqual(await found(), []);
      put(bound('edge'));
      const [finding, ...more] = await found();
      assert.deepEqual([finding?.severity, finding?.object.namespace, more], ['warning', 'linkerd', []]);
      assert.match(finding?.message ?? '', /^it binds edge\/meshcert; .* replaced those of emissary\/meshcert$/);
      await cluster.kube.delete({ apiVersion, kind: 'RoleBinding', namespace: 'linkerd', name: 'meshcert' }, {});
    });

    it('requests no certificate with --no-issue', async () => {
      const report = await doctorReport(kubeconfig, '--no-issue');
      const issues = states(report, 'MC6010').filter((one) => one.includes('-issue'));
      assert.deepEqual(issues, ['consul-issue skipped', 'istio-issue skipped', 'linkerd-issue skipped']);
    });

    it('does not send a token that opens the Kubernetes API, unless the agent allows its audience', async () => {
      const audience = 'https://kubernetes.default.svc.cluster.local';
      const login = { method: 'kubernetes', serviceAccount: 'emissary', audience };
      const open = certificateOf('open', 'consul', { ...configOf('consul'), auth: { login } });
      put(open);
      grant(...all, open);
      const tokenOf = async () =>
        (await doctorReport(kubeconfig)).checked.find(
          ({ message, object }) => message.includes('consul-token') && object?.name === 'open',
        );
      const refused = await tokenOf();
      assert.equal(refused?.state, 'failed');
      assert.match(refused?.message ?? '', /ERR_NOT_ALLOWED: .*opens the Kubernetes API/);
      put(agentDeployment(['agent', `--allow-audience=${audience}`, '--allow-audience=istio-ca']));
      // There is no such auth method here: the login was tried, and failed.
      assert.match((await tokenOf())?.message ?? '', /consul-token: ERR_MESH_/);
      put(agentDeployment());
      await remove('MeshCertificate', 'meshcert.dev/v1alpha1', 'open');
    });

    it('refuses what an agent that reads every Secret refuses without an allow-list', async () => {
      put(agentDeployment(['agent', '--observe=labels']));
      const { checked } = await doctorReport(kubeconfig);
      const token = checked.find(({ message }) => message.includes('istio-token'));
      assert.match(token?.message ?? '', /ERR_NOT_ALLOWED: .*\(none is allowed\).*--allow-service-account=/);
      put(agentDeployment());
    });

    it('writes nothing, and no token is in any output', async () => {
      const before = cluster.api.requests.count({ verb: 'create', resource: 'serviceaccounts' });
      for (const format of ['text', 'json', 'sarif']) {
        const { text } = await runDoctor(kubeconfig, '-o', format);
        assert.doesNotMatch(text, /eyJ[A-Za-z0-9_-]{20}|PRIVATE KEY/);
      }
      assert.equal(cluster.api.requests.count({ verb: 'create', resource: 'serviceaccounts' }), before);
    });

    it('names every rule in SARIF, and what passed in the properties of the run', async () => {
      const { text } = await runDoctor(kubeconfig, '-o', 'sarif');
      const [run] = JSON.parse(text).runs;
      const rules = run.tool.driver.rules.map(({ id }: { id: string }) => id);
      assert.equal(new Set(rules).size, rules.length);
      for (const { ruleId, ruleIndex } of run.results) assert.equal(rules[ruleIndex], ruleId);
      assert.ok(run.results.some(({ ruleId }: { ruleId: string }) => ruleId === 'MC6011'));
      assert.ok(run.properties.checked.some(({ code }: { code?: string }) => code === 'MC6010'));
    });

    it('skips with the reason what the user may not read, and fails for none of it', async () => {
      const READ = ['get', 'list', 'watch'];
      put(
        ...userRole([
          { apiGroups: ['', 'apps', 'getambassador.io', 'meshcert.dev'], resources: ['*'], verbs: ['list'] },
          { apiGroups: [''], resources: ['configmaps'], verbs: READ },
        ]),
      );
      const token = cluster.api.tokenFor({ name: 'viewer', namespace: NAMESPACE });
      const report = await doctorReport(cluster.api.kubeconfig({ token }));
      const failed = report.findings.map(({ code, message }) => `${code} ${message}`);
      // Nothing is published in this cluster, and the user may read that.
      const expected = /^MC(6009 its status is empty|6011 TLSContext|5005 )/;
      assert.deepEqual(
        failed.filter((one) => !expected.test(one)),
        [],
      );
      assert.deepEqual(states(report, 'MC6008'), ['MC6008 skipped']);
      assert.ok(states(report, 'MC6010').includes('istio-token skipped'));
      assert.ok(states(report, 'MC6010').includes('istio-connection passed'), 'the way is tried without a token');
      assert.ok(report.skipped.some((sentence) => /Secret emissary\/istio-identity could not be read/.test(sentence)));
    });
  });

  describe('when the agent has a problem', () => {
    const istio = () => certificateOf('istio', 'istio', configOf('istio'));
    before(() => {
      put(istio());
      grant(istio());
    });
    const errorsOf = async (...argv: string[]) => {
      const { findings } = await doctorReport(kubeconfig, '--no-issue', ...argv);
      return findings.filter(({ severity }) => severity === 'error').map(({ code, message }) => `${code} ${message}`);
    };
    const has = (errors: readonly string[], pattern: RegExp) =>
      assert.ok(
        errors.some((one) => pattern.test(one)),
        `${pattern} in\n${errors.join('\n')}`,
      );

    it('says that its Lease has expired, that no agent holds it, and that there is none', async () => {
      put(agentDeployment(), lease(300_000));
      has(await errorsOf(), /MC6007 meshcert-0 holds it, renewed 5 min ago, .*no agent leads/);
      put(lease(0, ''));
      has(await errorsOf(), /MC6007 no agent holds it/);
      await remove('Lease', 'coordination.k8s.io/v1', 'meshcert');
      has(await errorsOf(), /MC6007 it does not exist/);
      put(lease(0));
    });

    it('says that its pods are not ready, and why', async () => {
      const pod = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'meshcert-0', namespace: NAMESPACE, labels: POD },
        spec: { containers: [{ name: 'agent', image: 'meshcert' }] },
      };
      put(agentDeployment(), pod);
      await tell(agentDeployment(), { replicas: 1, readyReplicas: 0 });
      await tell(pod, { containerStatuses: [{ name: 'agent', state: { waiting: { reason: 'ImagePullBackOff' } } }] });
      has(await errorsOf(), /MC6006 0 of 1 pods are ready \(ImagePullBackOff\): nothing is renewed/);
      const lastState = { terminated: { reason: 'OOMKilled', exitCode: 137 } };
      const again = { name: 'agent', state: { waiting: { reason: 'CrashLoopBackOff' } }, lastState };
      await tell(pod, { containerStatuses: [again] });
      has(await errorsOf(), /MC6006 .*\(CrashLoopBackOff, it ended with OOMKilled, exit code 137\)/);
      await tell(agentDeployment(), { replicas: 1, readyReplicas: 1 });
    });

    it('says which rights it lacks, by its own name', async () => {
      await remove('RoleBinding', 'rbac.authorization.k8s.io/v1', `meshcert.${NAMESPACE}`);
      const errors = await errorsOf();
      has(
        errors,
        /MC6008 ServiceAccount emissary\/meshcert may not create leases.coordination.k8s.io in namespace emissary/,
      );
      const report = await doctorReport(kubeconfig);
      assert.ok(
        states(report, 'MC6010').includes('istio-token skipped'),
        'doctor mints nothing that the agent may not',
      );
      grant(istio());
    });

    it('says that no agent watches the namespace of a MeshCertificate', async () => {
      put(agentDeployment(['agent', '--watch-namespaces=shop']));
      has(await errorsOf(), /MC6005 no agent watches MeshCertificates in the namespace emissary: .* watches shop/);
      put(agentDeployment());
    });

    it('passes on what the agent reports about a MeshCertificate, such as a right that it lacks', async () => {
      const message = 'ERR_KUBE_FORBIDDEN: secrets "istio-ca" is forbidden';
      const conditions = [
        { type: 'Ready', status: 'False', reason: 'NotPublished', message: 'see Degraded' },
        { type: 'Degraded', status: 'True', reason: 'Refused', message },
      ].map((one) => ({ ...one, lastTransitionTime: '2026-01-01T00:00:00Z' }));
      await tell(istio(), { mesh: 'istio', roots: [], mappings: [], targets: [], rotations: 0, conditions });
      has(await errorsOf(), /MC6009 .*Degraded Refused: ERR_KUBE_FORBIDDEN/);
    });

    it('takes a MeshCertificate that is well for well, and names an issuer that ends', async () => {
      const conditionsWith = (issuerEnds: 'True' | 'False') =>
        [
          { type: 'Ready', status: 'True', reason: 'Serving', message: 'Certificate of x until then.' },
          { type: 'Referenced', status: 'True', reason: 'AllMappings', message: '1 Mapping(s) use it.' },
          { type: 'IssuerEnding', status: issuerEnds, reason: 'IssuerEnds', message: 'The CA certificate of y ends.' },
          { type: 'Degraded', status: 'False', reason: 'AsExpected', message: 'No problems.' },
        ].map((one) => ({ ...one, lastTransitionTime: '2026-01-01T00:00:00Z' }));
      const status = { mesh: 'istio', roots: [], mappings: [], targets: [], rotations: 0 };
      const found = async () =>
        (await doctorReport(kubeconfig, '--no-issue')).findings.filter(({ code }) => code === 'MC6009');
      await tell(istio(), { ...status, conditions: conditionsWith('False') });
      assert.deepEqual(await found(), []);
      await tell(istio(), { ...status, conditions: conditionsWith('True') });
      assert.deepEqual(
        (await found()).map(({ severity, message }) => [severity, message]),
        [['warning', 'IssuerEnding IssuerEnds: The CA certificate of y ends']],
      );
    });
  });

  describe('when nothing is there', () => {
    let silent: Server;
    let silentPort: number;
    before(async () => {
      for (const [kind, apiVersion] of [
        ['Deployment', 'apps/v1'],
        ['Lease', 'coordination.k8s.io/v1'],
      ] as const)
        await remove(kind, apiVersion, 'meshcert');
      await remove('MeshCertificate', 'meshcert.dev/v1alpha1', 'istio');
      silent = createServer((socket) => socket.on('error', () => {}).resume());
      silentPort = await listen(silent);
    });
    after(() => silent?.close());

    it('says that there is no agent and no CA', async () => {
      put(certificateOf('lost', 'istio', { ca: { address: '127.0.0.1:1', serviceAccount: 'emissary' } }));
      const { findings, code } = await doctorReport(kubeconfig);
      const errors = findings.filter(({ severity }) => severity === 'error').map(({ code }) => code);
      assert.equal(code, 1);
      for (const expected of ['MC6005', 'MC6009', 'MC6010', 'MC6011']) assert.ok(errors.includes(expected), expected);
      await remove('MeshCertificate', 'meshcert.dev/v1alpha1', 'lost');
    });

    it('finds an error in each of eight broken MeshCertificates', async () => {
      const istio = configOf('istio') as { ca: object };
      const consul = configOf('consul') as Record<string, object>;
      const broken: Record<string, object> = {
        'no-ca': certificateOf('no-ca', 'istio', { ca: { ...istio.ca, address: '127.0.0.1:1' } }),
        'silent-ca': certificateOf('silent-ca', 'istio', { ca: { ...istio.ca, address: `127.0.0.1:${silentPort}` } }),
        'wrong-name': certificateOf('wrong-name', 'istio', { ca: { ...istio.ca, serverName: 'other.example.com' } }),
        'no-account': certificateOf('no-account', 'istio', { ca: { ...istio.ca, serviceAccount: 'nobody' } }),
        'wrong-audience': certificateOf('wrong-audience', 'istio', { ca: { ...istio.ca, audience: 'vault' } }),
        'no-root': certificateOf('no-root', 'istio', { ca: { ...istio.ca, root: { configMap: { name: 'gone' } } } }),
        'no-plane': certificateOf('no-plane', 'linkerd', { ...configOf('linkerd'), controlPlaneNamespace: 'gone' }),
        'no-consul': certificateOf('no-consul', 'consul', {
          ...consul,
          grpc: { addresses: ['127.0.0.1:1'], plaintext: true },
        }),
      };
      put(...Object.values(broken));
      const { findings } = await doctorReport(kubeconfig, '--agent', 'none', '--timeout', '2s');
      for (const name of Object.keys(broken)) {
        const own = findings.filter(({ object, code }) => object.name === name && code === 'MC6010');
        assert.ok(
          own.length > 0,
          `${name} in ${JSON.stringify(findings.map(({ object, code }) => [object.name, code]))}`,
        );
        assert.ok(own.every(({ severity }) => severity === 'error'));
      }
      const late = findings.find(({ object, code }) => object.name === 'silent-ca' && code === 'MC6010');
      assert.match(late?.message ?? '', /istio-connection: .*(no answer within 2 s|ERR_MESH_UNREACHABLE)/);
    });

    it('reports what is not defined', async () => {
      await cluster.kube.delete(
        {
          apiVersion: 'apiextensions.k8s.io/v1',
          kind: 'CustomResourceDefinition',
          name: 'meshcertificates.meshcert.dev',
        },
        {},
      );
      const { findings } = await doctorReport(kubeconfig);
      assert.ok(
        findings.some(({ code, message }) => code === 'MC6003' && /does not know MeshCertificates/.test(message)),
      );
      const old = customResourceDefinition(adapters, gateways) as {
        spec: {
          versions: {
            schema: { openAPIV3Schema: { properties: { spec: { properties: Record<string, unknown> } } } };
          }[];
        };
      };
      const [version] = structuredClone(old.spec.versions);
      assert.ok(version);
      delete version.schema.openAPIV3Schema.properties.spec.properties.probe;
      put({ ...old, spec: { ...old.spec, versions: [version] } });
      const outdated = (await doctorReport(kubeconfig)).findings.find(({ code }) => code === 'MC6003');
      assert.match(outdated?.message ?? '', /lacks spec\.probe, which the API server then drops/);
    });
  });

  describe('before anything is installed', () => {
    it('says what it found and whether you may install', async () => {
      put({
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'gateway', namespace: NAMESPACE },
        spec: {
          selector: { matchLabels: { app: 'gateway' } },
          template: {
            metadata: { labels: { app: 'gateway' } },
            spec: { containers: [{ name: 'emissary', image: 'ghcr.io/emissary-ingress/emissary:4.1.0' }] },
          },
        },
      });
      const report = await doctorReport(kubeconfig, '--pre', '-n', NAMESPACE);
      assert.deepEqual(states(report, 'MC6101'), ['MC6101 passed']);
      assert.deepEqual(states(report, 'MC6103'), ['MC6103 passed']);
      assert.ok(
        report.checked.some(({ message }) => /Linkerd .*in namespace linkerd/.test(message)),
        report.text,
      );
      assert.equal(report.summary.objects, 0);

      const token = cluster.api.tokenFor({ name: 'viewer', namespace: NAMESPACE });
      const denied = await doctorReport(cluster.api.kubeconfig({ token }), '--pre', '-n', NAMESPACE);
      const [may] = denied.findings.filter(({ code }) => code === 'MC6101');
      assert.match(may?.message ?? '', /you may not create customresourcedefinitions.apiextensions.k8s.io/);
      assert.equal(denied.code, 1);
    });

    it('reports a cluster that does not answer, and conflicting flags', async () => {
      const nowhere = kubeconfig.replace(/https:\/\/127\.0\.0\.1:\d+/, 'https://127.0.0.1:1');
      for (const argv of [[], ['--pre']]) {
        const { code, text } = await runDoctor(nowhere, '--timeout', '2s', ...argv);
        assert.equal(code, 1);
        assert.match(text, /^error MC6001 cluster\n/);
      }
      for (const [flag = '', ...more] of [
        ['--pre', '-f', '.'],
        ['--agent', 'some'],
        ['--timeout', 'soon'],
      ]) {
        const { code, text } = await runDoctor(kubeconfig, flag, ...more);
        assert.equal(code, 2, flag);
        assert.match(text, new RegExp(flag));
      }
    });
  });

  it('lists the checks of the running system beside the object checks', async () => {
    const { text } = await runDoctor(kubeconfig, '--list');
    assert.ok(text.split('\n').length > checksOf(adapters).length + 10);
    assert.match(text, /^MC6007 {2}error {4}No agent leads$/m);
  });
});
