import { createHash } from 'node:crypto';
import { builtBundle } from '../built-bundle.ts';
import { REPOSITORY, VERSION } from '../image/content.ts';
import { image } from '../image/image.ts';
import { type Architecture, ociArchive } from '../image/oci.ts';
import { billOfMaterials, billOfPackage } from '../image/sbom.ts';
import type { Section } from './changelog.ts';
import { packChart } from './chart.ts';
import { krewManifest, packPlugin } from './krew.ts';
import { definitions, installation } from './manifests.ts';
import { packPackage } from './npm-package.ts';

const DOWNLOADS = `https://github.com/meshcert/meshcert/releases/download/v${VERSION}`;

/** Names of the files of a release, which docs, workflows and manifests refer to. */
export const FILES = {
  chart: `meshcert-${VERSION}.tgz`,
  npm: `meshcert-npm-${VERSION}.tgz`,
  image: `meshcert-image-${VERSION}.tar`,
  plugin: `kubectl-meshcert-${VERSION}.tar.gz`,
  krew: 'meshcert.yaml',
  definitions: 'crds.yaml',
  installation: 'install.yaml',
  packageBill: `meshcert-npm-${VERSION}.cdx.json`,
  notes: 'release-notes.md',
  checksums: 'SHA256SUMS',
} as const;

const imageBill = (architecture: Architecture): string => `meshcert-image-${VERSION}-${architecture}.cdx.json`;

export interface Artifacts {
  readonly files: ReadonlyMap<string, Buffer>;
  /** `REPOSITORY:VERSION@DIGEST`. */
  readonly image: string;
}

/** Every file of a release. Equal sources give equal bytes. */
export async function artifacts(architectures: readonly Architecture[], section: Section): Promise<Artifacts> {
  const files = new Map<string, Buffer>();
  const bundle = await builtBundle();
  const plugin = await packPlugin(bundle);
  files.set(FILES.chart, await packChart(section.changes));
  files.set(FILES.npm, await packPackage());
  files.set(FILES.plugin, plugin);
  const url = `${DOWNLOADS}/${FILES.plugin}`;
  files.set(FILES.krew, Buffer.from(krewManifest({ url, sha256: sha256(plugin) })));
  files.set(FILES.definitions, Buffer.from(await definitions()));
  files.set(FILES.installation, Buffer.from(await installation()));
  files.set(FILES.packageBill, Buffer.from(await billOfPackage()));

  const platforms = [];
  for (const architecture of architectures) platforms.push(await image(architecture, bundle));
  const { tar, digest } = ociArchive(`${REPOSITORY}:${VERSION}`, platforms);
  files.set(FILES.image, tar);
  for (const one of platforms) {
    files.set(imageBill(one.architecture), Buffer.from(await billOfMaterials({ ...one, digest })));
  }
  const name = `${REPOSITORY}:${VERSION}@${digest}`;
  files.set(FILES.notes, Buffer.from(`${section.text}\nImage: \`${name}\`\n`));
  files.set(FILES.checksums, Buffer.from(checksums(files)));
  return { files, image: name };
}

/** In the form that `sha256sum --check` reads. */
function checksums(files: ReadonlyMap<string, Buffer>): string {
  return [...files].map(([name, content]) => `${sha256(content)}  ${name}\n`).join('');
}

const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex');
