import { statSync } from 'node:fs';
import { join } from 'node:path';
import { filesBelow } from '../tree.ts';

const LARGEST = 12 * 1024;
/** docs/adr/0002-file-budget.md */
const MEDIAN = 3.2 * 1024;

/**
 * Small files keep one concept each. Counts the TypeScript of src and adapters without tests and generated files;
 * returns what is over budget.
 */
export function overBudget(root: string): string[] {
  const sizes = filesBelow(root, 'src', 'adapters')
    .filter((file) => file.endsWith('.ts') && !/\.(test|fixture)\.ts$/.test(file) && !file.includes('/gen/'))
    .map((file) => ({ file, size: statSync(join(root, file)).size }))
    .sort((a, b) => a.size - b.size);
  const over = sizes
    .filter(({ size }) => size > LARGEST)
    .map(({ file, size }) => `${file} has ${size} bytes; split it below ${LARGEST}`);
  const median = sizes[Math.floor((sizes.length - 1) / 2)]?.size ?? 0;
  if (median > MEDIAN) over.push(`the median file has ${median} bytes; the budget is ${MEDIAN}`);
  return over;
}
