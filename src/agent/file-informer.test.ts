import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { systemClock } from '../async/clock.ts';
import { ANY } from '../config/allow.ts';
import { type FileOptions, fileContents, fileTexts } from './file-informer.ts';

it('a file that cannot be read counts as absent, and is followed until it can be read', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-files-'));
  try {
    const path = join(dir, 'token');
    const stop = new AbortController();
    // A path below a file, and a directory in place of a file, fail in two different ways; so does a broken mount.
    for (const odd of [join(dir, 'token', 'below'), dir]) {
      const first = await fileContents(odd, { clock: systemClock, below: ANY }, stop.signal)
        [Symbol.asyncIterator]()
        .next();
      assert.deepEqual(first, { done: false, value: undefined });
    }
    const contents = fileContents(path, { clock: systemClock, below: ANY }, stop.signal)[Symbol.asyncIterator]();
    assert.equal((await contents.next()).value, undefined);
    await writeFile(path, 'text');
    assert.equal((await contents.next()).value, 'text');
    await contents.return?.(undefined);
  } finally {
    await rm(dir, { recursive: true });
  }
});

it('a file that is unusable for a while is reported, and that it is usable again', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-files-'));
  const stop = new AbortController();
  try {
    const path = join(dir, 'token');
    const said: string[] = [];
    const failed = (_: string, { message }: Error) => said.push(message);
    const options: FileOptions = { clock: systemClock, below: ANY, failed, recovered: () => said.push('usable') };
    await mkdir(path);
    const contents = fileContents(path, options, stop.signal)[Symbol.asyncIterator]();
    assert.equal((await contents.next()).value, undefined);
    await rm(path, { recursive: true });
    await writeFile(path, 'text');
    let value: string | undefined;
    while (value !== 'text') value = (await contents.next()).value ?? undefined;
    assert.deepEqual(said, ['is not a regular file', 'usable']);
  } finally {
    stop.abort();
    await rm(dir, { recursive: true });
  }
});

it('files behind a symlink that is swapped are never read half from one directory and half from the next', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-files-'));
  const names = ['a', 'b', 'c'];
  const stop = new AbortController();
  const swapTo = async (version: number) => {
    const next = join(dir, `..${version}`);
    await mkdir(next);
    for (const name of names) await writeFile(join(next, name), String(version));
    await symlink(`..${version}`, join(dir, 'next'));
    await rename(join(dir, 'next'), join(dir, '..data'));
  };
  try {
    await swapTo(0);
    for (const name of names) await symlink(`..data/${name}`, join(dir, name));
    let swapped = false;
    const swapping = (async () => {
      for (let version = 1; version <= 300; version++) await swapTo(version);
      swapped = true;
    })();
    const paths = names.map((name) => join(dir, name));
    let readings = 0;
    for await (const texts of fileTexts(paths, { clock: systemClock, below: ANY }, stop.signal)) {
      readings++;
      assert.equal(new Set(texts).size, 1, texts.join());
      if (texts[0] === '300') break;
    }
    await swapping;
    assert.ok(swapped && readings > 1, `${readings} readings`);
  } finally {
    stop.abort();
    await rm(dir, { recursive: true });
  }
});
