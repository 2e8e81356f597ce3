import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { AgentProcess } from './agent-process.ts';
import { ATTACKS, repeated, TEXT_ATTACKS, WORST_TEXTS } from './attacks.ts';
import { siege } from './siege.ts';

/** The limit of a small pod. */
const CEILING_MIB = 192;

let directory: string;
let file: string;
let kubeconfig: string;

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'meshcert-hostile-'));
  kubeconfig = join(directory, 'kubeconfig');
  file = await builtBundle();
  const cluster = { name: 'c', cluster: { server: 'http://127.0.0.1:9' } };
  const context = { name: 'c', context: { cluster: 'c', user: 'c' } };
  const config = {
    clusters: [cluster],
    contexts: [context],
    users: [{ name: 'c', user: {} }],
    'current-context': 'c',
  };
  await writeFile(kubeconfig, JSON.stringify({ apiVersion: 'v1', kind: 'Config', ...config }));
});

after(() => rm(directory, { recursive: true, force: true }));

describe('everything that peers, files and clients can do at once', () => {
  it('leaves the agent alive, small and answering, each failure with its code, and another certificate rotating', async () => {
    const result = await siege({ bundle: file, attacks: ATTACKS, rotations: 3, patienceMs: 90_000 });
    assert.ok(result.survived, result.stderr);
    assert.deepEqual(result.missing, []);
    assert.ok(result.rotations >= 3);
    if (result.peakMiB !== undefined) assert.ok(result.peakMiB < CEILING_MIB, `${Math.round(result.peakMiB)} MiB`);
  });
});

describe('one long text in every field of every mesh, in a Mapping and in an answer', () => {
  it('is refused with its code, while another certificate rotates and probes are answered', async () => {
    // npx tsx test/hostile/main.ts runs them all.
    const some = ['text-one-field', 'text-token', 'text-answer', 'text-status-token', 'text-name', 'text-issuer'];
    const attacks = TEXT_ATTACKS.filter(({ name }) => some.includes(name));
    assert.equal(attacks.length, some.length);
    const result = await siege({ bundle: file, attacks, rotations: 3, patienceMs: 90_000 });
    assert.ok(result.survived, result.stderr);
    assert.deepEqual(result.missing, []);
    assert.ok(result.rotations >= 3);
    assert.equal(result.probes.failed, 0, 'each probe has the second that kubelet gives it');
  });
});

describe('an agent that cannot begin', () => {
  const at = (name: string) => join(directory, name);
  const start = (args: readonly string[]) => new AgentProcess(file, ['agent', '--listen', 'off', ...args]);

  it('exits with 1 and a code when the kubeconfig is missing or unusable', async () => {
    await writeFile(at('empty'), 'apiVersion: v1\nkind: Config\n');
    await mkdir(at('a-directory'), { recursive: true });
    for (const [args, why] of [
      [['--kubeconfig', at('absent')], /ERR_KUBE_CONFIG: the kubeconfig .*absent does not exist; set KUBECONFIG/],
      [['--kubeconfig', at('a-directory')], /ERR_KUBE_CONFIG: the kubeconfig .* is not a regular file/],
      [['--kubeconfig', '/dev/zero'], /ERR_KUBE_CONFIG: the kubeconfig .* is not a regular file/],
      [['--kubeconfig', at('empty')], /ERR_KUBE_CONFIG: /],
      [[], /ERR_KUBE_CONFIG: no kubeconfig: set KUBECONFIG/],
    ] as const) {
      await using agent = start(args);
      assert.deepEqual(await agent.ended, { code: 1, signal: null }, agent.stderr);
      assert.match(agent.stderr, why);
    }
  });

  it('exits with 1 and a code when the file of --config is missing, a device, a pipe or a directory', async () => {
    execFileSync('mkfifo', [at('pipe')]);
    for (const [path, why] of [
      [at('absent.yaml'), /ERR_CONFIG: .*absent\.yaml:1: does not exist; check the path/],
      [directory, /ERR_CONFIG: .* is not a regular file/],
      [at('pipe'), /ERR_CONFIG: .* is not a regular file/],
      ['/dev/zero', /ERR_CONFIG: .* is not a regular file/],
    ] as const) {
      await using agent = start(['--kubeconfig', kubeconfig, '--no-leader-elect', '--config', path]);
      assert.deepEqual(await agent.ended, { code: 1, signal: null }, agent.stderr);
      assert.match(agent.stderr, why);
      const peakMiB = await agent.peakMiB();
      if (peakMiB !== undefined) assert.ok(peakMiB < CEILING_MIB);
    }
  });

  it('exits with 1 and a code when the file of --config has a megabyte of one text', async () => {
    for (const [what, unit] of Object.entries(WORST_TEXTS)) {
      const spec = { file: { certificate: repeated(unit, 1_000_000), key: '/k', bundle: '/b' } };
      const document = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata: { name: 'a' }, spec };
      for (const text of [JSON.stringify(document), repeated(unit, 1_000_000)]) {
        await writeFile(at(what), text);
        await using agent = start([
          '--once',
          '--timeout',
          '1s',
          '--kubeconfig',
          kubeconfig,
          '--no-leader-elect',
          '--config',
          at(what),
        ]);
        assert.deepEqual(await agent.ended, { code: 1, signal: null }, agent.stderr);
        assert.match(agent.stderr, /ERR_CONFIG/, what);
        assert.ok(agent.stderr.length < 10_000, `${what}: ${agent.stderr.length} characters`);
      }
    }
  });
});
