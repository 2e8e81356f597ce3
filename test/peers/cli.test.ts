import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { parseAllDocuments } from 'yaml';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { say } from '../support/io.ts';
import * as made from '../support/onboard-cluster.ts';
import { peer } from './build.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const DOCUMENTS: Readonly<Record<string, string>> = {
  istio: `spec:
  istio: {ca: {serviceAccount: emissary}}
  mappings: {selector: {matchLabels: {mesh: istio}}}
  deletionPolicy: Delete
`,
  linkerd: `spec:
  linkerd: {serviceAccount: {name: emissary}, trustDomain: mesh.example, targets: [{serviceAccount: web, namespace: shop}]}
  configMapName: linkerd-roots
`,
  consul: `spec:
  consul: {http: {address: 'https://consul-server.consul.svc:8501'}, auth: {login: {method: k8s, serviceAccount: emissary}}}
`,
};

const GATEWAY_OBJECTS = [made.gateway(), ...made.istiod(), ...made.app('istio', 'web', 'shop')];

describe('the built bundle on a real API server', () => {
  let server: KubeApiserver;
  let dir: string;
  let env: Record<string, string>;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'meshcert-cli-'));
    server = await startKubeApiserver();
    env = { KUBECONFIG: server.kubeconfigFile };
    await prepareCluster(server, { emissary: ['emissary', 'emissary-ingress'], shop: ['web'], 'istio-system': [] });
    for (const object of GATEWAY_OBJECTS) {
      await server.kubectl(['apply', '-f', '-'], { input: JSON.stringify(object) });
    }
  });

  after(async () => {
    await server?.stop();
    await rm(dir, { recursive: true });
  });

  it('says that the definition is missing before it is installed', async () => {
    const { code, stderr } = await say(['status', '-A'], { env });
    assert.equal(code, 1);
    assert.match(stderr, /MeshCertificate is not defined in this cluster: apply deploy\/crd\/meshcertificate\.yaml/);
  });

  it('onboards an empty cluster as far as it can without an agent', async () => {
    const { code, stdout, stderr } = await say(['onboard', '--yes', '--timeout', '1s', '--no-probe'], { env });
    assert.match(stdout, /create +CustomResourceDefinition meshcertificates\.meshcert\.dev/);
    const definition = await server.kubectl(['get', 'crd', 'meshcertificates.meshcert.dev', '-o', 'name']);
    assert.match(definition, /meshcertificates\.meshcert\.dev/, stdout + stderr);
    assert.match(await server.kubectl(['get', 'mcert', '-n', 'emissary']), /istio/, stdout + stderr);
    assert.equal(code, 1, 'nothing is published without an agent');
    assert.doesNotMatch(stderr, /ERR_KUBE/);
  });

  it('prints a definition that kubectl applies, even over an older one', async () => {
    for (const format of ['yaml', 'json']) {
      const { stdout } = await say(['schema', '--crd', '-o', format]);
      await server.kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], { input: stdout });
      await server.kubectl(['delete', 'crd', 'meshcertificates.meshcert.dev', '--ignore-not-found']);
      assert.match(await server.kubectl(['apply', '-f', '-'], { input: stdout }), /created/);
      await server.kubectl([
        'wait',
        '--for=condition=Established',
        'crd/meshcertificates.meshcert.dev',
        '--timeout=30s',
      ]);
    }
  });

  for (const [name, spec] of Object.entries(DOCUMENTS)) {
    for (const extra of [[], ['--rbac'], ['--rbac', '--as-file', '--shards', '3']]) {
      it(`renders ${name} ${extra.join(' ')}, which kubectl applies`, async () => {
        const file = join(dir, `${name}.yaml`);
        const kind = 'apiVersion: meshcert.dev/v1alpha1\nkind: MeshCertificate';
        await writeFile(file, `${kind}\nmetadata: {name: ${name}, namespace: emissary}\n${spec}`);
        await server.kubectl(['apply', '--dry-run=server', '-f', file]);
        for (const format of ['yaml', 'json']) {
          const { code, stdout, stderr } = await say(['render', '-f', file, '-o', format, ...extra]);
          assert.equal(code, 0, stderr);
          for (const document of parseAllDocuments(stdout)) {
            for (const { metadata } of document.toJS().items ?? [document.toJS()]) {
              if (metadata.namespace) await server.ensureNamespace(metadata.namespace);
            }
          }
          const applied = await server.kubectl(['apply', '--dry-run=server', '-f', '-'], { input: stdout });
          const { stdout: names } = await say(['render', '-f', file, '-o=name', ...extra]);
          for (const line of names.trim().split('\n')) assert.ok(applied.includes(`${line} `), `${line} in ${applied}`);
        }
      });
    }
  }

  it('completes as a plugin of the real kubectl', async () => {
    const bin = join(dir, 'bin');
    await mkdir(bin);
    for (const name of ['kubectl-meshcert', 'kubectl_complete-meshcert'])
      await symlink(await builtBundle(), join(bin, name));
    const PATH = `${bin}:${dirname(process.execPath)}:${process.env.PATH}`;
    const kubectl = async (...args: string[]) => {
      const { stdout } = await promisify(execFile)(await peer('kubectl'), args, { env: { ...env, PATH, HOME: dir } });
      return stdout;
    };
    assert.match(await kubectl('__complete', 'meshcert', 'schem'), /^schema\t.*\n:4\n/);
    assert.match(await kubectl('__complete', 'meshcert', 'status', '-o', 'w'), /^wide\n:4\n/);
    assert.match(await kubectl('meshcert', 'schema', '--crd'), /^apiVersion: apiextensions/);
  });

  it('acts as another user by --as, whom RBAC authorizes', async () => {
    const nobody = await say(['status', '-n', 'emissary', '--as', 'jane', '--as-group', 'system:authenticated'], {
      env,
    });
    assert.equal(nobody.code, 1);
    assert.match(nobody.stderr, /ERR_KUBE_FORBIDDEN: .*"jane" cannot list/);
    const admin = await say(['status', '-n', 'emissary', '--as', 'jane', '--as-group', 'system:masters'], { env });
    assert.equal(admin.code, 0, admin.stderr);
  });

  it('refuses a selector that the API server refuses, with its message', async () => {
    const { code, stderr } = await say(['status', '-l', '=='], { env });
    assert.equal(code, 1);
    assert.match(stderr, /ERR_KUBE_INVALID/);
  });
});
