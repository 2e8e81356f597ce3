import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { stringify } from 'yaml';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { type SandboxUpstream, startUpstream } from '../../sandbox/tls/upstream.ts';
import { ROOT } from '../../scripts/tree.ts';
import { say } from '../support/io.ts';
import { ADVICE, MAPPING_ADVICE } from './parts/advice-cases.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { startIstioWorkload, type Workload } from './parts/istio-workload.ts';
import { meshCertificatesOf } from './parts/mesh-certificates.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { opensslCa } from './servers/openssl-ca.ts';
import { discard, scratchDir } from './servers/process.ts';

const run = promisify(execFile);

interface Status {
  readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message: string }[];
  readonly fingerprint?: string;
  readonly lastError?: { readonly code: string; readonly message: string };
  readonly mappings?: readonly { readonly name: string; readonly state: string; readonly message?: string }[];
}

/** Each error is brought about on a real API server with a real istiod; then what it advises is done, and it is gone. */
describe('the advice of errors of the agent', () => {
  let server: KubeApiserver;
  let istiod: Istiod;
  let agent: AgentProcess;
  let dir: string;

  const apply = (object: object | string) =>
    server.kubectl(['apply', '-f', '-'], { input: typeof object === 'string' ? object : stringify(object) });
  const {
    document: certificate,
    statusOf,
    errorOf,
  } = meshCertificatesOf(
    'emissary',
    () => server,
    () => agent.log(),
  );
  const plain = () => ({
    istio: {
      ca: { address: istiod.secureAddress, serverName: istiod.serverName, serviceAccount: 'emissary-ingress' },
    },
  });
  const conditionOf = (status: Status, type: string) => status.conditions?.find((one) => one.type === type)?.status;
  const well = (name: string, log = () => agent.log()) =>
    eventually(
      `${name} to be published`,
      async () => {
        const status = await statusOf(name);
        return conditionOf(status, 'Published') === 'True' && conditionOf(status, 'Degraded') === 'False';
      },
      log,
      90_000,
    );
  before(async () => {
    dir = scratchDir('advice');
    server = await startKubeApiserver();
    for (const namespace of ['emissary', 'shop', 'narrow', 'istio-system']) await server.ensureNamespace(namespace);
    for (const [namespace, name] of [
      ['emissary', 'emissary-ingress'],
      ['shop', 'web'],
      ['narrow', 'emissary-ingress'],
      ['narrow', 'meshcert'],
    ]) {
      await apply({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } });
    }
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
    istiod = await startIstiod({ apiserver: server, env: { MAX_WORKLOAD_CERT_TTL: '48h' } });
    agent = await startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['-n', 'emissary'] });
  });

  after(async () => {
    await agent?.stop();
    await istiod?.stop();
    await server?.stop();
    if (dir) discard(dir);
  });

  it('ERR_GATEWAY_CRD_MISSING: install the definitions, and it goes on', async () => {
    await apply(certificate('first', plain()));
    assert.match(await errorOf('first', 'ERR_GATEWAY_CRD_MISSING'), /install the Emissary-ingress CRDs/);
    await apply(
      ambassadorDefinitions()
        .map((one) => stringify(one))
        .join('---\n'),
    );
    await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
    await well('first');
  });

  for (const [name, { code, says, spec, given = [], fix }] of Object.entries(ADVICE)) {
    it(`${code}, ${name}: what it says is done, and the certificate is published`, async () => {
      for (const object of given) await apply(object);
      await apply(certificate(name, spec(istiod)));
      assert.match(await errorOf(name, code), says);
      if (fix.apply) await apply(fix.apply);
      if (fix.spec) {
        const patch = JSON.stringify({ spec: fix.spec(istiod) });
        await server.kubectl(['patch', 'mcert', '-n', 'emissary', name, '--type=merge', '-p', patch]);
      }
      await well(name);
      const { lastError } = await statusOf(name);
      assert.equal(lastError, undefined);
    });
  }

  it('ERR_PLAN_IMMUTABLE: choose another name', async () => {
    await apply(certificate('frozen', plain()));
    await well('frozen');
    const patch = ['patch', 'secret', '-n', 'emissary', 'frozen-identity', '--type=merge', '-p', '{"immutable":true}'];
    await server.kubectl(patch);
    assert.equal(
      (await say(['renew', 'frozen', '-n', 'emissary'], { env: { KUBECONFIG: server.kubeconfigFile } })).code,
      0,
    );
    assert.match(await errorOf('frozen', 'ERR_PLAN_IMMUTABLE'), /choose another name in the MeshCertificate/);
    const spec = JSON.stringify({ spec: { secretName: 'thawed-identity' } });
    await server.kubectl(['patch', 'mcert', '-n', 'emissary', 'frozen', '--type=merge', '-p', spec]);
    await well('frozen');
  });

  it('ERR_KUBE_FORBIDDEN: apply what meshcert render --rbac prints', async () => {
    const file = join(dir, 'narrow.yaml');
    await writeFile(
      file,
      stringify({ ...certificate('narrow', plain()), metadata: { name: 'narrow', namespace: 'narrow' } }),
    );
    const token = await server.serviceAccountToken({
      ...{ namespace: 'narrow', name: 'meshcert' },
      audience: 'https://kubernetes.default.svc.cluster.local',
    });
    const kubeconfig = await server.kubeconfigFor('narrow', token);
    await server.kubectl(['apply', '-f', file]);
    const narrow = await startAgentProcess({ kubeconfig, args: ['-n', 'narrow'] });
    try {
      await eventually('the refusal', async () => /ERR_KUBE_FORBIDDEN.*Grant it in a Role/.test(narrow.log()));
      const roles = await say(['render', '--rbac', '-f', file]);
      await apply(roles.stdout);
      await eventually(
        'the certificate',
        async () => {
          const { body } = await server.call('GET', '/api/v1/namespaces/narrow/secrets/narrow-identity');
          return body.data?.['tls.key'] !== undefined;
        },
        () => narrow.log(),
        120_000,
      );
    } finally {
      await narrow.stop();
    }
  });

  it('ERR_CONFIG: correct the lines that the message lists', async () => {
    const good = stringify(certificate('from-file', plain()));
    const file = await startAgentProcess({
      kubeconfig: server.kubeconfigFile,
      documents: good.replace('serverName', 'servername'),
      args: ['-n', 'emissary', '--lease-name', 'from-file'],
    });
    try {
      const problems = async () => {
        const answer = (await (await fetch(`${file.url}/readyz`)).json()) as {
          problems: { code: string; message: string }[];
        };
        return answer.problems;
      };
      await eventually('the error', async () => (await problems()).some(({ code }) => code === 'ERR_CONFIG'));
      assert.match((await problems())[0]?.message ?? '', /servername: unknown field.*did you mean "serverName"/);
      await file.configure(good);
      await eventually(
        'the certificate',
        async () => (await problems()).length === 0 && (await file.statuses()).length === 1,
        () => file.log(),
      );
    } finally {
      await file.stop();
    }
  });

  describe('about Mappings', () => {
    before(async () => {
      const selector = { matchLabels: { mesh: 'mapped' } };
      await apply(certificate('mapped', { ...plain(), mappings: { selector, namespaces: ['emissary', 'shop'] } }));
      await well('mapped');
    });

    for (const [name, { code, says, namespace, spec, fix }] of Object.entries(MAPPING_ADVICE)) {
      it(`${code}: what it says is done, and spec.tls is set`, async () => {
        const labels = { mesh: 'mapped' };
        const metadata = { name, namespace, labels };
        await apply({ apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', metadata, spec });
        const entryOf = async () => (await statusOf('mapped')).mappings?.find((one) => one.name === name);
        await eventually(
          code,
          async () => (await entryOf())?.state === code,
          () => agent.log(),
        );
        assert.match((await entryOf())?.message ?? '', says);
        const [verb = '', ...rest] = fix;
        await server.kubectl([verb, `mapping/${name}`, '-n', namespace, ...rest]);
        await eventually(
          'the Mapping to be moved',
          async () => (await entryOf())?.state === 'ok',
          () => agent.log(),
        );
        const path = `/apis/getambassador.io/v3alpha1/namespaces/${namespace}/mappings/${name}`;
        assert.equal((await server.call('GET', path)).body.spec.tls, 'mapped');
      });
    }

    it('ERR_RETIRE_WAITS: remove the references, and the MeshCertificate goes', async () => {
      const patch = [
        'patch',
        'mcert',
        '-n',
        'emissary',
        'mapped',
        '--type=merge',
        '-p',
        '{"spec":{"deletionPolicy":"Delete"}}',
      ];
      await server.kubectl(patch);
      await eventually('the finalizer', async () => {
        const path = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates/mapped';
        return (await server.call('GET', path)).body.metadata.finalizers?.includes('meshcert.dev/retire');
      });
      await server.kubectl(['delete', 'mcert', '-n', 'emissary', 'mapped', '--wait=false']);
      assert.match(await errorOf('mapped', 'ERR_RETIRE_WAITS'), /run: meshcert offboard mapped -n emissary/);
      const env = { KUBECONFIG: server.kubeconfigFile };
      const { code, stdout, stderr } = await say(['offboard', 'mapped', '-n', 'emissary', '--yes'], { env });
      assert.equal(code, 0, `${stdout}${stderr}`);
      await server.kubectl(['wait', '--for=delete', 'mcert/mapped', '-n', 'emissary', '--timeout=60s']);
    });
  });

  describe('about a probe', () => {
    let workload: Workload;
    let foreign: SandboxUpstream;
    before(async () => {
      workload = await startIstioWorkload({
        ...{ apiserver: server, istiod, namespace: 'shop', serviceAccount: 'web' },
        allow: (id) => id.endsWith('/sa/emissary-ingress'),
      });
      const others = SandboxCa.root({ name: 'another mesh' });
      const identity = others.identity({ uris: ['spiffe://other/ns/shop/sa/web'], lifetimeMs: 3_600_000 });
      foreign = await startUpstream({ identity: () => identity, trust: () => [others.certificate], anonymous: true });
    });
    after(async () => {
      await workload?.[Symbol.asyncDispose]();
      await foreign?.stop();
    });

    const probe = (name: string, ...args: string[]) =>
      say(['probe', name, '-n', 'emissary', ...args], { env: { KUBECONFIG: server.kubeconfigFile } });

    it('ERR_PROBE_UNREACHABLE: check the address', async () => {
      const wrong = await probe('first', '--address', '127.0.0.1:1');
      assert.equal(wrong.code, 1);
      assert.match(wrong.stdout + wrong.stderr, /ERR_PROBE_UNREACHABLE/);
      assert.equal((await probe('first', '--address', `127.0.0.1:${workload.upstream.port}`)).code, 0);
    });

    it('ERR_PROBE_UPSTREAM_UNTRUSTED: check that the upstream is in this mesh', async () => {
      const wrong = await probe('first', '--address', `127.0.0.1:${foreign.port}`);
      assert.equal(wrong.code, 1);
      assert.match(wrong.stdout + wrong.stderr, /ERR_PROBE_UPSTREAM_UNTRUSTED.*does not verify under the bundle/);
      assert.equal((await probe('first', '--address', `127.0.0.1:${workload.upstream.port}`)).code, 0);
    });

    it('ERR_PROBE_UPSTREAM_ID: correct the name', async () => {
      const at = ['--address', `127.0.0.1:${workload.upstream.port}`];
      const wrong = await probe('first', ...at, '--id', 'spiffe://cluster.local/ns/shop/sa/other');
      assert.match(wrong.stdout + wrong.stderr, /ERR_PROBE_UPSTREAM_ID/);
      assert.equal((await probe('first', ...at, '--id', 'spiffe://cluster.local/ns/shop/sa/web')).code, 0);
    });

    it('ERR_PROBE_REFUSED: let the workload load the new root', async () => {
      await apply(certificate('eager', { ...plain(), trust: { hold: '1s' } }));
      await well('eager');
      await istiod.replaceRoot();
      const { fingerprint } = await statusOf('eager');
      const env = { KUBECONFIG: server.kubeconfigFile };
      assert.equal((await say(['renew', 'eager', '-n', 'emissary'], { env })).code, 0);
      const renewed = async () => (await statusOf('eager')).fingerprint !== fingerprint;
      await eventually('a leaf under the new root', renewed, () => agent.log(), 120_000);
      const at = ['--address', `127.0.0.1:${workload.upstream.port}`];
      const wrong = await probe('eager', ...at);
      assert.match(wrong.stdout + wrong.stderr, /ERR_PROBE_REFUSED/);
      await workload.renew();
      const { code, stdout, stderr } = await probe('eager', ...at);
      assert.equal(code, 0, `${stdout}${stderr}`);
    });
  });

  describe('about CRLs', () => {
    let plugged: Istiod;
    const at = (name: string) => join(dir, name);
    const openssl = (...args: string[]) => run('openssl', args, { cwd: dir });
    /** What istiod writes for a plug-in CA with CRLs. */
    const publish = async (file: string) => {
      const data = { 'ca-crl.pem': await readFile(at(file), 'utf8') };
      const metadata = { name: 'istio-ca-crl', namespace: 'emissary' };
      await apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata, data });
    };
    const sign = (out: string, ca: string, ...times: string[]) =>
      openssl(
        'ca',
        '-gencrl',
        '-config',
        'ca.cnf',
        '-cert',
        `${ca}.pem`,
        '-keyfile',
        `${ca}.key`,
        '-out',
        out,
        ...times,
      );
    const refused = (code: string) =>
      eventually(
        code,
        async () => ((await statusOf('revoking')).conditions ?? []).some(({ message }) => message.includes(code)),
        () => agent.log(),
      );

    before(async () => {
      // The self-signed CA of istiod may not sign CRLs: its key usage lacks cRLSign.
      await istiod.stop();
      const [root, key] = await Promise.all(['root.pem', 'root.key'].map((await opensslCa(dir)).read));
      assert.ok(root && key);
      const cacerts = { 'ca-cert.pem': root, 'ca-key.pem': key, 'root-cert.pem': root, 'cert-chain.pem': root };
      plugged = await startIstiod({ apiserver: server, cacerts });
      const lines = ['[ca]', 'default_ca = own', '[own]', 'database = index.txt', 'default_md = sha256', ''];
      await writeFile(at('ca.cnf'), lines.join('\n'));
      await writeFile(at('index.txt'), '');
      await sign('good.crl', 'root', '-crldays', '1');
      await sign('expired.crl', 'root', '-crl_lastupdate', '20200101000000Z', '-crl_nextupdate', '20200102000000Z');
      await openssl('genrsa', '-out', 'other.key', '2048');
      await openssl('x509', '-in', 'root.pem', '-signkey', 'other.key', '-days', '1', '-out', 'other.pem');
      await sign('other.crl', 'other', '-crldays', '1');
    });
    after(() => plugged?.stop());

    it('ERR_CRL_MISSING, ERR_CRL_EXPIRED, ERR_CRL_REFUSED: correct the CRL, and it is published', async () => {
      const { secureAddress: address, serverName } = plugged;
      const istio = { ca: { address, serverName, serviceAccount: 'emissary-ingress' } };
      await apply(certificate('revoking', { istio, trust: { crl: true } }));
      await refused('ERR_CRL_MISSING');
      // It deletes the ConfigMap of a CA without CRLs.
      await plugged.stop();
      await publish('expired.crl');
      await refused('ERR_CRL_EXPIRED');
      await publish('other.crl');
      await refused('ERR_CRL_REFUSED');
      await publish('good.crl');
      let said: Status['conditions'];
      await eventually(
        'the CRL to be published',
        async () => {
          said = (await statusOf('revoking')).conditions;
          const secret = await server.call('GET', '/api/v1/namespaces/emissary/secrets/revoking-crl');
          const context = await server.call(
            'GET',
            '/apis/getambassador.io/v3alpha1/namespaces/emissary/tlscontexts/revoking',
          );
          return secret.status === 200 && context.body.spec.crl_secret === 'revoking-crl';
        },
        () => `${agent.log()}\n${JSON.stringify(said)}`,
      );
      await well('revoking');
    });
  });
});
