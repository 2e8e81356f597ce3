import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { shippedMain } from '../support/io.ts';
import * as made from '../support/onboard-cluster.ts';

const dir = mkdtempSync(join(tmpdir(), 'meshcert-onboard-'));
const kubeconfig = join(dir, 'kubeconfig');
let api: KubeApi;

before(async () => {
  const namespaces = ['emissary', 'shop', 'istio-system'];
  const web = [...made.app('istio', 'web', 'shop'), made.mapping('web', 'shop', { service: 'web' })];
  api = await startKubeApi({ namespaces, objects: [made.gateway(), ...made.istiod(), ...web] });
  await api.writeKubeconfig(kubeconfig);
});

after(async () => {
  await api.stop();
  rmSync(dir, { recursive: true });
});

async function run(...argv: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  let out = '';
  let err = '';
  const io = {
    stdout: { write: (text: string) => (out += text) },
    stderr: { write: (text: string) => (err += text) },
    env: { KUBECONFIG: kubeconfig },
    signal: new AbortController().signal,
  };
  const main = await shippedMain();
  return { code: await main(argv, io), out, err };
}

const writes = () => api.requests.entries.filter(({ verb }) => !['get', 'list', 'watch'].includes(verb));

describe('meshcert onboard', () => {
  it('shows what it found and what it would do, and does nothing with --dry-run=client', async () => {
    const { code, out } = await run('onboard', '--dry-run=client');
    assert.equal(code, 0);
    assert.match(out, /^Gateway\n {2}emissary\/emissary-ingress/);
    assert.match(out, /shop\/web {2}web \(plaintext, 1 pod in istio\)\n {4}can move to istio \(TLSContext istio\)/);
    assert.match(
      out,
      /create +CustomResourceDefinition meshcertificates\.meshcert\.dev\n +as `meshcert schema --crd` prints it/,
    );
    assert.deepEqual(writes(), []);
  });

  it('prints for GitOps only the objects on stdout, ready to be applied', async () => {
    const { code, out, err } = await run('onboard', '-o', 'yaml');
    assert.equal(code, 0);
    const kinds = parseAllDocuments(out).map((document) => document.toJS().kind);
    assert.deepEqual(kinds.slice(-2), ['MeshCertificate', 'Mapping']);
    assert.match(err, /^Gateway\n/);
  });

  it('takes the certificate from the files in a directory that it is given, by the layout that they have', async () => {
    const directory = join(dir, 'certs');
    mkdirSync(directory);
    for (const name of ['cert-chain.pem', 'key.pem', 'root-cert.pem']) writeFileSync(join(directory, name), '');
    const { code, out, err } = await run('onboard', '-o', 'yaml', '--mesh', 'file', '--files', `${directory}/`);
    assert.equal(code, 0, err);
    const [certificate] = parseAllDocuments(out)
      .map((document) => document.toJS())
      .filter(({ kind }) => kind === 'MeshCertificate');
    assert.deepEqual(certificate.spec.file, { directory, layout: 'istio' });
    assert.match(err, new RegExp(`file +directory ${directory}\n +the agent reads .*--files-below=${directory}`));
    const elsewhere = await run('onboard', '--dry-run=client', '--mesh', 'file', '--files', '/nowhere');
    assert.match(elsewhere.out, /not visible from here, so layout tls is assumed/);
  });

  it('changes nothing without a terminal and without --yes', async () => {
    const { code, err } = await run('onboard');
    assert.deepEqual([code, writes()], [2, []]);
    assert.match(err, /no terminal to ask for confirmation; add --yes/);
  });

  it('asks on a terminal, and treats anything but yes as no', async () => {
    for (const answer of ['n', '', 'what?', undefined]) {
      const stdin = Object.assign(new PassThrough(), { isTTY: true });
      const stdout = new PassThrough();
      stdin.end(answer === undefined ? '' : `${answer}\n`);
      const { signal } = new AbortController();
      const main = await shippedMain();
      const code = await main(['onboard'], { stdin, stdout, stderr: stdout, env: { KUBECONFIG: kubeconfig }, signal });
      stdout.end();
      assert.match(await text(stdout), /Apply this plan\? \[y\/N\] /);
      assert.deepEqual([code, writes()], [1, []]);
    }
  });

  it('names what was probably meant', async () => {
    const cases: readonly (readonly [readonly string[], RegExp, number])[] = [
      [['--mesh', 'itsio'], /ERR_ONBOARD_UNKNOWN_NAME: no mesh is named "itsio"; did you mean "istio"\?/, 1],
      [['--dry-run=sever'], /--dry-run "sever": expected client or server; did you mean server\?/, 2],
      [['--mapping', 'shop/wep'], /no Mapping is named "shop\/wep"; did you mean "shop\/web"\?/, 1],
      [['--connect-to', 'nonsense'], /--connect-to "nonsense": expected host:port with a port/, 2],
      [['--gateway-url', 'nonsense'], /expected http\(s\):\/\/host/, 2],
      [['--settle', '5x'], /--settle "5x": expected a duration/, 2],
    ];
    for (const [flags, expected, exit] of cases) {
      const { code, err } = await run('onboard', ...flags);
      assert.match(err, expected);
      assert.equal(code, exit, flags.join(' '));
    }
  });

  it('and offboard fit their help into 80 columns', async () => {
    for (const command of ['onboard', 'offboard']) {
      const { out } = await run(command, '--help');
      assert.deepEqual(
        out.split('\n').filter((line) => line.length > 80),
        [],
      );
    }
  });
});

describe('meshcert offboard', () => {
  it('says that there is nothing to do when that is so', async () => {
    const { code, out } = await run('offboard');
    assert.deepEqual([code, out], [0, 'Nothing to do: there is no MeshCertificate.\n']);
  });
});
