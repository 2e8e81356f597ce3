import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bundledPackages } from './build.ts';

const LICENSE_FILE = /^(licen[cs]e|copying|notice)/i;

/** The licenses of the npm packages that are in a bundle, which all ask that their text is passed on. */
export async function thirdPartyLicenses(options: { readonly demo?: boolean } = {}): Promise<string> {
  const parts: string[] = [];
  for (const { name, version, directory } of await bundledPackages(options)) {
    const files = (await readdir(directory)).filter((file) => LICENSE_FILE.test(file)).sort();
    const texts = await Promise.all(files.map((file) => readFile(join(directory, file), 'utf8')));
    const { license } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8'));
    parts.push(`${name} ${version} (${license})\n\n${texts.map((text) => text.trim()).join('\n\n')}\n`);
  }
  return parts.join(`\n${'-'.repeat(80)}\n\n`);
}
