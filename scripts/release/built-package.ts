import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { builtOnce, inputsOfBundle } from '../built-bundle.ts';
import { filesBelow, ROOT } from '../tree.ts';
import { packPackage } from './npm-package.ts';

/** What the declarations, the suite for adapters and the manifest are made from, beside the inputs of the bundle. */
const FURTHER = ['tsconfig.json', 'tsconfig.package.json', 'README.md', 'LICENSE'];

/** The path of the tarball of this tree. It is made once for its inputs: the declarations take the compiler seconds. */
export async function builtPackage(): Promise<string> {
  const sources = filesBelow(ROOT, 'src', 'adapters', 'sandbox', 'test', 'scripts').filter(
    (file) => !file.endsWith('.test.ts'),
  );
  const inputs = new Set([...inputsOfBundle(), ...sources, ...FURTHER]);
  const fill = async (directory: string) => writeFile(join(directory, 'meshcert.tgz'), await packPackage());
  return join(await builtOnce('npm-', [...inputs], fill), 'meshcert.tgz');
}
