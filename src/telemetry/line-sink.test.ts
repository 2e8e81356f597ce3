import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { LineSink } from './log.ts';

test('a line is in the file before the call returns', () => {
  const dir = mkdtempSync(join(tmpdir(), 'meshcert-log-'));
  const file = join(dir, 'log');
  const fd = openSync(file, 'w');
  const sink = new LineSink(fd);
  sink.write('one\n');
  assert.equal(readFileSync(file, 'utf8'), 'one\n');
  sink.write('two\n');
  assert.equal(readFileSync(file, 'utf8'), 'one\ntwo\n');
  closeSync(fd);
  rmSync(dir, { recursive: true });
});

test('a full disk loses lines and throws nothing', { skip: !existsSync('/dev/full') }, () => {
  const fd = openSync('/dev/full', 'w');
  const sink = new LineSink(fd);
  for (let n = 0; n < 1000; n++) sink.write('line\n');
  closeSync(fd);
});

test('a reader that has gone loses lines and throws nothing', async () => {
  const script = `
    import { LineSink } from ${JSON.stringify(new URL('./log.ts', import.meta.url).href)};
    const sink = new LineSink(1);
    for (let n = 0; n < 100; n++) sink.write('x'.repeat(1000) + '\\n');
    process.stderr.write('done');
  `;
  const args = ['--import', 'tsx', '--input-type=module', '-e', script];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  let said = '';
  child.stderr.on('data', (data) => {
    said += data;
  });
  const [code] = await once(child, 'close');
  assert.equal(said, 'done');
  assert.equal(code, 0);
});
