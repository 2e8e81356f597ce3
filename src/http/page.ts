import {
  type Condition,
  isTrouble,
  type PublicationStatus,
  type RootStatus,
  type RouteStatus,
  type UpstreamStatus,
} from '../core/status.ts';
import { keyOfEntry, type Readiness, type StatusEntry } from './source.ts';

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

/** Markup that needs no more escaping. */
class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

type HtmlPart = string | number | Html | undefined | false | readonly HtmlPart[];

/** Escapes every value that is not `Html` itself; `undefined` and `false` are dropped, lists are joined. */
export function html(strings: TemplateStringsArray, ...parts: readonly HtmlPart[]): Html {
  return new Html(strings.reduce((text, string, index) => `${text}${render(parts[index - 1])}${string}`));
}

function render(part: HtmlPart): string {
  if (part === undefined || part === false) return '';
  if (part instanceof Html) return part.text;
  if (Array.isArray(part)) return part.map(render).join('');
  return String(part).replace(/[&<>"']/g, (char) => ESCAPES[char] ?? char);
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

const BAR_WIDTH = 200;
const HEIGHT = 14;

/**
 * The leaf's life as a bar: green to the renewal, amber to the emergency band, red to the end, and a mark for now.
 * Drawn only with attributes, since the page allows no inline style.
 */
function validityBar(status: PublicationStatus, now: number): Html {
  const { notBefore, notAfter, renewalTime, emergencyTime } = status;
  if (notBefore === undefined || notAfter === undefined) return html`<span class="none">no certificate</span>`;
  const start = Date.parse(notBefore);
  const end = Date.parse(notAfter);
  const at = (ms: number) => round(Math.min(1, Math.max(0, (ms - start) / Math.max(1, end - start))) * BAR_WIDTH);
  const renewal = at(renewalTime === undefined ? end : Date.parse(renewalTime));
  const emergency = at(emergencyTime === undefined ? end : Date.parse(emergencyTime));
  const passed = Math.round(Math.min(1, Math.max(0, (now - start) / Math.max(1, end - start))) * 100);
  const label = `${passed} % of its life passed; valid until ${notAfter}${renewalTime === undefined ? '' : `, renewal at ${renewalTime}`}`;
  return html`<svg class="bar" viewBox="0 0 ${BAR_WIDTH} ${HEIGHT}" width="${BAR_WIDTH}" height="${HEIGHT}" role="img" aria-label="${label}" data-start="${start}" data-end="${end}">
<title>${label}</title>
<rect class="good" x="0" y="3" width="${renewal}" height="8"/>
<rect class="due" x="${renewal}" y="3" width="${round(Math.max(0, emergency - renewal))}" height="8"/>
<rect class="emergency" x="${emergency}" y="3" width="${round(BAR_WIDTH - emergency)}" height="8"/>
<line class="now" x1="${at(now)}" x2="${at(now)}" y1="0" y2="${HEIGHT}"/>
</svg>`;
}

const round = (value: number): number => Math.round(value * 10) / 10;

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

/** One MeshCertificate: one line that expands to the details. */
export function renderRow(entry: StatusEntry, now: number): Html {
  const { status } = entry;
  const { level, word, symbol, next } = verdictOf(status);
  const expires = status.notAfter === undefined ? '' : Date.parse(status.notAfter);
  return html`<li data-key="${keyOfEntry(entry)}" data-rank="${RANK[level]}" data-state="${word}" data-expires="${expires}" class="${level}">
<details><summary class="cells">
<span class="state"><span aria-hidden="true">${symbol}</span> ${word}</span>
<span class="name">${entry.namespace}/<b>${entry.name}</b></span>
<span class="mesh">${status.mesh}</span>
<span class="id" title="${status.id ?? ''}">${status.id ?? '—'}</span>
<span class="bar">${validityBar(status, now)}</span>
<span class="expires"><span class="visually-hidden">expires </span>${status.notAfter === undefined ? '—' : when(status.notAfter, now)}</span>
</summary>
<div class="grid">
${next.length > 0 && html`<p class="next"><b>What to do:</b> ${next.join(' ')}</p>`}
${details(status, now)}
</div>
</details>
</li>`;
}

function details(status: PublicationStatus, now: number): Html {
  const { held, lastError, nextAttemptTime, lastRotationTime, targets, mappings, conditions, upstreams = [] } = status;
  const times = [
    ['Identity', status.id],
    ['Leaf', status.fingerprint?.slice(0, 16)],
    ['Published', lastRotationTime && when(lastRotationTime, now)],
    ['Valid since', status.notBefore && when(status.notBefore, now)],
    ['Renewal is due', status.renewalTime && when(status.renewalTime, now)],
    ['Emergency window', status.emergencyTime && when(status.emergencyTime, now)],
    ['Expires', status.notAfter && when(status.notAfter, now)],
    ['Rotations', status.rotations],
  ] as const;
  return html`<section><h3>Certificate</h3>
<dl>${times.map(([name, value]) => value !== undefined && html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
${held && html`<p>A newer certificate <code>${held.fingerprint.slice(0, 16)}</code> is held back (${held.reason}) until ${when(held.until, now)}.</p>`}
</section>
<section><h3>Trusted roots</h3>${trustTimeline(status.roots, now)}</section>
<section><h3>Mappings</h3>${list(mappings.map(route), 'No Mapping uses it.')}
${
  targets.length > 0 &&
  html`<h3>Targets</h3>${list(
    targets.map(({ id, context }) => html`<code>${id}</code> as ${context}`),
    '',
  )}`
}
${upstreams.length > 0 && html`<h3>Upstreams</h3>${list(upstreams.map(upstream), '')}`}
</section>
<section><h3>Conditions</h3>${list(
    conditions.map(
      ({ type, status: value, reason, message, lastTransitionTime }) =>
        html`<b>${type}</b> ${value} (${reason}) since ${when(lastTransitionTime, now)}: ${message}`,
    ),
    'None yet.',
  )}</section>
<section><h3>Last events</h3>${happenings(status, now)}
${lastError && html`<h3>Last error</h3><p><code>${lastError.code}</code> since ${when(lastError.firstTime ?? lastError.time, now)}, last seen ${when(lastError.time, now)}${nextAttemptTime !== undefined && html`, next attempt ${when(nextAttemptTime, now)}`}: ${lastError.message}</p>`}
</section>`;
}

function route({ kind, namespace, name, state, message, context }: RouteStatus): Html {
  const ok = state === 'ok';
  return html`<span class="${ok ? 'good' : 'warning'}">${ok ? '✓' : '!'} ${state}</span> ${kind} ${namespace}/${name}${context !== undefined && html` → ${context}`}${message !== undefined && html`: ${message}`}`;
}

function upstream({ address, state, id, message }: UpstreamStatus): Html {
  const ok = state === 'ok';
  return html`<span class="${ok ? 'good' : 'warning'}">${ok ? '✓' : '!'} ${state}</span> ${address}${ok ? html` is <code>${id}</code>` : html`: ${message}`}`;
}

const list = (items: readonly Html[], empty: string): Html =>
  items.length === 0
    ? html`<p class="none">${empty}</p>`
    : html`<ul>${items.map((item) => html`<li>${item}</li>`)}</ul>`;

/** The history in a status, newest first: rotations, failures, and conditions that changed. */
function happenings(status: PublicationStatus, now: number): Html {
  const { conditions, lastRotationTime, lastError, fingerprint, held } = status;
  const all: { readonly time: string; readonly text: Html }[] = conditions.map(
    ({ type, status: value, reason, lastTransitionTime }) => ({
      time: lastTransitionTime,
      text: html`${type} became ${value} (${reason})`,
    }),
  );
  if (lastRotationTime !== undefined) {
    all.push({
      time: lastRotationTime,
      text: html`certificate <code>${fingerprint?.slice(0, 16) ?? ''}</code> published`,
    });
  }
  if (lastError) all.push({ time: lastError.time, text: html`failed: <code>${lastError.code}</code>` });
  if (held?.since !== undefined) {
    all.push({ time: held.since, text: html`certificate <code>${held.fingerprint.slice(0, 16)}</code> held back` });
  }
  const newest = all.toSorted((a, b) => Date.parse(b.time) - Date.parse(a.time));
  return html`<ol class="happenings">${newest.map(({ time, text }) => html`<li>${when(time, now)}: ${text}</li>`)}</ol>`;
}

const TRUST_WIDTH = 240;
const LANE = 16;
const DAY_MS = 86_400_000;

/** The roots in the bundle as lanes on one time axis, which shows overlaps of old and new; then as a list. */
function trustTimeline(roots: readonly RootStatus[], now: number): Html {
  if (roots.length === 0) return html`<p class="none">No roots yet.</p>`;
  const known = roots.flatMap(({ since }) => (since === undefined ? [] : [Date.parse(since)]));
  const from = Math.min(now - DAY_MS, ...known);
  const to = now + Math.max(DAY_MS, now - from);
  const at = (ms: number) => Math.round(Math.min(1, Math.max(0, (ms - from) / (to - from))) * TRUST_WIDTH);
  const label = `${roots.length} trusted root(s) since ${new Date(from).toISOString()}`;
  const lanes = roots.map((root, lane) => {
    const x = at(root.since === undefined ? from : Date.parse(root.since));
    const width = Math.max(2, at(Math.min(to, Date.parse(root.notAfter))) - x);
    return html`<rect class="${root.state}" x="${x}" y="${lane * LANE + 3}" width="${width}" height="10"/>`;
  });
  const height = roots.length * LANE;
  return html`<svg class="trust" viewBox="0 0 ${TRUST_WIDTH} ${height}" width="${TRUST_WIDTH}" height="${height}" role="img" aria-label="${label}">
<title>${label}</title>${lanes}<line class="now" x1="${at(now)}" x2="${at(now)}" y1="0" y2="${height}"/></svg>
<ul class="roots">${roots.map(
    (root) =>
      html`<li><span class="${root.state}">${root.state}</span> <code>${root.fingerprint.slice(0, 16)}</code> ${root.subject}, expires ${when(root.notAfter, now)}${root.since !== undefined && html`, ${root.state === 'retained' ? 'no longer named by the mesh' : 'in the bundle'} since ${when(root.since, now)}`}</li>`,
  )}</ul>`;
}

const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1000],
] as const;

/** `in 5 h`, `3 d ago`, `now`: the largest unit that fits, worded as in the page's script. */
export function relative(ms: number): string {
  const size = Math.abs(ms);
  const unit = UNITS.find(([, length]) => size >= length);
  if (!unit) return 'now';
  const text = `${Math.floor(size / unit[1])} ${unit[0]}`;
  return ms > 0 ? `in ${text}` : `${text} ago`;
}

/** A time as an element that the script updates; its title is the exact time. */
function when(time: string, now: number): Html {
  return html`<time datetime="${time}" title="${time}">${relative(Date.parse(time) - now)}</time>`;
}

type Level = 'good' | 'warning' | 'bad';

/**
 * One word and one symbol for a certificate, so that colour is never the only sign, and what to do when it is not good.
 */
interface RowVerdict {
  readonly level: Level;
  readonly word: string;
  readonly symbol: string;
  readonly next: readonly string[];
}

/** Lower is worse, and is shown first. */
const RANK: Readonly<Record<Level, number>> = { bad: 0, warning: 1, good: 2 };

const SYMBOLS = { good: '✓', warning: '!', bad: '✗' } as const;

export function verdictOf(status: PublicationStatus): RowVerdict {
  const find = (type: string) => status.conditions.find((condition) => condition.type === type);
  const ready = find('Ready');
  const wrong = status.conditions.filter(isTrouble);
  const next = stepsOf(wrong, status.lastError?.message);
  if (ready?.status !== 'True') return { level: 'bad', word: ready?.reason ?? 'Starting', symbol: SYMBOLS.bad, next };
  const degraded = find('Degraded');
  if (degraded?.status === 'True') return { level: 'warning', word: degraded.reason, symbol: SYMBOLS.warning, next };
  if (find('IssuerEnding')?.status === 'True') {
    return { level: 'warning', word: 'IssuerEnds', symbol: SYMBOLS.warning, next };
  }
  if (status.held !== undefined) return { level: 'warning', word: 'LeafHeld', symbol: SYMBOLS.warning, next };
  if (find('UpstreamVerified')?.status === 'False') {
    return { level: 'bad', word: 'UpstreamNotVerified', symbol: SYMBOLS.bad, next };
  }
  if (find('Referenced')?.status === 'False')
    return { level: 'warning', word: 'Unreferenced', symbol: SYMBOLS.warning, next };
  return { level: 'good', word: ready.reason, symbol: SYMBOLS.good, next: [] };
}

/** The messages of conditions that show a fault. Several conditions name the same cause, which is listed once. */
function stepsOf(wrong: readonly Condition[], cause: string | undefined): string[] {
  const steps: string[] = [];
  for (const { type, status, reason, message } of wrong) {
    const isPointer = reason === 'NotPublished' && wrong.length > 1;
    if (status === 'Unknown' || isPointer) continue;
    const isSaid = (text: string) => steps.some((step) => step.includes(text));
    if (isSaid(message) || (cause !== undefined && message.includes(cause) && isSaid(cause))) continue;
    steps.push(/^ERR_\w+: /.test(message) ? message : `${type}: ${message}`);
  }
  return steps;
}

/** Nothing inline, nothing from other origins, no frames, no caching. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy': [
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'Cache-Control': 'no-store',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
};
