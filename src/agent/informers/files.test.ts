import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock } from '../../async/clock.ts';
import { fileContents } from './files.ts';

it('a file that cannot be read is told as absent, and followed until it can be', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-files-'));
  try {
    const path = join(dir, 'token');
    const stop = new AbortController();
    // A path below a file, and a directory where a file should be, fail in two ways; so does a broken mount.
    for (const odd of [join(dir, 'token', 'below'), dir]) {
      const first = await fileContents(odd, { clock: systemClock }, stop.signal)[Symbol.asyncIterator]().next();
      assert.deepEqual(first, { done: false, value: undefined });
    }
    const contents = fileContents(path, { clock: systemClock }, stop.signal)[Symbol.asyncIterator]();
    assert.equal((await contents.next()).value, undefined);
    await writeFile(path, 'text');
    assert.equal((await contents.next()).value, 'text');
    await contents.return?.(undefined);
  } finally {
    await rm(dir, { recursive: true });
  }
});
