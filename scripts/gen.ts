import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { generateProtos } from './gen-protos.ts';
import { ROOT } from './tree.ts';

/** One generated file: its path from the root, and its whole text. */
interface Output {
  readonly path: string;
  render(): string | Promise<string>;
}

const outputs: readonly Output[] = [];

const check = process.argv.includes('--check');
const drifted: string[] = [];

if (!generateProtos({ check })) drifted.push('src/grpc/gen/protos.json');
for (const { path, render } of outputs) {
  const file = join(ROOT, path);
  const wanted = await render();
  if ((await readFile(file, 'utf8').catch(() => '')) === wanted) continue;
  drifted.push(path);
  if (check) continue;
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, wanted);
}

for (const path of drifted) process.stdout.write(`${check ? 'out of date' : 'written'}: ${path}\n`);
if (check && drifted.length > 0) {
  process.stdout.write('run `npm run gen` and commit what it writes\n');
  process.exitCode = 1;
}
