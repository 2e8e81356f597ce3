import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { ROOT, trackedBelow } from '../tree.ts';

/** Words that a native speaker would stop at, and for which the Kubernetes documentation has a plainer one. */
const WORDS = /\b(anew|heeds?|mend(s|ed|ing)?|nought|wish(es|ed)?|told|stood|kept|somebody|whom)\b/i;

const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');

function linesWith(text: string): string[] {
  return text.split('\n').filter((line) => WORDS.test(line));
}

test('the documentation has none of the words that a native speaker would stop at', () => {
  const pages = trackedBelow(ROOT, 'docs', 'deploy')
    .concat('README.md', 'CONTRIBUTING.md', 'SECURITY.md', 'CODE_OF_CONDUCT.md')
    .filter((file) => file.endsWith('.md') && !file.startsWith('docs/adr/'));
  assert.ok(pages.length > 20);
  for (const page of pages) {
    // Titles of tests are quoted as they are.
    const text = read(page).replace(/`[^`\n]+\.ts` ("[^"\n]+"(, )?)+/g, '');
    assert.deepEqual(linesWith(text), [], page);
  }
});

/** The string literals of a source file that contain more than one word. */
function textsOf(file: string): string[] {
  const texts: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteral(node) || ts.isTemplateLiteralToken(node)) texts.push(node.text);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(file, read(file), ts.ScriptTarget.Latest));
  return texts.filter((text) => /[a-z] [a-z]/i.test(text));
}

test('messages, help and alerts have none of them either', () => {
  const sources = trackedBelow(ROOT, 'src', 'adapters').filter(
    (file) => file.endsWith('.ts') && !/\.test\.ts$|\/gen\//.test(file),
  );
  assert.ok(sources.length > 100);
  for (const file of sources) assert.deepEqual(textsOf(file).flatMap(linesWith), [], file);
  for (const file of trackedBelow(ROOT, 'deploy').filter((one) => /(?<!\.test)\.ya?ml$/.test(one))) {
    assert.deepEqual(linesWith(read(file)), [], file);
  }
});
