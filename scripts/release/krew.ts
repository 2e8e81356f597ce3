import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { stringify } from 'yaml';
import { description, VERSION } from '../image/content.ts';
import { tar } from '../image/tar.ts';
import { thirdPartyLicenses } from '../licenses.ts';
import { ROOT } from '../tree.ts';

/** The plug-in of kubectl: the bundle without the demo. Node.js is not part of it. */
export async function packPlugin(bundle: string): Promise<Buffer> {
  const files = [
    { path: 'LICENSE', mode: 0o644, content: await readFile(join(ROOT, 'LICENSE')) },
    { path: 'meshcert.js', mode: 0o755, content: await readFile(bundle) },
    { path: 'third-party-licenses.txt', mode: 0o644, content: Buffer.from(await thirdPartyLicenses()) },
  ];
  return gzipSync(tar(files), { level: 9 });
}

/** The manifest by which krew installs the plug-in. Its file must have the name of the plug-in. */
export function krewManifest({ url, sha256 }: { readonly url: string; readonly sha256: string }): string {
  return stringify(
    {
      apiVersion: 'krew.googlecontainertools.github.com/v1alpha2',
      kind: 'Plugin',
      metadata: { name: 'meshcert' },
      spec: {
        version: `v${VERSION}`,
        homepage: 'https://github.com/meshcert/meshcert',
        shortDescription: 'Give an API gateway the identity of a mesh',
        description,
        caveats: 'This plugin needs Node.js 20.19 or later on the PATH.\n',
        platforms: [
          {
            selector: { matchExpressions: [{ key: 'os', operator: 'In', values: ['linux', 'darwin'] }] },
            uri: url,
            sha256,
            bin: 'meshcert.js',
          },
        ],
      },
    },
    { lineWidth: 0 },
  );
}
