import type { MappingStatus, PublicationStatus } from '../../core/status.ts';
import { keyOfEntry, type StatusEntry } from '../source/source.ts';
import { validityBar } from './bar.ts';
import { happenings } from './happenings.ts';
import { type Html, html } from './html.ts';
import { trustTimeline } from './trust.ts';
import { RANK, verdictOf } from './verdict.ts';
import { when } from './when.ts';

/** One MeshCertificate: one line that opens to the details. */
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
  const { held, lastError, nextAttemptTime, lastRotationTime, targets, mappings, conditions } = status;
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
<section><h3>Mappings</h3>${list(mappings.map(mapping), 'No Mapping uses it.')}
${
  targets.length > 0 &&
  html`<h3>Targets</h3>${list(
    targets.map(({ id, context }) => html`<code>${id}</code> as ${context}`),
    '',
  )}`
}
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

function mapping({ kind, namespace, name, state, message, context }: MappingStatus): Html {
  const ok = state === 'ok';
  return html`<span class="${ok ? 'good' : 'warning'}">${ok ? '✓' : '!'} ${state}</span> ${kind} ${namespace}/${name}${context !== undefined && html` → ${context}`}${message !== undefined && html`: ${message}`}`;
}

const list = (items: readonly Html[], empty: string): Html =>
  items.length === 0
    ? html`<p class="none">${empty}</p>`
    : html`<ul>${items.map((item) => html`<li>${item}</li>`)}</ul>`;
