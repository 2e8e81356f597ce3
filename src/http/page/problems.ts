import { keyOfEntry, type StatusEntry } from '../source/source.ts';
import { type Html, html } from './html.ts';
import { RANK, type RowVerdict, verdictOf } from './verdict.ts';

/** Names that one group lists before it counts the rest. */
const MOST_NAMES = 8;

interface Group {
  readonly verdict: RowVerdict;
  readonly code: string | undefined;
  readonly names: string[];
}

/** The problems, worst first: certificates with the same cause are one group, with its advice once. */
export function renderProblems(entries: readonly StatusEntry[]): Html {
  const groups = new Map<string, Group>();
  for (const entry of entries) {
    const verdict = verdictOf(entry.status);
    if (verdict.level === 'good') continue;
    const code = entry.status.lastError?.code;
    const key = JSON.stringify([verdict.level, verdict.word, code]);
    const group = groups.get(key) ?? { verdict, code, names: [] };
    group.names.push(keyOfEntry(entry));
    groups.set(key, group);
  }
  if (groups.size === 0) return html``;
  const worst = [...groups.values()].sort(
    (a, b) => RANK[a.verdict.level] - RANK[b.verdict.level] || b.names.length - a.names.length,
  );
  return html`<h2>Problems</h2>${worst.map(renderGroup)}`;
}

function renderGroup({ verdict, code, names }: Group): Html {
  const { level, word, symbol, next } = verdict;
  const count = names.length === 1 ? '1 certificate' : `${names.length} certificates`;
  const more = names.length > MOST_NAMES && ` and ${names.length - MOST_NAMES} more`;
  return html`<article class="${level}"><h3><span aria-hidden="true">${symbol}</span> ${word}${code !== undefined && html` <code>${code}</code>`}: ${count}</h3>
${next.length > 0 && html`<p class="next"><b>What to do:</b> ${names.length > 1 && `${names[0]}: `}${next.join(' ')}</p>`}
<p>${names.slice(0, MOST_NAMES).join(', ')}${more}</p></article>`;
}
