import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { material, objectsOf, readExamples } from '../test/doctor/examples.ts';

const USAGE = `usage: npx tsx scripts/traps.ts DIR

Writes the examples of docs/checks.md, filled with certificates that it makes up, one directory for each check, so that
meshcert doctor -f DIR/MC1001 finds that trap.`;

const [directory] = process.argv.slice(2);
if (directory === undefined || directory.startsWith('-')) {
  process.stderr.write(`${USAGE}\n`);
  process.exitCode = directory === undefined ? 2 : 0;
} else {
  const { texts } = material();
  const { examples } = readExamples();
  for (const { code, base, yaml } of examples) {
    mkdirSync(join(directory, code), { recursive: true });
    const documents = objectsOf(texts, base, yaml).map((object) => stringify(object));
    writeFileSync(join(directory, code, 'objects.yaml'), documents.join('---\n'));
  }
  process.stdout.write(`${examples.length} traps in ${directory}\n`);
}
