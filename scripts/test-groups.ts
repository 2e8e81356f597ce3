import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LONG } from './test-order.ts';
import { ROOT } from './tree.ts';

/** Below these, files share a process; elsewhere each has its own. */
const SHARING = /^(?:src\/\w+|adapters|sandbox|test\/(?:contract|doctor|e2e))(?=\/)/;

/** A process of a few minutes at most on a busy machine, and enough of them for several cores. */
const LARGEST = 8;

/** Hooks outside of any suite apply to the whole process; so do faked timers, replaced globals and counts of objects. */
const WHOLE_PROCESS = /^(?:before|after)(?:Each)?\(|mock\.timers|globalThis\.\w+ =|queryObjects/m;

/**
 * The test files by process. Files of one folder load the same modules, and V8 compiles these once for a process: five
 * files together take two thirds of the CPU time that they take one by one. A long file is alone, so that the others
 * run beside it.
 */
export function testGroups(files: readonly string[]): string[][] {
  const groups: string[][] = [];
  const open = new Map<string, string[]>();
  for (const file of files) {
    const folder = isAlone(file) ? undefined : SHARING.exec(file)?.[0];
    const group = folder === undefined ? undefined : open.get(folder);
    if (group && group.length < LARGEST) {
      group.push(file);
      continue;
    }
    const begun = [file];
    groups.push(begun);
    if (folder !== undefined) open.set(folder, begun);
  }
  // What shares a process takes longer than what is alone, except for the long files, which come first.
  const rank = ([first = '', second]: readonly string[]) => (LONG.includes(first) ? 0 : second === undefined ? 2 : 1);
  return groups.toSorted((a, b) => rank(a) - rank(b));
}

const isAlone = (file: string): boolean =>
  LONG.includes(file) || WHOLE_PROCESS.test(readFileSync(join(ROOT, file), 'utf8'));
