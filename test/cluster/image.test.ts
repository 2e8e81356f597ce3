import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { REPOSITORY, VERSION } from '../../scripts/image/content.ts';
import { image } from '../../scripts/image/image.ts';
import { nativeArchitecture, ociArchive } from '../../scripts/image/oci.ts';
import { billOfMaterials } from '../../scripts/image/sbom.ts';
import { discard, output, scratchDir } from '../peers/servers/process.ts';
import { noCluster } from './node/machine.ts';

const name = `${REPOSITORY}:${VERSION}`;

test('the image made twice, with everything downloaded again, has one digest', { skip: noCluster() }, async (t) => {
  const dir = scratchDir('image');
  try {
    const bundle = await builtBundle();
    const made = [];
    for (const cache of ['first', 'second']) {
      const one = await image(nativeArchitecture, bundle, join(dir, cache));
      const archive = ociArchive(name, [one]);
      made.push({ ...archive, one, bill: await billOfMaterials({ ...one, digest: archive.digest }) });
    }
    const [first, second] = made;
    assert.ok(first && second);
    const unpacked = first.one.layers.reduce((sum, { unpackedBytes }) => sum + unpackedBytes, 0);
    t.diagnostic(`${first.digest} and ${second.digest}, ${unpacked} bytes unpacked, ${first.tar.length} bytes packed`);
    assert.equal(first.digest, second.digest);
    assert.deepEqual(first.tar, second.tar);
    assert.equal(first.bill, second.bill);
    assert.ok(unpacked <= 130e6, `the image has ${unpacked} bytes`);

    // GNU tar reads the archive and its layers.
    const file = join(dir, 'image.tar');
    await writeFile(file, first.tar);
    await output('tar', ['-xf', file, '-C', dir], { cwd: dir });
    const listed: string[] = [];
    for (const { blob } of first.one.layers) {
      await writeFile(join(dir, 'layer.tar.gz'), blob);
      listed.push(await output('tar', ['-tzvf', join(dir, 'layer.tar.gz')], { cwd: dir }));
    }
    t.diagnostic(listed.join(''));
    assert.doesNotMatch(listed.join(''), /\b(sh|bash|apt|dpkg|npm)$/m);
  } finally {
    discard(dir);
  }
});

test('the bill of materials names Node.js, the libraries and the packages of the bundle', {
  skip: noCluster(),
}, async () => {
  const one = await image(nativeArchitecture, await builtBundle());
  const bill = JSON.parse(await billOfMaterials({ ...one, digest: 'sha256:0' }));
  const purls = bill.components.map((component: { purl: string }) => component.purl);
  for (const part of [
    /^pkg:generic\/node@24\./,
    /^pkg:deb\/debian\/libc6@/,
    /^pkg:npm\/pino@/,
    /^pkg:npm\/%40grpc\/grpc-js@/,
  ]) {
    assert.ok(
      purls.some((purl: string) => part.test(purl)),
      String(part),
    );
  }
  assert.ok(!purls.some((purl: string) => purl.startsWith('pkg:npm/typescript@')), 'a development dependency');
});
