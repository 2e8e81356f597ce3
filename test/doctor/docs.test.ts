import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { LOOKS } from '../../src/doctor/looks.ts';

const page = readFileSync(new URL('../../docs/doctor.md', import.meta.url), 'utf8');

test('docs/doctor.md has a section for each check, with its title, and no other section', () => {
  const headings = [...page.matchAll(/^### (MC\d{4}) (.*)$/gm)].map(([, code, title]) => `${code} ${title}`);
  assert.deepEqual(headings.sort(), LOOKS.map(({ code, title }) => `${code} ${title}`).sort());
});

test('each section says what to do', () => {
  for (const section of page.split(/^### /m).slice(1)) assert.match(section, /\*\*Fix:\*\* \S/, section.split('\n')[0]);
});
