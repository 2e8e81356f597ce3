import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow } from '../tree.ts';

/** docs/adr/0002-file-size.md */
const MOST_LINES = 400;

/** Returns the TypeScript files of src and adapters, without tests and generated files, that are too long. */
export function overBudget(root: string): string[] {
  return filesBelow(root, 'src', 'adapters')
    .filter((file) => file.endsWith('.ts') && !/\.(test|fixture)\.ts$/.test(file) && !file.includes('/gen/'))
    .map((file) => ({ file, lines: readFileSync(join(root, file), 'utf8').split('\n').length - 1 }))
    .filter(({ lines }) => lines > MOST_LINES)
    .map(({ file, lines }) => `${file} has ${lines} lines; split it into files of at most ${MOST_LINES}`);
}
