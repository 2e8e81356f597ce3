import type { PublicationStatus, RootStatus, RouteStatus, UpstreamStatus } from '../../core/status.ts';
import { keyOfEntry, type StatusEntry } from '../source/source.ts';
import { validityBar } from './bar.ts';
import { type Html, html } from './html.ts';

import { RANK, verdictOf } from './verdict.ts';

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

const WIDTH = 240;
const LANE = 16;
const DAY_MS = 86_400_000;

/** The roots in the bundle as lanes on one time axis, which shows overlaps of old and new; then as a list. */
function trustTimeline(roots: readonly RootStatus[], now: number): Html {
  if (roots.length === 0) return html`<p class="none">No roots yet.</p>`;
  const known = roots.flatMap(({ since }) => (since === undefined ? [] : [Date.parse(since)]));
  const from = Math.min(now - DAY_MS, ...known);
  const to = now + Math.max(DAY_MS, now - from);
  const at = (ms: number) => Math.round(Math.min(1, Math.max(0, (ms - from) / (to - from))) * WIDTH);
  const label = `${roots.length} trusted root(s) since ${new Date(from).toISOString()}`;
  const lanes = roots.map((root, lane) => {
    const x = at(root.since === undefined ? from : Date.parse(root.since));
    const width = Math.max(2, at(Math.min(to, Date.parse(root.notAfter))) - x);
    return html`<rect class="${root.state}" x="${x}" y="${lane * LANE + 3}" width="${width}" height="10"/>`;
  });
  const height = roots.length * LANE;
  return html`<svg class="trust" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${label}">
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
