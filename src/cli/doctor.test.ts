import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { parse } from 'yaml';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { say } from '../../test/support/io.ts';

const MAPPING = `# a comment
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {name: web, namespace: emissary}
spec: {hostname: '*', prefix: /web/, service: 'web.shop:80', tls: mesh}
`;
const CONTEXT = `apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {name: mesh, namespace: emissary}
spec: {hosts: [], ca_secret: mesh-ca}
`;

let dir: string;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'meshcert-doctor-'));
});

afterEach(() => rm(dir, { recursive: true }));

async function run(...argv: string[]): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await say(['doctor', ...argv]);
  return { code, text: stdout + stderr };
}

const write = (name: string, text: string) => writeFile(join(dir, name), text);

test('findings in a directory are reported by file and line, and errors fail', async () => {
  await write('mapping.yaml', MAPPING);
  await write('context.yaml', `${MAPPING.replace('name: web,', 'name: two,')}---\n${CONTEXT}`);
  const { code, text } = await run('-f', dir);
  assert.equal(code, 1);
  assert.match(text, /error MC1006 TLSContext emissary\/mesh \(.*context\.yaml:7\)\n {2}ca_secret alone/);
  assert.match(text, /warning MC1301 Mapping emissary\/web \(.*mapping\.yaml:2\)/);
  assert.match(
    text,
    /1 error, \d+ warnings, 0 notes in 3 objects; checked: \d+ passed, \d+ warned, \d+ failed, 0 skipped\n$/,
  );
});

test('warnings fail only on request', async () => {
  await write('mapping.yaml', MAPPING);
  const { code, text } = await run('-f', dir);
  assert.equal(code, 0);
  assert.match(text, /^ {2}WARN {2}Mappings?: .* finding/m);
  assert.doesNotMatch(text, /FAIL/);
  assert.equal((await run('-f', dir, '--fail-on', 'warning')).code, 1);
});

test('a file that is not a manifest is reported, and the others are checked', async () => {
  await write('template.yaml', 'kind: {{ .Values.kind }}: [\n');
  await write('mapping.yaml', MAPPING);
  const { text } = await run('-f', dir);
  assert.match(text, /not checked: .*template\.yaml:\d+: /);
  assert.match(text, /MC1301/);
});

test('manifests are read from standard input too', async () => {
  const { code, stdout } = await say(['doctor', '-f', '-', '--fail-on=warning'], { stdin: MAPPING });
  assert.equal(code, 1);
  assert.match(stdout, /warning MC1301 Mapping emissary\/web \(standard input:2\)/);
});

test('the JSON report has each finding with its object, file and line', async () => {
  await write('all.yaml', `${MAPPING}---\n${CONTEXT}`);
  const report = JSON.parse((await run('-f', dir, '-o', 'json')).text);
  assert.equal(report.summary.objects, 2);
  const [first] = report.findings;
  assert.equal(first.code, 'MC1006');
  assert.equal(first.object.name, 'mesh');
  assert.equal(first.line, 7);
  assert.match(first.file, /all\.yaml$/);
});

test('the SARIF report points at lines and names every rule', async () => {
  await write('all.yaml', `${MAPPING}---\n${CONTEXT}`);
  const log = JSON.parse((await run('-f', dir, '-o', 'sarif')).text);
  assert.equal(log.version, '2.1.0');
  const [{ tool, results }] = log.runs;
  for (const { ruleId, ruleIndex, level, locations } of results) {
    assert.equal(tool.driver.rules[ruleIndex].id, ruleId);
    assert.ok(['error', 'warning', 'note'].includes(level));
    assert.match(locations[0].physicalLocation.artifactLocation.uri, /all\.yaml$/);
    assert.ok(locations[0].physicalLocation.region.startLine >= 1);
  }
});

test('in a cluster, Secrets are fetched by name and never listed', async () => {
  const api = await startKubeApi({ namespaces: ['emissary'] });
  try {
    for (const text of [MAPPING, CONTEXT.replace('hosts: []', 'hosts: [], secret: gone')]) {
      api.put(parse(text));
    }
    const kubeconfig = join(dir, 'kubeconfig');
    await api.writeKubeconfig(kubeconfig);
    const { code, text } = await run('--kubeconfig', kubeconfig);
    assert.equal(code, 1);
    assert.match(text, /error MC1101 TLSContext emissary\/mesh\n {2}secret names the Secret emissary\/gone/);
    assert.equal(api.requests.count({ verb: 'list', resource: 'secrets' }), 0);
    assert.equal(api.requests.count({ verb: 'get', resource: 'secrets' }), 2);
  } finally {
    await api.stop();
  }
});

test('every check is listed, and wrong flags are refused', async () => {
  assert.match((await run('--list')).text, /^MC1001 {2}error {4}A Mapping names/);
  assert.equal((await run('-o', 'xml')).code, 2);
  assert.equal((await run('--fail-on', 'fatal')).code, 2);
});
