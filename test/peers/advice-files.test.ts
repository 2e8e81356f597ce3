import assert from 'node:assert/strict';
import { copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../../scripts/tree.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { meshCertificatesOf } from './parts/mesh-certificates.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type OpensslCa, type OpensslLeaf, opensslCa, workloadExtensions } from './servers/openssl-ca.ts';
import { discard, scratchDir } from './servers/process.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/gateway';
const GOOD: OpensslLeaf = { extensions: workloadExtensions(ID) };
/** All lines but that for a field, and others instead. */
const without = (field: string, ...more: string[]): OpensslLeaf => ({
  extensions: [...workloadExtensions(ID).filter((line) => !line.startsWith(field)), ...more],
});

interface FileCase {
  readonly code: string;
  /** The cause and the advice, as the error has them. */
  readonly says: RegExp;
  /** What the CA made wrong; absent: the files are. */
  readonly leaf?: OpensslLeaf;
  /** Changes the good files, or those of `leaf`. */
  readonly spoil?: (files: Files) => Promise<void>;
}

interface Files {
  readonly ca: OpensslCa;
  readonly read: (name: string) => Promise<string>;
  readonly write: (name: string, text: string) => Promise<void>;
}

/** By the name of the MeshCertificate and of the directory with its files. */
const CASES: Readonly<Record<string, FileCase>> = {
  'damaged-key': {
    code: 'ERR_MESH_BAD_RESPONSE',
    says: /tls\.key has no private key that can be read; see the logs of the program that writes it/,
    spoil: async ({ read, write }) => write('tls.key', (await read('tls.key')).slice(0, 60)),
  },
  'servers-only': {
    code: 'ERR_VERIFY_EKU',
    says: /may not authenticate a client: its extended key usage/,
    leaf: without('extendedKeyUsage', 'extendedKeyUsage=serverAuth'),
  },
  'no-signing': {
    code: 'ERR_VERIFY_KEY_USAGE',
    says: /its key usage lacks digitalSignature/,
    leaf: without('keyUsage', 'keyUsage=critical,keyEncipherment'),
  },
  ed25519: {
    code: 'ERR_VERIFY_KEY_TYPE',
    says: /Envoy accepts EC P-256, P-384, and RSA of 2048 bits or more/,
    leaf: { ...GOOD, key: ['-algorithm', 'ED25519'] },
  },
  'critical-extension': {
    code: 'ERR_VERIFY_CRITICAL_EXTENSION',
    says: /critical and not supported/,
    leaf: { extensions: [...workloadExtensions(ID), '1.2.3.4.5=critical,DER:0500'] },
  },
  'netscape-type': {
    code: 'ERR_VERIFY_PREFLIGHT',
    says: /OpenSSL refuses the pair in a handshake/,
    leaf: { extensions: [...workloadExtensions(ID), 'nsCertType=server'] },
  },
  'many-roots': {
    code: 'ERR_TRUST_LIMIT',
    says: /65 trust roots.*Remove roots that are no longer used/,
    spoil: async ({ ca, read, write }) => {
      const others: string[] = [];
      for (let n = 0; n < 64; n++) {
        others.push(await ca.openssl('req', '-x509', '-key', 'root.key', '-subj', `/CN=other ${n}`, '-days', '2'));
      }
      await write('ca.crt', (await read('ca.crt')) + others.join(''));
    },
  },
};

/** Files as a program of others writes them: made by OpenSSL, read by the agent, published on a real API server. */
describe('the advice of errors about certificates from files', () => {
  let server: KubeApiserver;
  let agent: AgentProcess;
  let dir: string;
  let ca: OpensslCa;

  before(async () => {
    dir = scratchDir('advice-files-agent');
    ca = await opensslCa(dir);
    await ca.issue('good', GOOD);
    server = await startKubeApiserver();
    await prepareCluster(server, { emissary: [] });
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev', '--timeout=30s']);
    agent = await startAgentProcess({
      kubeconfig: server.kubeconfigFile,
      args: ['-n', 'emissary', '--files-below', dir],
    });
  });
  after(async () => {
    await agent?.stop();
    await server?.stop();
    if (dir) discard(dir);
  });

  /** Each file is replaced as a whole, as a kubelet and spiffe-helper do. */
  const place = async (name: string, leaf: string) => {
    const at = join(dir, name);
    await mkdir(at, { recursive: true });
    for (const [from, to] of [
      [`${leaf}.pem`, 'tls.crt'],
      [`${leaf}.key`, 'tls.key'],
      ['root.pem', 'ca.crt'],
    ] as const) {
      await copyFile(ca.path(from), join(at, `${to}.new`));
      await rename(join(at, `${to}.new`), join(at, to));
    }
  };
  const { create, patch, errorOf, well } = meshCertificatesOf(
    'emissary',
    () => server,
    () => agent.log(),
  );

  for (const [name, { code, says, leaf, spoil }] of Object.entries(CASES)) {
    it(`${code}, ${name}: what it says is done, and the certificate is published`, async () => {
      if (leaf) await ca.issue(name, leaf);
      await place(name, leaf ? name : 'good');
      const at = (file: string) => join(dir, name, file);
      const read = (file: string) => readFile(at(file), 'utf8');
      await spoil?.({ ca, read, write: (file, text) => writeFile(at(file), text) });
      await create(name, { file: { directory: join(dir, name) } });
      assert.match(await errorOf(name, code), says);
      await place(name, 'good');
      await well(name);
    });
  }

  it('ERR_PLAN_TYPE: choose another name', async () => {
    await place('typed', 'good');
    const input = 'apiVersion: v1\nkind: Secret\nmetadata: {name: typed, namespace: emissary}\ntype: Opaque\n';
    await server.kubectl(['apply', '-f', '-'], { input });
    const label = ['label', '-n', 'emissary', 'secret/typed', 'meshcert.dev/owner=emissary.typed'];
    await server.kubectl([...label, '--field-manager=meshcert']);
    await create('typed', { file: { directory: join(dir, 'typed') }, secretName: 'typed' });
    assert.match(await errorOf('typed', 'ERR_PLAN_TYPE'), /has the type Opaque.*choose another name/);
    await patch('typed', { secretName: 'typed-identity' });
    await well('typed');
  });

  it('ERR_KUBE_INVALID: correct what the message names', async () => {
    const metadata = { name: 'secrets-have-a-team' };
    const apiVersion = 'admissionregistration.k8s.io/v1';
    const expression = "has(object.metadata.labels) && 'team' in object.metadata.labels";
    const validations = [{ expression, message: 'a Secret needs the label team', reason: 'Invalid' }];
    const resourceRules = [
      { apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE', 'UPDATE'], resources: ['secrets'] },
    ];
    const namespaceSelector = { matchLabels: { 'kubernetes.io/metadata.name': 'emissary' } };
    const policy = { failurePolicy: 'Fail', matchConstraints: { resourceRules }, validations };
    const binding = { policyName: metadata.name, validationActions: ['Deny'], matchResources: { namespaceSelector } };
    for (const [kind, spec] of [
      ['ValidatingAdmissionPolicy', policy],
      ['ValidatingAdmissionPolicyBinding', binding],
    ] as const) {
      await server.kubectl(['apply', '-f', '-'], { input: JSON.stringify({ apiVersion, kind, metadata, spec }) });
    }
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'trial' } };
    const trial = async () =>
      (await server.call('POST', '/api/v1/namespaces/emissary/secrets?dryRun=All', secret)).status;
    await eventually('the policy to be in force', async () => (await trial()) === 422);
    await place('labelled', 'good');
    await create('labelled', { file: { directory: join(dir, 'labelled') } });
    assert.match(
      await errorOf('labelled', 'ERR_KUBE_INVALID'),
      /a Secret needs the label team.*Correct the named fields/,
    );
    await patch('labelled', { labels: { team: 'edge' } });
    await well('labelled');
  });
});
