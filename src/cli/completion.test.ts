import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type KubeApi, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { capture } from '../../scripts/run.ts';
import { say } from '../../test/support/io.ts';
import { isInstalled, Shell } from '../../test/support/shell.ts';
import { customResourceDefinition } from '../config/schema/crd.ts';
import { gateways } from '../gateways.ts';
import type { KubeObject } from '../objects/objects.ts';
import { COMMANDS } from './commands.ts';
import type { Flag } from './flags.ts';

let dir: string;
let bin: string;
let api: KubeApi;
let env: Record<string, string>;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'meshcert-completion-'));
  bin = join(dir, 'bin');
  await mkdir(bin);
  for (const name of ['meshcert', 'kubectl-meshcert', 'kubectl_complete-meshcert']) {
    await symlink(await builtBundle(), join(bin, name));
  }
  api = await startKubeApi({
    namespaces: ['emissary', 'shop'],
    objects: [customResourceDefinition(adapters, gateways)],
  });
  env = {
    KUBECONFIG: join(dir, 'kubeconfig'),
    PATH: `${bin}:${dirname(process.execPath)}:${process.env.PATH}`,
  };
  await api.writeKubeconfig(env.KUBECONFIG ?? '', { namespace: 'emissary' });
  for (const name of ['bookinfo', 'payments']) {
    api.put({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name, namespace: 'emissary' },
      spec: { istio: { sds: {} } },
    } as KubeObject);
  }
  await writeFile(join(dir, 'mesh.yaml'), '');
});

after(async () => {
  await api.stop();
  await rm(dir, { recursive: true });
});

/** The values for the last word, and whether files may be offered. */
async function offered(...words: string[]): Promise<{ values: string[]; files: boolean }> {
  const { stdout } = await say(['__complete', ...words], { env });
  const lines = stdout.trimEnd().split('\n');
  return { values: lines.slice(0, -1).map((line) => line.split('\t')[0] ?? ''), files: lines.at(-1) === ':0' };
}

describe('completion', () => {
  it('offers commands, flags, values, and names from the kubeconfig and the cluster', async () => {
    assert.deepEqual((await offered('in')).values, ['inspect']);
    assert.deepEqual((await offered('completion', '')).values, ['bash', 'zsh', 'fish']);
    assert.deepEqual((await offered('status', '--out')).values, ['--output']);
    assert.deepEqual((await offered('status', '-o', '')).values, ['wide', 'json', 'yaml', 'name']);
    assert.deepEqual((await offered('status', '--output=j')).values, ['--output=json']);
    assert.deepEqual((await offered('status', '-o=y')).values, ['-o=yaml']);
    assert.deepEqual((await offered('status', '')).values, ['bookinfo', 'payments']);
    assert.deepEqual((await offered('status', 'bookinfo', '')).values, ['payments']);
    assert.deepEqual((await offered('-n', 'shop', 'status', '')).values, []);
    assert.deepEqual((await offered('status', '-n', 's')).values, ['shop']);
    assert.deepEqual((await offered('agent', '--watch-namespaces', 'shop,em')).values, ['shop,emissary']);
    assert.deepEqual((await offered('demo', '--meshes=istio,')).values, [
      '--meshes=istio,linkerd',
      '--meshes=istio,consul',
      '--meshes=istio,spiffe',
      '--meshes=istio,file',
    ]);
    assert.equal((await offered('status', '--context', '')).values.length, 1);
  });

  it('offers files only where a file is expected', async () => {
    assert.equal((await offered('render', '-f', '')).files, true);
    assert.equal((await offered('inspect', '')).files, true);
    for (const words of [
      ['schema', ''],
      ['status', '--url', ''],
      ['inspect', 'secret', ''],
      ['nothing', ''],
    ]) {
      assert.deepEqual(await offered(...words), { values: [], files: false }, words.join(' '));
    }
  });

  it('offers nothing that would be refused', async () => {
    assert.ok(!(await offered('agent', '--config', 'a', '--')).values.includes('--all-namespaces'));
    assert.ok(!(await offered('renew', 'bookinfo', '--')).values.includes('--all'));
    assert.deepEqual((await offered('renew', '--all', '')).values, []);
    assert.ok(!(await offered('status', '-o', 'json', '--')).values.includes('--output'));
    assert.ok((await offered('render', '-f', 'a', '--')).values.includes('--filename'));
    const refused = /no flag|cannot be used|too many arguments/;
    const stopped = AbortSignal.abort(new Error('SIGINT'));
    for (const command of await Promise.all(COMMANDS.map((one) => one.load()))) {
      const flags = Object.values<Flag<unknown>>(command.flags).filter(({ hidden }) => !hidden);
      for (const given of flags) {
        const words = [command.name, given.long ?? '', ...(given.required ? [given.argChoices?.[0] ?? 'x'] : [])];
        for (const value of (await offered(...words, '--')).values) {
          const flag = flags.find(({ long }) => long === value);
          const line = [...words, value, ...(flag?.required ? [flag.argChoices?.[0] ?? 'x'] : []), '--help-is-unknown'];
          const { stderr } = await say(line, { env, signal: stopped });
          assert.doesNotMatch(stderr.replace('no flag --help-is-unknown', ''), refused, line.join(' '));
        }
      }
    }
  });

  it('answers kubectl in the format of plugin completion', async () => {
    const { output } = await capture(join(bin, 'kubectl_complete-meshcert'), ['schem'], dir);
    assert.equal(output, 'schema\tPrint the JSON schema or the CustomResourceDefinition\n:4\n');
  });
});

/** What is typed before the tab, and the words in the line afterwards. */
const TYPED: readonly (readonly [string, readonly string[]])[] = [
  ['meshcert ins', ['meshcert', 'inspect']],
  ['meshcert status --exit', ['meshcert', 'status', '--exit-code']],
  ['meshcert status -o js', ['meshcert', 'status', '-o', 'json']],
  ['meshcert status --output=js', ['meshcert', 'status', '--output=json']],
  ['meshcert status book', ['meshcert', 'status', 'bookinfo']],
  ['meshcert status -n sh', ['meshcert', 'status', '-n', 'shop']],
  ['meshcert render -f mes', ['meshcert', 'render', '-f', 'mesh.yaml']],
  ['meshcert schema mes', ['meshcert', 'schema', 'mes']],
];

const LOAD = {
  bash: ['source <(meshcert completion bash)'],
  zsh: ['bindkey -e', 'source <(meshcert completion zsh)'],
  fish: ['meshcert completion fish | source'],
} as const;

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  const missing = [shell, 'script'].filter((program) => !isInstalled(program));
  const skip = missing.length > 0 && process.env.CI === undefined ? `${missing.join(' and ')} is not installed` : false;
  describe(`completion in a real ${shell}`, { skip, timeout: 120_000 }, () => {
    it('completes commands, flags, values, names and files, and nothing where nothing is accepted', async () => {
      await using typed = new Shell(shell, { cwd: dir, env });
      for (const line of LOAD[shell]) {
        const printed = await typed.run(line);
        assert.doesNotMatch(printed, /error|not found|command not/i, printed);
      }
      for (const [text, words] of TYPED) assert.deepEqual(await typed.complete(text), words, text);
    });
  });
}
