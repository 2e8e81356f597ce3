import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../../scripts/tree.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { type Said, say } from '../support/io.ts';
import * as made from '../support/onboard-cluster.ts';
import { isPublished, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type OpensslCa, opensslCa, workloadExtensions } from './servers/openssl-ca.ts';
import { discard, scratchDir } from './servers/process.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary-ingress';
const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';

/** Each error is brought about for real; then what it advises is done, and the same command succeeds. */
describe('the advice of errors about files of OpenSSL', () => {
  let dir: string;
  let ca: OpensslCa;
  const at = (name: string) => join(dir, name);
  const openssl = (...args: string[]) => ca.openssl(...args);
  const inspect = (...args: string[]) => say(['inspect', ...args]);
  const pem = (name: string) => ca.read(name);

  before(async () => {
    dir = scratchDir('advice-files');
    ca = await opensslCa(dir);
    await ca.issue('leaf', { extensions: workloadExtensions(ID) });
    await openssl('pkey', '-in', 'leaf.key', '-out', 'leaf.copy.key');
  });
  after(() => {
    if (dir) discard(dir);
  });

  const good = () => inspect(at('leaf.pem'), at('leaf.key'), '--ca', at('root.pem'), '--id', ID);
  async function refused(code: string, says: RegExp, ...args: string[]): Promise<void> {
    const said = await inspect(...args);
    assert.equal(said.code, 1);
    assert.match(said.stderr, new RegExp(`${code}: .*`));
    assert.match(said.stderr, says);
  }
  async function passes(): Promise<void> {
    const { code, stdout, stderr } = await good();
    assert.equal(code, 0, `${stdout}${stderr}`);
  }

  it('ERR_PEM_EMPTY: use the right file, which here is the PEM form of it', async () => {
    await openssl('x509', '-in', 'leaf.pem', '-outform', 'DER', '-out', 'leaf.der');
    await refused('ERR_PEM_EMPTY', /leaf\.der.*: input has no certificate/, at('leaf.der'), at('leaf.key'));
    await openssl('x509', '-inform', 'DER', '-in', 'leaf.der', '-out', 'leaf.pem');
    await passes();
  });

  it('ERR_PEM_SYNTAX: recreate the file that was cut off', async () => {
    const whole = await pem('leaf.pem');
    await writeFile(at('leaf.pem'), whole.slice(0, whole.length / 2));
    await refused('ERR_PEM_SYNTAX', /leaf\.pem.*PEM block 1/, at('leaf.pem'), '--ca', at('root.pem'));
    await writeFile(at('leaf.pem'), whole);
    await passes();
  });

  it('ERR_PEM_TOO_MANY and ERR_PEM_TOO_LARGE: use the right file', async () => {
    const root = await pem('root.pem');
    await writeFile(at('many.pem'), root.repeat(257));
    await refused('ERR_PEM_TOO_MANY', /many\.pem: .*256/, at('leaf.pem'), '--ca', at('many.pem'));
    await writeFile(at('large.pem'), root.repeat(Math.ceil((1024 * 1024) / root.length)));
    await refused('ERR_PEM_TOO_LARGE', /large\.pem: .*over the limit/, at('leaf.pem'), '--ca', at('large.pem'));
    await passes();
  });

  it('ERR_CERT_SYNTAX: recreate the file', async () => {
    const request = (await pem('leaf.csr')).replaceAll('CERTIFICATE REQUEST', 'CERTIFICATE');
    await writeFile(at('relabelled.pem'), request);
    await refused(
      'ERR_CERT_SYNTAX',
      /relabelled\.pem: not a certificate/,
      at('relabelled.pem'),
      '--ca',
      at('root.pem'),
    );
    await passes();
  });

  it('ERR_KEY_TYPE: use PKCS#8 without a password', async () => {
    await openssl('pkcs8', '-topk8', '-in', 'leaf.copy.key', '-passout', 'pass:secret', '-out', 'leaf.key');
    await refused('ERR_KEY_TYPE', /leaf\.key: .*PKCS#8 without a password/, at('leaf.pem'), at('leaf.key'));
    await openssl('pkcs8', '-topk8', '-nocrypt', '-in', 'leaf.copy.key', '-out', 'leaf.key');
    await passes();
  });

  it('ERR_KEY_SYNTAX: recreate the file', async () => {
    const whole = await pem('leaf.key');
    await writeFile(at('leaf.key'), whole.replace(/\n.{20}/, '\nAAAAAAAAAAAAAAAAAAAA'));
    await refused('ERR_KEY_SYNTAX', /leaf\.key: the PRIVATE KEY block/, at('leaf.pem'), at('leaf.key'));
    await writeFile(at('leaf.key'), whole);
    await passes();
  });

  it('ERR_KEY_COUNT: use the right file', async () => {
    await refused(
      'ERR_KEY_COUNT',
      /2 private keys; expected exactly one/,
      at('leaf.pem'),
      at('leaf.key'),
      at('root.key'),
    );
    await passes();
  });
});

describe('the advice of errors of the commands', () => {
  let server: KubeApiserver;
  let dir: string;
  before(async () => {
    dir = scratchDir('advice-cli');
    server = await startKubeApiserver();
    await prepareCluster(server, {
      emissary: ['emissary-ingress', 'meshcert'],
      edge: ['emissary-ingress'],
      shop: ['web'],
    });
  });
  after(async () => {
    await server?.stop();
    if (dir) discard(dir);
  });

  const as = (kubeconfig: string, ...argv: string[]): Promise<Said> => say(argv, { env: { KUBECONFIG: kubeconfig } });
  const meshcert = (...argv: string[]) => as(server.kubeconfigFile, ...argv);
  const apply = (...objects: readonly KubeObject[]) =>
    server.kubectl(['apply', '-f', '-'], { input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects }) });
  const refused = ({ code, stdout, stderr }: Said, error: string, says: RegExp) => {
    assert.equal(code, 1, `${stdout}${stderr}`);
    assert.match(stderr, new RegExp(`${error}: `));
    assert.match(stderr, says);
  };

  it('ERR_KUBE_NOT_FOUND: install the definition, and the agent continues', async () => {
    await using agent = await startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['-n', 'emissary'] });
    await eventually('the error', async () =>
      /ERR_KUBE_NOT_FOUND.*there is no CustomResourceDefinition meshcertificates.*meshcert schema --crd/.test(
        agent.log(),
      ),
    );
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await eventually(
      'the agent to be ready',
      async () => (await fetch(`${agent.url}/readyz`)).status === 200,
      agent.log,
    );
  });

  it('ERR_KUBE_CONFIG, ERR_KUBE_UNREACHABLE, ERR_KUBE_UNAUTHORIZED: name the right kubeconfig', async () => {
    const good = ['status', '-n', 'emissary'];
    refused(await say(good), 'ERR_KUBE_CONFIG', /set KUBECONFIG, pass --kubeconfig/);
    const text = await readFile(server.kubeconfigFile, 'utf8');
    const elsewhere = join(dir, 'elsewhere.kubeconfig');
    await writeFile(elsewhere, text.replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1:1'));
    refused(await as(elsewhere, ...good), 'ERR_KUBE_UNREACHABLE', /ECONNREFUSED 127\.0\.0\.1:1.*Check the address/);
    const stale = await server.kubeconfigFor('stale', 'expired');
    refused(await as(stale, ...good), 'ERR_KUBE_UNAUTHORIZED', /check the token, its audience and expiry/);
    const { code, stderr } = await say([...good, '--kubeconfig', server.kubeconfigFile]);
    assert.equal(code, 0, stderr);
  });

  it('ERR_HTTP_HOST: use the address, or allow the name', async () => {
    const ask = (url: string, host: string) =>
      new Promise<string>((resolve, reject) => {
        const sent = request(`${url}/api/status`, { headers: { host } }, (response) => {
          response.setEncoding('utf8');
          let body = '';
          response.on('data', (part: string) => (body += part));
          response.once('end', () => resolve(`${response.statusCode} ${body}`));
        });
        sent.once('error', reject).end();
      });
    const kubeconfig = server.kubeconfigFile;
    await using agent = await startAgentProcess({ kubeconfig, args: ['-n', 'emissary'] });
    const answer = await ask(agent.url, 'mesh.example.com');
    assert.match(answer, /^421 .*ERR_HTTP_HOST.*--allowed-hosts/);
    assert.match(await ask(agent.url, '127.0.0.1'), /^200 /);
    const args = ['-n', 'emissary', '--lease-name', 'other', '--allowed-hosts', 'mesh.example.com'];
    await using allowing = await startAgentProcess({ kubeconfig, args });
    assert.match(await ask(allowing.url, 'mesh.example.com'), /^200 /);
  });

  it('ERR_CONFIG_CONNECTOR: correct the variable that the message names', async () => {
    const env = { KUBECONFIG: server.kubeconfigFile };
    const agent = ['agent', '--once', '--consul-connector', '-n', 'emissary', '--timeout', '2s'];
    const wrong = { ...env, _AMBASSADOR_TLS_SECRET_NAME: 'pair.other', _CONSUL_PORT: '1' };
    refused(await say(agent, { env: wrong }), 'ERR_CONFIG_CONNECTOR', /_AMBASSADOR_TLS_SECRET_NAME: .*without dots/);
    const unsupported = { ...env, CONSUL_CAPATH: '/cas', _CONSUL_PORT: '1' };
    refused(await say(agent, { env: unsupported }), 'ERR_CONFIG_CONNECTOR', /CONSUL_CAPATH: .*CONSUL_CACERT/);
    const right = await say(agent, { env: { ...env, _AMBASSADOR_TLS_SECRET_NAME: 'pair-other', _CONSUL_PORT: '1' } });
    assert.match(right.stdout + right.stderr, /ERR_MESH_UNREACHABLE/);
    assert.doesNotMatch(right.stdout + right.stderr, /ERR_CONFIG/);
  });

  it('ERR_ADAPTER_LOAD and ERR_ADAPTER_BROKEN: correct what the message names', async () => {
    const file = join(dir, 'vault.mjs');
    const load = (path: string) => meshcert('schema', '--crd', '--adapter', path);
    const empty = join(dir, 'empty.mjs');
    refused(await load(file), 'ERR_ADAPTER_LOAD', /no such file or directory; check the path/);
    await writeFile(empty, 'export const nothing = 1;\n');
    refused(await load(empty), 'ERR_ADAPTER_LOAD', /does not export "adapter"/);
    const ca = await opensslCa(dir);
    await ca.issue('leaf', { extensions: workloadExtensions(ID) });
    const adapter = (identity: string) => `
      import { readFileSync } from 'node:fs';
      const read = (name) => readFileSync(${JSON.stringify(dir)} + '/' + name, 'utf8');
      export const contractVersion = 1;
      export const adapter = {
        mesh: 'vault', title: 'Vault', config: { parse: (input) => input }, tls: {},
        expect: () => ({ form: 'spiffe' }), needs: () => [],
        open: () => ({
          async *watch(signal) {
            yield ${identity};
            await new Promise((resolve) => signal.addEventListener('abort', resolve));
          },
          async [Symbol.asyncDispose]() {},
        }),
      };`;
    await writeFile(file, adapter(`{ id: ${JSON.stringify(ID)} }`));
    assert.equal((await load(file)).code, 0);
    const options = {
      kubeconfig: server.kubeconfigFile,
      documents: `apiVersion: meshcert.dev/v1alpha1\nkind: MeshCertificate\nmetadata: {name: vault, namespace: emissary}\nspec: {vault: {}}\n`,
      args: ['-n', 'emissary', '--lease-name', 'vault', '--adapter', file],
    };
    {
      await using agent = await startAgentProcess(options);
      await eventually(
        'the error',
        async () => (await agent.statuses())[0]?.status.lastError?.code === 'ERR_ADAPTER_BROKEN',
        agent.log,
      );
      assert.match(
        (await agent.statuses())[0]?.status.lastError?.message ?? '',
        /its key is undefined, not an object; correct the adapter/,
      );
    }
    const key = "{ toPem: () => read('leaf.key') }";
    const pems = (name: string) => `[{ pem: read('${name}') }]`;
    await writeFile(
      file,
      adapter(`{ id: ${JSON.stringify(ID)}, key: ${key}, chain: ${pems('leaf.pem')}, roots: ${pems('root.pem')} }`),
    );
    await using agent = await startAgentProcess(options);
    await eventually('the certificate', () => isPublished(agent), agent.log);
  });

  describe('of onboarding', () => {
    const onboard = (...flags: string[]) => meshcert('onboard', '--dry-run', 'client', ...flags);

    it('ERR_ONBOARD_NO_GATEWAY, ERR_ONBOARD_NO_MESH: install both, and there is a plan', async () => {
      refused(await onboard(), 'ERR_ONBOARD_NO_GATEWAY', /install the gateway first/);
      await apply(made.gateway());
      refused(await onboard(), 'ERR_ONBOARD_NO_MESH', /install the mesh first/);
      await server.ensureNamespace('istio-system');
      await apply(...made.istiod());
      await apply(
        ...made.app('istio', 'web', 'shop', 443),
        made.mapping('web', 'emissary', { service: 'web.shop:443' }),
      );
      const { code, stderr } = await onboard();
      assert.equal(code, 0, stderr);
    });

    it('ERR_ONBOARD_WHICH_GATEWAY: choose one with --gateway', async () => {
      await apply(made.gateway({ namespace: 'edge' }));
      refused(await onboard(), 'ERR_ONBOARD_WHICH_GATEWAY', /emissary\/emissary-ingress; name one with --gateway/);
      const { code, stderr } = await onboard('--gateway', 'emissary/emissary-ingress');
      assert.equal(code, 0, stderr);
      await server.kubectl(['delete', '-n', 'edge', 'deployment/emissary-ingress']);
    });

    it('ERR_ONBOARD_INVALID: correct the flags', async () => {
      refused(await onboard('--set', 'istio.ca.adress=a:1'), 'ERR_ONBOARD_INVALID', /adress.*did you mean "address"/);
      const { code, stderr } = await onboard('--set', 'istio.ca.address=a:1');
      assert.equal(code, 0, stderr);
    });

    it('ERR_TARGET_AMBIENT: give the workload a sidecar', async () => {
      await apply(
        ...made.app('ambient', 'calm', 'shop', 443),
        made.mapping('calm', 'emissary', { service: 'calm.shop:443' }),
      );
      const before = await onboard();
      assert.match(before.stdout + before.stderr, /ERR_TARGET_AMBIENT/);
      await server.kubectl(['delete', '-n', 'shop', 'pod/calm-0', '--grace-period=0', '--force']);
      await apply(...made.app('istio', 'calm', 'shop', 443));
      const { stdout, stderr } = await onboard();
      assert.doesNotMatch(stdout + stderr, /ERR_TARGET_AMBIENT/);
      assert.match(stdout, /name: calm/);
    });

    it('ERR_ONBOARD_UNSEEN: use an account that may', async () => {
      const token = await server.serviceAccountToken({
        namespace: 'emissary',
        name: 'meshcert',
        audience: API_AUDIENCE,
      });
      const narrow = await server.kubeconfigFor('narrow', token);
      refused(await as(narrow, 'onboard', '--dry-run', 'client'), 'ERR_ONBOARD_UNSEEN', /deployments/i);
      const { code, stderr } = await onboard();
      assert.equal(code, 0, stderr);
    });
  });
});
