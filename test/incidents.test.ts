import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ROOT } from '../scripts/tree.ts';

const rows = readFileSync(join(ROOT, 'docs/contributing/incidents.md'), 'utf8')
  .split('\n')
  .filter((line) => line.startsWith('| ') && !line.startsWith('| class |'));

describe('docs/contributing/incidents.md', () => {
  for (const row of rows) {
    const [, , incident = '', tests = ''] = row.split('|');
    it(`names tests that exist for ${incident.trim()}`, () => {
      const named = [...tests.matchAll(/`([^`]+\.ts)` ((?:"[^"]+"(?:, )?)+)/g)];
      assert.ok(named.length > 0, 'a row names at least one test');
      for (const [, file = '', titles = ''] of named) {
        assert.ok(existsSync(join(ROOT, file)), file);
        const source = readFileSync(join(ROOT, file), 'utf8');
        for (const [, title = ''] of titles.matchAll(/"([^"]+)"/g)) {
          const stands = ["'", '"', '`'].some((quote) => source.includes(`${quote}${title}${quote}`));
          assert.ok(stands, `${file} has no test called "${title}"`);
        }
      }
    });
  }

  it('has no row of another form', () => {
    assert.ok(rows.length > 30);
    for (const row of rows) assert.equal(row.split('|').length, 5, row);
  });
});
