import assert from 'node:assert/strict';
import { test } from 'node:test';
import { changelog, sectionOf } from './changelog.ts';

const TEXT = `# Changelog

## Unreleased

## 1.2.0 - 2026-01-02

### Added
- A thing: it has \`parts\`. It has more.

### Fixed
- Another without an end

## [1.1.0] - 2025-01-02

### Security
- An older one.
`;

test('the section of a version ends where the next begins', () => {
  const { text, changes } = sectionOf(TEXT, '1.2.0') ?? {};
  assert.equal(text, '### Added\n- A thing: it has `parts`. It has more.\n\n### Fixed\n- Another without an end\n');
  assert.deepEqual(changes, [
    { kind: 'added', description: 'A thing: it has `parts`.' },
    { kind: 'fixed', description: 'Another without an end' },
  ]);
  assert.deepEqual(sectionOf(TEXT, '1.1.0')?.changes, [{ kind: 'security', description: 'An older one.' }]);
  assert.deepEqual(sectionOf(TEXT, 'Unreleased')?.changes, []);
  assert.equal(sectionOf(TEXT, '1.2'), undefined);
});

test('each entry of our changelog is of a kind that Artifact Hub knows', async () => {
  const kinds = new Set(sectionOf(await changelog(), 'Unreleased')?.changes.map(({ kind }) => kind));
  assert.ok(kinds.size > 0);
  for (const kind of kinds) {
    assert.ok(['added', 'changed', 'deprecated', 'removed', 'fixed', 'security'].includes(kind), kind);
  }
});
