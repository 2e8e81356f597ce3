import type { Readiness } from '../source/readiness.ts';
import { keyOfEntry, type StatusEntry } from '../source/source.ts';
import { type Html, html } from './html.ts';
import { renderProblems } from './problems.ts';
import { renderRow } from './row.ts';
import { RANK, verdictOf } from './verdict.ts';

/** The whole page, complete without JavaScript; with it, rows change as they do in the cluster. */
export function renderPage(entries: readonly StatusEntry[], state: PageState): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>meshcert</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="page.css">
<script src="page.js" defer></script>
<noscript><meta http-equiv="refresh" content="30"></noscript>
</head>
<body data-now="${state.now}">
<header>
<h1>meshcert</h1>
<div id="summary">${renderSummary(entries, state)}</div>
<p id="connection" role="status">State at ${new Date(state.now).toISOString()}</p>
<form id="filter" role="search" hidden>
<label>Filter <input type="search" name="text" autocomplete="off"></label>
<label><input type="checkbox" name="problems"> only problems</label>
<label>Sort by <select name="sort"><option value="problems">problems first</option><option value="expiry">expiry</option><option value="name">name</option></select></label>
<span id="shown" role="status"></span>
</form>
</header>
<section id="problems" aria-label="Problems">${renderProblems(entries)}</section>
<main>
<h2 id="caption">MeshCertificates</h2>
<div class="cells columns" aria-hidden="true">
<span>State</span><span>Name</span><span class="mesh">Mesh</span><span class="id">Identity</span>
<span class="axis"><span>issued</span><span>expires</span></span><span class="expires">Expires</span>
</div>
<ul id="rows" aria-labelledby="caption">
${worstFirst(entries).map((entry) => renderRow(entry, state.now))}
</ul>
${entries.length === 0 && html`<p class="none" id="empty">No MeshCertificate yet. Apply one, or give a file with --config.</p>`}
</main>
<footer>
<p><span class="good">✓</span> valid and used. <span class="warning">!</span> valid, needs attention. <span class="bad">✗</span> no valid certificate.
The bar is the lifetime of the certificate: <span class="good">green</span> until renewal is due, <span class="warning">amber</span> until the emergency window, <span class="bad">red</span> in its last tenth. The line marks the present. Open a row for details.</p>
</footer>
<div id="announcer" class="visually-hidden" aria-live="polite"></div>
</body>
</html>
`.text;
}

/** The same order as in the page's script: level, state, name. */
function worstFirst(entries: readonly StatusEntry[]): StatusEntry[] {
  const sortKey = (entry: StatusEntry) => {
    const { level, word } = verdictOf(entry.status);
    return [String(RANK[level]), word, keyOfEntry(entry)].join(' ');
  };
  return entries
    .map((entry) => ({ entry, key: sortKey(entry) }))
    .sort((a, b) => (a.key < b.key ? -1 : 1))
    .map(({ entry }) => entry);
}

interface PageState extends Readiness {
  readonly version: string;
  /** Epoch ms. */
  readonly now: number;
}

/** The summary: how many of each level, whether this replica leads, and the agent's own problems. */
export function renderSummary(entries: readonly StatusEntry[], state: PageState): Html {
  const count = { good: 0, warning: 0, bad: 0 };
  for (const { status } of entries) count[verdictOf(status).level] += 1;
  const own = state.problems.filter(({ certificate }) => certificate === undefined);
  const role = state.leader === undefined ? '' : state.leader ? ', leading' : ', following';
  return html`<p><span class="good">✓ ${count.good} good</span> <span class="warning">! ${count.warning} ${count.warning === 1 ? 'needs' : 'need'} attention</span> <span class="bad">✗ ${count.bad} not ready</span></p>
<p>meshcert ${state.version}, ${state.ready ? 'ready' : 'starting'}${role}</p>
${own.map(({ code, message }) => html`<p class="next"><code>${code}</code> ${message}</p>`)}`;
}
