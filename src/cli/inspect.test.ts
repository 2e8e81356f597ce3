import assert from 'node:assert/strict';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { startIstio } from '../../sandbox/istio/istio.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { say } from '../../test/support/io.ts';
import { onlyOpensslRefuses } from '../../test/support/only-openssl.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';
const root = SandboxCa.root();
const identity = root.intermediate().identity({ uris: [ID], lifetimeMs: 3_600_000 });
const chain = identity.chain.map(({ pem }) => pem).join('');
const key = identity.key.toPem();

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'meshcert-inspect-'));
});

async function file(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

test('a file with chain, key and root is explained check by check', async () => {
  const { code, stdout, stderr } = await say(['inspect', await file('all.pem', chain + key + root.certificate.pem)]);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /names +URI:spiffe:\/\/cluster\.local\/ns\/emissary\/sa\/emissary/);
  assert.match(stdout, /✓ the key belongs to the leaf\n/);
  assert.match(stdout, /✓ the chain reaches a root in the bundle\n/);
  assert.match(stdout, /^- the leaf is for the expected identity\n- the identity is in the expected trust domain\n/m);
  assert.match(stdout, /✓ OpenSSL accepts the pair in a handshake with a server that trusts these roots\n/);
  assert.match(stdout, /\ngood, as far as it could be checked\n$/);
  const { stdout: whole } = await say([
    ...['inspect', '-f', join(directory, 'all.pem'), '--form', 'spiffe'],
    ...['--id', ID, '--trust-domain', 'cluster.local'],
  ]);
  assert.match(whole, /✓ the leaf is for the expected identity\n✓ the identity is in the expected trust domain\n/);
  assert.match(whole, /\ngood\n$/);
  assert.match(whole, /\(59m left\)/);
  assert.match(whole, /^root [\s\S]* to 20\d\d-[^(]*\(\d+(y|d)[^h]*left\)/m);
  assert.doesNotMatch(stdout, /PRIVATE KEY/);
});

test('a failure is named by its code, and the exit code is 1', async () => {
  const other = SandboxCa.root().identity({ uris: [ID] });
  const pem = await file('wrong.pem', chain + other.key.toPem() + root.certificate.pem);
  const { code, stdout } = await say(['inspect', pem, '--id', 'spiffe://cluster.local/ns/x/sa/y']);
  assert.equal(code, 1);
  assert.match(stdout, /✗ ERR_VERIFY_KEY_MISMATCH: /);
  assert.match(stdout, /✗ ERR_VERIFY_ID: .*spiffe:\/\/cluster\.local\/ns\/x\/sa\/y/);
  assert.match(stdout, /not valid: this would not be published/);
});

test('missing input is not reported as a failure', async () => {
  const { code, stdout } = await say(['inspect', await file('leaf.pem', chain)]);
  assert.equal(code, 0);
  assert.match(stdout, /- the key belongs to the leaf\n/);
  assert.match(stdout, /- the chain reaches a root in the bundle\n/);
  assert.match(stdout, /good, as far as it could be checked/);
});

test('--ca judges under other roots, and --at at another time', async () => {
  const pem = await file('chain.pem', chain + key);
  const foreign = await file('foreign.pem', SandboxCa.root().certificate.pem);
  const wrongRoot = await say(['inspect', pem, '--ca', foreign]);
  assert.match(wrongRoot.stdout, /✗ ERR_VERIFY_CHAIN_INCOMPLETE/);
  const later = await say([
    'inspect',
    pem,
    '--ca',
    await file('root.pem', root.certificate.pem),
    '--at',
    '2099-01-01T00:00:00Z',
  ]);
  assert.match(later.stdout, /✗ ERR_VERIFY_EXPIRED/);
  assert.match(later.stdout, /expired \d+y ago/);
  assert.match(later.stdout, /- OpenSSL accepts .*: not tried, since it judges by the real time, and not by --at\n/);
});

test('a pair that only OpenSSL refuses is not good', async () => {
  const { chain: leaf, key: own } = root.identity({ uris: [ID], more: [onlyOpensslRefuses()] });
  const pem = leaf.map((one) => one.pem).join('') + own.toPem() + root.certificate.pem;
  const args = ['inspect', await file('netscape.pem', pem)];
  const { code, stdout } = await say(args);
  assert.equal(code, 1);
  assert.match(stdout, /✗ ERR_VERIFY_PREFLIGHT: OpenSSL refuses the pair .*: \w+/);
  assert.match(stdout, /not valid: this would not be published/);
  const report = JSON.parse((await say([...args, '-o', 'json'])).stdout);
  assert.deepEqual(
    report.checks.filter(({ outcome }: { outcome: string }) => outcome === 'failed'),
    [],
  );
  assert.deepEqual(
    [report.ok, report.preflight.outcome, report.preflight.code],
    [false, 'failed', 'ERR_VERIFY_PREFLIGHT'],
  );
});

test('json holds the same facts, and no key', async () => {
  const { stdout } = await say(['inspect', await file('j.pem', chain + key), '-o', 'json']);
  const report = JSON.parse(stdout);
  assert.equal(report.ok, true);
  assert.deepEqual(
    report.certificates.map(({ role }: { role: string }) => role),
    ['leaf', 'intermediate'],
  );
  assert.equal(report.certificates[0].fingerprint, identity.chain[0]?.fingerprint);
  assert.ok(!stdout.includes('PRIVATE'));
});

test('a Secret is explained under the roots of the other one', async () => {
  const data = (entries: Record<string, string>) =>
    Object.fromEntries(Object.entries(entries).map(([name, text]) => [name, Buffer.from(text).toString('base64')]));
  const secret = (name: string, type: string, entries: Record<string, string>) => ({
    apiVersion: 'v1',
    kind: 'Secret',
    type,
    metadata: { name, namespace: 'emissary' },
    data: data(entries),
  });
  const kube = await startKubeApi({
    namespaces: ['emissary'],
    objects: [
      secret('istio-identity', 'kubernetes.io/tls', { 'tls.crt': chain, 'tls.key': key }),
      secret('istio-ca', 'Opaque', { 'tls.crt': root.certificate.pem }),
    ],
  });
  try {
    const KUBECONFIG = join(directory, 'kubeconfig');
    await kube.writeKubeconfig(KUBECONFIG, { namespace: 'emissary' });
    const env = { KUBECONFIG };
    const { code, stdout } = await say(['inspect', 'secret', 'istio-identity', '--ca-secret', 'istio-ca'], { env });
    assert.equal(code, 0, stdout);
    assert.match(stdout, /^Secret emissary\/istio-identity\n/);
    assert.match(stdout, /✓ the chain reaches a root in the bundle/);
    const missing = await say(['inspect', 'secret', 'nobody'], { env });
    assert.equal(missing.code, 1);
    assert.match(missing.stderr, /Secret emissary\/nobody does not exist; see -n/);
  } finally {
    await kube.stop();
  }
});

test('a live SDS socket is explained like any other input', async () => {
  const istio = await startIstio();
  try {
    const socket = join(directory, 'sds.sock');
    await istio.startPilotAgent({ socket, id: ID });
    const { code, stdout, stderr } = await say(['inspect', 'sds', socket, '--trust-domain', 'cluster.local']);
    assert.equal(code, 0, stderr + stdout);
    assert.match(stdout, /✓ the chain reaches a root in the bundle/);
  } finally {
    await istio.stop();
  }
});

test('a missing socket is reported with its next step', async () => {
  const { code, stderr } = await say(['inspect', 'sds', join(directory, 'none.sock'), '--timeout', '5s']);
  assert.equal(code, 1);
  assert.match(stderr, /ERR_MESH_UNREACHABLE: .*is its volume mounted/);
});

test('wrong usage is reported with exit code 2', async () => {
  assert.equal((await say(['inspect'])).code, 2);
  assert.equal((await say(['inspect', join(directory, 'absent.pem')])).code, 2);
  assert.equal((await say(['inspect', 'x', '--form', 'x509'])).code, 2);
});
