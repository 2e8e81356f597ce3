import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from '../tree.ts';

export interface Change {
  readonly kind: 'added' | 'changed' | 'deprecated' | 'removed' | 'fixed' | 'security';
  /** The first sentence of the entry. */
  readonly description: string;
}

export interface Section {
  /** Markdown, without the heading of the version. */
  readonly text: string;
  readonly changes: readonly Change[];
}

export const changelog = (): Promise<string> => readFile(join(ROOT, 'CHANGELOG.md'), 'utf8');

/** The part of a changelog below `## VERSION`, or undefined when it has none. */
export function sectionOf(text: string, version: string): Section | undefined {
  const parts = text.split(/^## /m).slice(1);
  const part = parts.find((one) => /^\[?([^\s\]]+)/.exec(one)?.[1] === version);
  if (part === undefined) return undefined;
  const body = part.slice(part.indexOf('\n') + 1).trim();
  const changes: Change[] = [];
  for (const group of body.split(/^### /m).slice(1)) {
    const kind = group.slice(0, group.indexOf('\n')).trim().toLowerCase() as Change['kind'];
    for (const [, entry = ''] of group.matchAll(/^- (.+)$/gm)) {
      changes.push({ kind, description: /^.*?\.(?= |$)/.exec(entry)?.[0] ?? entry });
    }
  }
  return { text: `${body}\n`, changes };
}
