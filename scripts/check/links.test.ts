import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ROOT, trackedBelow } from '../tree.ts';

const documents = trackedBelow(ROOT).filter((file) => file.endsWith('.md'));

/** The anchors that GitHub makes from headings. */
const anchorsOf = (text: string): Set<string> =>
  new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );

test('every link between our documents leads somewhere', () => {
  assert.ok(documents.length >= 8);
  const broken: string[] = [];
  for (const file of documents) {
    const text = readFileSync(join(ROOT, file), 'utf8').replace(/^```[\s\S]*?^```/gm, '');
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = '', anchor] = target.split('#');
      const found = path === '' ? join(ROOT, file) : join(ROOT, dirname(file), path);
      if (!existsSync(found)) broken.push(`${file}: ${target}`);
      else if (anchor !== undefined && found.endsWith('.md') && !anchorsOf(readFileSync(found, 'utf8')).has(anchor)) {
        broken.push(`${file}: ${target} has no such heading`);
      }
    }
  }
  assert.deepEqual(broken, []);
});

test('each file and folder that the architecture page names exists', () => {
  const text = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8');
  const named = [...text.matchAll(/`((?:src|adapters|sandbox|scripts|deploy|test|docs)\/[\w./-]+)`/g)].map(
    ([, path = '']) => path,
  );
  assert.ok(named.length > 40);
  assert.deepEqual(
    named.filter((path) => !existsSync(join(ROOT, path))),
    [],
  );
});

test('each function that the architecture page names is declared in what ships', () => {
  const text = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8');
  const named = new Set([...text.matchAll(/`(\w+)\(\)`/g)].map(([, name = '']) => name));
  assert.ok(named.size > 10);
  const declared = new Set(
    trackedBelow(ROOT, 'src', 'adapters')
      .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
      .flatMap((file) => [...readFileSync(join(ROOT, file), 'utf8').matchAll(/\bfunction\*? (\w+)/g)])
      .map(([, name]) => name),
  );
  assert.deepEqual(
    [...named].filter((name) => !declared.has(name)),
    [],
  );
});
