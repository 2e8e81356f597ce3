import { after } from 'node:test';
import { sandboxConsul } from '../contract/consul-sandbox.ts';
import { consulSuite } from '../contract/consul-suite.ts';
import { realConsul } from './consul-real.ts';

const outcomes = new Map<string, Map<string, string>>();

for (const kind of [sandboxConsul, realConsul]) {
  consulSuite(kind, (title, outcome) => {
    const row = outcomes.get(title) ?? new Map<string, string>();
    outcomes.set(title, row.set(kind.name, outcome));
  });
}

after(() => {
  const rows = [...outcomes].map(
    ([title, row]) => `| ${title} | ${row.get('sandbox') ?? '-'} | ${row.get('real') ?? '-'} |`,
  );
  console.log(['', '| case | sandbox | real |', '|---|---|---|', ...rows, ''].join('\n'));
});
