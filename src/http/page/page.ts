import type { StatusEntry } from '../source.ts';
import { html } from './html.ts';
import { renderRow } from './row.ts';
import { type PageState, renderSummary } from './summary.ts';

const COLUMNS = ['Certificate', 'Mesh', 'State', 'Identity', 'Validity', 'Expires', 'Renewal', 'Rotations'];

/** The whole page, complete without JavaScript; with it, rows change as they do in the cluster. */
export function renderPage(entries: readonly StatusEntry[], state: PageState): string {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>meshcert</title>
<link rel="stylesheet" href="page.css">
<script src="page.js" defer></script>
<noscript><meta http-equiv="refresh" content="30"></noscript>
</head>
<body data-now="${state.now}">
<header>
<h1>meshcert</h1>
<div id="summary">${renderSummary(entries, state)}</div>
<p id="connection" role="status">A picture of ${new Date(state.now).toISOString()}</p>
<form id="filter" role="search" hidden>
<label>Filter <input type="search" name="text" autocomplete="off"></label>
<label><input type="checkbox" name="problems"> only problems</label>
<span id="shown" role="status"></span>
</form>
</header>
<main>
<div class="scroll" tabindex="0" role="region" aria-labelledby="caption">
<table>
<caption id="caption">MeshCertificates</caption>
<thead><tr>${COLUMNS.map((column) => html`<th scope="col">${column}</th>`)}</tr></thead>
${entries.map((entry) => renderRow(entry, state.now))}
</table>
</div>
${entries.length === 0 && html`<p class="none" id="empty">No MeshCertificate yet. Apply one, or give a file with --config.</p>`}
</main>
<div id="announcer" class="visually-hidden" aria-live="polite"></div>
</body>
</html>
`.text;
}
