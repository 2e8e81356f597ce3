import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { bundle } from './build.ts';
import { REPOSITORY, VERSION } from './image/content.ts';
import { image } from './image/image.ts';
import { architecturesOf, nativeArchitecture, ociArchive } from './image/oci.ts';
import { billOfMaterials } from './image/sbom.ts';
import { ROOT } from './tree.ts';

const USAGE = `usage: npm run image -- [--arch amd64,arm64] [--output FILE]

Writes the image as an OCI archive (dist/meshcert-image.tar), with a bill of materials for each architecture beside it.
containerd imports the archive: ctr -n k8s.io images import FILE. skopeo copies it to a registry, as releases do.
`;

const { values } = parseArgs({
  options: {
    arch: { type: 'string', default: nativeArchitecture },
    output: { type: 'string', default: join(ROOT, 'dist', 'meshcert-image.tar') },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

if (values.help) process.stdout.write(USAGE);
else await writeArchive(resolve(values.output));

async function writeArchive(file: string): Promise<void> {
  const javascript = await bundle();
  const platforms = await Promise.all(architecturesOf(values.arch).map((arch) => image(arch, javascript)));
  const { tar, digest } = ociArchive(`${REPOSITORY}:${VERSION}`, platforms);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, tar);
  process.stdout.write(`${REPOSITORY}:${VERSION}@${digest}\n`);
  for (const { architecture, layers, packages } of platforms) {
    await writeFile(
      file.replace(/\.tar$/, `-${architecture}.cdx.json`),
      await billOfMaterials({ architecture, digest, packages }),
    );
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
    const packed = layers.reduce((sum, { blob }) => sum + blob.length, 0);
    const unpacked = layers.reduce((sum, { unpackedBytes }) => sum + unpackedBytes, 0);
    process.stdout.write(`${architecture}: ${megabytes(packed)} MB to download, ${megabytes(unpacked)} MB unpacked\n`);
  }
  process.stdout.write(`${file}\n`);
}
