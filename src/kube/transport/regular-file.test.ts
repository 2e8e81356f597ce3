import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { FileError, readRegularFile } from './regular-file.ts';

it('only a regular file within the limit is read; a pipe does not block and a device is not read without end', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-regular-'));
  const at = (name: string) => join(dir, name);
  const socket = createServer();
  try {
    await writeFile(at('good'), 'täxt');
    await writeFile(at('large'), 'x'.repeat(11));
    await symlink(at('good'), at('link'));
    await symlink(at('link-to-itself'), at('link-to-itself'));
    await mkdir(at('directory'));
    execFileSync('mkfifo', [at('pipe')]);
    await new Promise<void>((resolve) => socket.listen(at('socket'), resolve));
    assert.equal(await readRegularFile(at('good'), 10), 'täxt');
    assert.equal(await readRegularFile(at('link'), 10), 'täxt');
    assert.match(await readRegularFile('/proc/self/status', 1_000_000), /^Name:/);
    for (const [path, message, isAbsent] of [
      [at('large'), 'is larger than 10 bytes', false],
      [at('directory'), 'is not a regular file', false],
      [at('pipe'), 'is not a regular file', false],
      ['/dev/zero', 'is not a regular file', false],
      ['/dev/null', 'is not a regular file', false],
      [at('socket'), 'cannot be read (ENXIO)', false],
      [at('link-to-itself'), 'cannot be read (ELOOP)', false],
      [at('absent'), 'does not exist', true],
      [at('good/below'), 'does not exist', true],
    ] as const) {
      await assert.rejects(readRegularFile(path, 10), (error) => {
        assert.ok(error instanceof FileError, path);
        assert.deepEqual([error.message, error.isAbsent], [message, isAbsent], path);
        return true;
      });
    }
  } finally {
    socket.close();
    await rm(dir, { recursive: true });
  }
});
