import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { thirdPartyLicenses } from '../licenses.ts';
import { ROOT } from '../tree.ts';
import { RUN_CONFIG } from './content.ts';
import { type Architecture, layer, type PlatformImage } from './oci.ts';
import { base, CACHE, type DebianPackage } from './sources.ts';
import type { Entry } from './tar.ts';

/** What meshcert adds to the base. */
export async function own(bundle: string): Promise<Entry[]> {
  return [
    { path: 'meshcert.js', mode: 0o755, content: await readFile(bundle) },
    // Otherwise Node.js tries CommonJS first, and keeps the text of the bundle twice: 11 MiB at the start.
    { path: 'package.json', mode: 0o644, content: Buffer.from('{"type":"module"}\n') },
    { path: 'usr/share/licenses/meshcert/LICENSE', mode: 0o644, content: await readFile(join(ROOT, 'LICENSE')) },
    {
      path: 'usr/share/licenses/meshcert/third-party-licenses.txt',
      mode: 0o644,
      content: Buffer.from(await thirdPartyLicenses()),
    },
  ];
}

export interface Image extends PlatformImage {
  readonly packages: readonly DebianPackage[];
}

/** Two layers: a new version of meshcert on the same Node.js is a download of 1 MB. */
export async function image(architecture: Architecture, bundle: string, cache = CACHE): Promise<Image> {
  const { files, packages } = await base(architecture, cache);
  return { architecture, layers: [layer(files), layer(await own(bundle))], config: RUN_CONFIG, packages };
}
