import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { say } from '../../test/support/io.ts';
import { COMMANDS } from './commands.ts';
import { nodeProblem } from './main.ts';

describe('meshcert', () => {
  it('ends without an error when nothing reads its output any more', async () => {
    const child = spawn(process.execPath, [await builtBundle(), 'doctor', '--list']);
    child.stdout.destroy();
    let stderr = '';
    child.stderr.on('data', (data) => {
      stderr += data;
    });
    const [code] = await once(child, 'close');
    assert.deepEqual([code, stderr], [0, '']);
  });

  it('reports a Node.js that is too old', () => {
    assert.match(nodeProblem('18.20.4') ?? '', /needs Node\.js 20\.19 or later, and this is 18\.20\.4/);
    assert.match(nodeProblem('20.9.0') ?? '', /20\.9\.0/);
    for (const version of ['20.19.0', '22.0.0', '24.1.0']) assert.equal(nodeProblem(version), undefined);
  });

  it('names what a mistyped command or flag most likely meant', async () => {
    for (const [argv, words] of [
      [['onbord'], /no command "onbord"; did you mean onboard\?\nSee "meshcert --help"/],
      [
        ['agent', '--conifg', 'a.yaml'],
        /meshcert agent: no flag --conifg; did you mean --config\?\nSee "meshcert agent --help"/,
      ],
      [['doctor', '--ouput=json'], /no flag --ouput; did you mean --output\?/],
      [['inspect', '--zzzzzzzz'], /no flag --zzzzzzzz\n/],
      [['render', '--once'], /no flag --once here; meshcert agent has it\n/],
      [['status', '-q'], /no flag -q\n/],
    ] as const) {
      const said = await say(argv);
      assert.match(said.stderr, words);
      assert.equal(said.code, 2);
    }
  });

  it('runs the command behind a "--", and answers for it', async () => {
    assert.equal((await say(['--', 'schema', '--', 'x'])).code, 2);
    assert.match((await say(['--', 'schema'])).stdout, /"\$schema"/);
    assert.match((await say(['help', '--', 'schema'])).stdout, /^Usage: meshcert schema/m);
  });

  it('fits into 80 columns', async () => {
    for (const argv of [['--help'], ...COMMANDS.map(({ name }) => [name, '--help'])]) {
      const { code, stdout } = await say(argv);
      assert.equal(code, 0);
      assert.deepEqual(
        stdout.split('\n').filter((line) => line.length > 80),
        [],
      );
    }
  });

  it('shows examples in the help of each command, and accepts each of them', async () => {
    for (const { name } of COMMANDS) {
      const { stdout } = await say([name, '--help']);
      const [, examples = ''] = stdout.split('\nExamples:\n');
      assert.match(examples, new RegExp(`^ {2}# .+\n {2}.*meshcert ${name}`), name);
    }
  });

  it('accepts what kubectl accepts: -o=json, a switch with =true, and cluster flags before the command', async () => {
    for (const argv of [
      ['doctor', '--list', '-o=json'],
      ['doctor', '--list=true'],
      ['--context', 'none', 'doctor', '--list'],
      ['-n', 'emissary', 'doctor', '--list'],
    ]) {
      const said = await say(argv);
      assert.equal(said.code, 0, said.stderr);
    }
    assert.equal((await say(['schema', '--crd=false', '-o=json'])).stdout[0], '{');
  });

  it('names the file, flag or field that is wrong, and what is expected', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'meshcert-cli-'));
    const file = async (name: string, text: string) => {
      await writeFile(join(dir, name), text);
      return join(dir, name);
    };
    const kind = 'apiVersion: meshcert.dev/v1alpha1\nkind: MeshCertifcate\nmetadata: {name: a}\nspec: {istio: {}}\n';
    try {
      for (const [argv, code, words] of [
        [['inspect', await file('a.pem', 'no pem')], 1, /ERR_PEM_EMPTY: .*a\.pem: input has no PEM block/],
        [['status', '--url', 'foo'], 2, /--url "foo": expected http:\/\/host:port/],
        [['doctor', '-f', join(dir, 'absent')], 2, /cannot read .*absent: no such file or directory/],
        [['doctor', '-f', await file('broken.yaml', 'a: [')], 1, /not checked: .*broken\.yaml:/],
        [['render', '-f', await file('empty.yaml', '')], 2, /empty\.yaml holds no MeshCertificate; add at least one/],
        [['render', '-f', await file('kind.yaml', kind)], 1, /kind: expected "MeshCertificate"\n/],
      ] as const) {
        const said = await say(argv);
        assert.match(said.stdout + said.stderr, words);
        assert.equal(said.code, code, argv.join(' '));
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
