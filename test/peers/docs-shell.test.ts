import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { parseAllDocuments, stringify } from 'yaml';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { filesBelow, ROOT } from '../../scripts/tree.ts';
import { peer } from './build.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { startIstioWorkload, type Workload } from './parts/istio-workload.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { discard, output, scratchDir } from './servers/process.ts';

interface Block {
  readonly file: string;
  readonly line: number;
  readonly text: string;
}

const guides = filesBelow(ROOT, 'docs', 'deploy')
  .concat('README.md', 'CONTRIBUTING.md', 'SECURITY.md')
  .filter((file) => file.endsWith('.md'));

/** Every fenced block that says that it is for a shell; the indentation of a list around it is taken off. */
async function blocksOf(file: string, language: string): Promise<Block[]> {
  const text = await readFile(join(ROOT, file), 'utf8');
  const pattern = new RegExp(`^( *)\`\`\`${language}\\n([\\s\\S]*?)^ *\`\`\`$`, 'gm');
  return [...text.matchAll(pattern)].map(({ 1: indent = '', 2: body = '', index }) => ({
    file,
    line: text.slice(0, index).split('\n').length,
    text: body.replace(new RegExp(`^${indent}`, 'gm'), ''),
  }));
}

const MOVED = 'test/peers/gateway-api-move.test.ts runs it, with both gateways under traffic';

/** Blocks that another suite runs, by how they begin, or that need what does not run on one machine. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  'npm ci && npm test': '.ci/run does this on a clean clone',
  'helm install meshcert oci://': 'test/cluster/readme.test.ts installs the packed chart',
  'kubectl apply --server-side -f https://github.com': 'test/peers/release.test.ts applies these files',
  'npx meshcert@': 'test/peers/release.test.ts runs the packed package by npx',
  'kubectl krew install': 'test/peers/release.test.ts installs the plug-in by krew',
  'kubectl -n argocd create configmap': 'test/peers/gitops.test.ts runs the script; there is no Argo CD here',
  'cosign verify-blob SHA256SUMS': 'it needs what a workflow signed; test/peers/release.test.ts verifies by a key',
  'npm version X.Y.Z': 'scripts/release/version.test.ts changes the version everywhere',
  'npm run release -- --dry-run': 'test/peers/release.test.ts runs it',
  'npm ci && npm run release': 'test/peers/release.test.ts makes the release in two directories',
  'openssl ecparam -name prime256v1': 'test/peers/release.test.ts signs and verifies in this way',
  'consul acl token create': 'test/peers/consul.test.ts creates tokens by the API; the command is that of Consul',
  'spire-server entry create': 'test/peers/servers/spire.ts registers entries by this command',
  'npm install --save-dev meshcert': 'test/e2e/adapter-package.test.ts packs the package and installs it',
  'esbuild src/vault.ts': 'test/e2e/adapter-package.test.ts bundles the example with this command',
  'meshcert schema --crd --adapter':
    'test/e2e/adapter-package.test.ts runs the bundle with the adapter; test/peers/crd.test.ts applies such a definition',
  'kubectl apply -f gateway.yaml': MOVED,
  'meshcert render --rbac -f both.yaml': MOVED,
  'kubectl apply -f route.yaml': MOVED,
  'kubectl -n emissary delete mapping web': MOVED,
  'kubectl -n emissary port-forward': 'it needs a kubelet; test/peers/page.test.ts opens the page of an agent',
};

interface Run {
  /** What the shell must write. */
  readonly says: RegExp;
  /** What the text has for a value that only the reader knows. */
  readonly given?: Readonly<Record<string, string>>;
  readonly before?: () => Promise<unknown>;
  readonly after?: () => Promise<unknown>;
  /** Doctor ends with 1 when it finds something, as it does here: no Deployment runs the agent. */
  readonly findings?: true;
}

describe('each shell block of the docs runs on a real API server, with a real istiod and the bundle', () => {
  let server: KubeApiserver;
  let istiod: Istiod;
  let agent: AgentProcess;
  let workload: Workload;
  let dir: string;
  let env: Record<string, string>;

  const kubectl = (input: object | string, ...args: string[]) =>
    server.kubectl(['apply', ...args, '-f', '-'], {
      input: typeof input === 'string' ? input : stringify(input),
    });

  before(async () => {
    dir = scratchDir('docs-shell');
    server = await startKubeApiserver();
    const namespaces = { emissary: ['emissary-ingress', 'emissary'], ambassador: [], consul: [], default: ['default'] };
    await prepareCluster(server, { ...namespaces, shop: ['web'], 'istio-system': [] });
    await server.kubectl(['apply', '--server-side', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev', '--timeout=30s']);
    istiod = await startIstiod({ apiserver: server });
    workload = await startIstioWorkload({
      ...{ apiserver: server, istiod, namespace: 'shop', serviceAccount: 'web' },
      allow: (id) => id === 'spiffe://cluster.local/ns/emissary/sa/emissary-ingress',
    });
    agent = await startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['-n', 'emissary'] });
    await kubectl(certificate());
    const bin = join(dir, 'bin');
    await mkdir(bin);
    const bundle = await builtBundle();
    for (const name of ['meshcert', 'kubectl-meshcert']) await symlink(bundle, join(bin, name));
    for (const place of [
      'deploy',
      'scripts',
      'test',
      'src',
      'adapters',
      'docs',
      'node_modules',
      'package.json',
      'protos',
    ]) {
      await symlink(join(ROOT, place), join(dir, place));
    }
    const programs = [bin, dirname(await peer('kubectl')), dirname(process.execPath), process.env.PATH];
    env = { PATH: programs.join(':'), KUBECONFIG: server.kubeconfigFile, HOME: dir };
    await writeFile(join(dir, 'mesh.yaml'), stringify(certificate()));
    const [linkerd] = (await blocksOf('docs/linkerd.md', 'yaml')).filter(({ text }) => /^kind: MeshCert/m.test(text));
    await writeFile(join(dir, 'linkerd.yaml'), linkerd?.text ?? '');
    await mkdir(join(dir, 'manifests'));
    await writeFile(join(dir, 'manifests', 'mesh.yaml'), stringify(certificate()));
  });

  after(async () => {
    await agent?.stop();
    await workload?.[Symbol.asyncDispose]();
    await istiod?.stop();
    await server?.stop();
    if (dir) discard(dir);
  });

  const certificate = (name = 'istio', spec: object = {}) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: 'emissary' },
    spec: {
      istio: {
        ca: { address: istiod.secureAddress, serverName: istiod.serverName, serviceAccount: 'emissary-ingress' },
      },
      ...spec,
    },
  });

  /** The connector's objects, as kubectl apply leaves them. */
  const connector = () =>
    kubectl(`apiVersion: apps/v1
kind: Deployment
metadata: {name: ambassador-consul-connect-integration, namespace: ambassador}
spec:
  selector: {matchLabels: {app: connector}}
  template:
    metadata: {labels: {app: connector}}
    spec: {containers: [{name: connector, image: connector}]}
---
apiVersion: v1
kind: Secret
metadata: {name: ambassador-consul-connect, namespace: ambassador}
---
apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {name: ambassador-consul, namespace: ambassador}
spec: {secret: ambassador-consul-connect}
`);

  /** A MeshCertificate that waits for its deletion, which no agent carries out. */
  const stuck = async () => {
    await kubectl({
      ...certificate('stuck'),
      metadata: { name: 'stuck', namespace: 'shop', finalizers: ['meshcert.dev/retire'] },
    });
    await server.kubectl(['delete', 'mcert', '-n', 'shop', 'stuck', '--wait=false']);
  };

  const copyOfConsulCa = () =>
    kubectl({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'consul-ca-cert', namespace: 'consul' },
      stringData: { 'tls.crt': '-----BEGIN CERTIFICATE-----\n' },
    });

  const isReady = () =>
    eventually('the certificate', async () =>
      /^True$/.test(
        (
          await server.kubectl([
            'get',
            'mcert',
            '-n',
            'emissary',
            'istio',
            '-o',
            'jsonpath={.status.conditions[?(@.type=="Ready")].status}',
          ])
        ).trim(),
      ),
    );

  /** Every block that runs here, by how it begins. */
  const runs = (): Readonly<Record<string, Run>> => ({
    'npm ci && npm run demo': {
      says: /"ok":true/,
      given: {
        'npm ci && npm run demo': 'npm --prefix deploy/.. run --silent demo -- --meshes istio --for 20s --json',
      },
    },
    'npx tsx scripts/traps.ts': {
      says: /traps in[\s\S]*MC5001[\s\S]*error MC5007/,
      // All of them take minutes, and test/doctor/checks.test.ts has them too.
      given: {
        '/tmp/traps/*': join(dir, 'traps', 'MC50*'),
        '/tmp/traps': join(dir, 'traps'),
        'meshcert doctor -f "$trap"': 'meshcert doctor -f "$trap" || true',
      },
    },
    'helm test meshcert --namespace emissary': {
      says: /^istio +istio +spiffe:\S+ +True/m,
      // Its pod needs a kubelet: test/cluster/readme.test.ts runs it.
      given: { 'helm test meshcert --namespace emissary': 'true' },
      before: isReady,
    },
    'kubectl -n consul get secret consul-ca-cert': { says: /configmap\/consul-api-ca created/, before: copyOfConsulCa },
    'kubectl create token default': { says: /"aud":\["https:\/\/kubernetes/ },
    'meshcert doctor                 # the cluster': { says: /checked: \d+ passed/, findings: true },
    'kubectl label namespace emissary': {
      says: /namespace\/emissary labeled/,
      after: () => server.kubectl(['label', 'namespace', 'emissary', 'istio.io/dataplane-mode-']),
    },
    'kubectl get mappings,services': { says: /name: linkerd-identity/ },
    'kubectl -n ambassador scale': { says: /scaled/, before: connector },
    'for object in secret/ambassador-consul-connect': {
      says: /secret\/ambassador-consul-connect labeled[\s\S]*annotated/,
      before: connector,
      async after() {
        const { body } = await server.call('GET', '/api/v1/namespaces/ambassador/secrets/ambassador-consul-connect');
        assert.deepEqual(body.metadata.annotations, undefined, 'no copy of the key is left');
      },
    },
    'kubectl get meshcertificate mesh': {
      says: /^[0-9a-f]{64} {2}\w+ {2}\S/m,
      given: { 'meshcertificate mesh': 'meshcertificate istio' },
      before: isReady,
    },
    'kubectl patch meshcertificate mesh': {
      says: /meshcertificate.meshcert.dev\/istio patched/,
      given: { 'meshcertificate mesh': 'meshcertificate istio', '<fingerprint>': 'ab'.repeat(32) },
      async after() {
        await kubectl(certificate());
        await isReady();
      },
    },
    'kubectl wait --for=condition=Ready': { says: /meshcertificate.meshcert.dev\/istio condition met/ },
    'meshcert probe istio -n emissary': {
      says: /spiffe:\/\/cluster.local\/ns\/shop\/sa\/web/,
      given: { 'web.shop:80': `127.0.0.1:${workload.upstream.port}` },
      before: isReady,
    },
    'kubectl get meshcertificates -A': {
      says: /emissary +istio +istio[\s\S]*checked: \d+ passed/,
      given: { 'kubectl logs': 'true kubectl logs', 'meshcert doctor ': 'meshcert doctor || true ' },
      before: isReady,
    },
    'kubectl apply --server-side -k deploy/crd': {
      says: /condition met/,
      given: { '--server-side': '--server-side --force-conflicts' },
    },
    'meshcert render --rbac -f mesh.yaml': {
      says: /role.rbac.authorization.k8s.io\/meshcert\.emissary (created|configured)/,
    },
    'kubectl patch mcert NAME': {
      says: /meshcertificate.meshcert.dev\/stuck patched/,
      given: { 'NAME -n NAMESPACE': 'stuck -n shop' },
      before: stuck,
      after: () => server.kubectl(['wait', '--for=delete', 'mcert/stuck', '-n', 'shop', '--timeout=10s']),
    },
    'kubectl apply --server-side --force-conflicts': { says: /serverside-applied/ },
  });

  it('runs each of them, or says which suite does', async (t) => {
    const blocks = (await Promise.all(guides.map((file) => blocksOf(file, 'sh')))).flat();
    assert.ok(blocks.length > 20);
    const here = runs();
    const used = new Set<string>();
    for (const { file, line, text } of blocks) {
      const place = `${file}:${line}`;
      const key = [...Object.keys(here), ...Object.keys(ELSEWHERE)].find((start) => text.startsWith(start));
      assert.ok(key !== undefined, `no suite runs the block at ${place}:\n${text}`);
      used.add(key);
      const run = here[key];
      if (!run) {
        t.diagnostic(`${place} ${ELSEWHERE[key]}`);
        continue;
      }
      await run.before?.();
      let script = text;
      for (const [written, value] of Object.entries(run.given ?? {})) {
        assert.ok(script.includes(written), `${place} has ${written}`);
        script = script.replaceAll(written, value);
      }
      const strict = run.findings ? 'set -uo pipefail' : 'set -euo pipefail';
      const said = await output('bash', ['-c', `${strict}; exec 2>&1\n${script}${run.findings ? '\ntrue' : ''}`], {
        cwd: dir,
        env,
      });
      assert.match(said, run.says, `${place}\n${said}`);
      assert.doesNotMatch(said, /command not found|unknown flag|no flag|no command "/, `${place}\n${said}`);
      await run.after?.();
      t.diagnostic(`${place} ran`);
    }
    const known = [...Object.keys(here), ...Object.keys(ELSEWHERE)];
    assert.deepEqual(
      known.filter((key) => !used.has(key)),
      [],
      'these are in no page any more',
    );
  });

  it('is what the guide says: the YAML that it names is valid', async () => {
    for (const name of ['mesh.yaml', 'linkerd.yaml']) {
      const [document] = parseAllDocuments(await readFile(join(dir, name), 'utf8'));
      assert.equal(document?.toJS().kind, 'MeshCertificate', name);
    }
  });
});
