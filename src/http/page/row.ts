import type { MappingStatus, PublicationStatus } from '../../core/status.ts';
import { keyOfEntry, type StatusEntry } from '../source.ts';
import { validityBar } from './bar.ts';
import { happenings } from './happenings.ts';
import { type Html, html } from './html.ts';
import { trustTimeline } from './trust.ts';
import { verdictOf } from './verdict.ts';
import { when } from './when.ts';

/** One MeshCertificate: a `tbody` with a line of facts and a line that opens to the rest. */
export function renderRow(entry: StatusEntry, now: number): Html {
  const { status } = entry;
  const { level, word, symbol, next } = verdictOf(status);
  return html`<tbody data-key="${keyOfEntry(entry)}" class="${level}">
<tr>
<th scope="row">${entry.namespace}/<b>${entry.name}</b></th>
<td>${status.mesh}</td>
<td class="state"><span aria-hidden="true">${symbol}</span> ${word}</td>
<td class="id">${status.id ?? '—'}</td>
<td>${validityBar(status, now)}</td>
<td>${status.notAfter === undefined ? '—' : when(status.notAfter, now)}</td>
<td>${status.renewalTime === undefined ? '—' : when(status.renewalTime, now)}</td>
<td class="number">${status.rotations}</td>
</tr>
<tr class="more"><td colspan="8">
${next.length > 0 && html`<p class="next"><b>What to do:</b> ${next.join(' ')}</p>`}
<details><summary>Details<span class="visually-hidden"> of ${entry.namespace}/${entry.name}</span></summary>
${details(status, now)}
</details>
</td></tr>
</tbody>`;
}

function details(status: PublicationStatus, now: number): Html {
  const { held, lastError, nextAttemptTime, lastRotationTime, targets, mappings, conditions } = status;
  return html`<div class="grid">
<section><h3>Chain and trust</h3>
${status.fingerprint !== undefined && html`<p>Leaf <code>${status.fingerprint.slice(0, 16)}</code>${lastRotationTime !== undefined && html`, published ${when(lastRotationTime, now)}`}</p>`}
${trustTimeline(status.roots, now)}
${held && html`<p>Held back: <code>${held.fingerprint.slice(0, 16)}</code> (${held.reason}) until ${when(held.until, now)}</p>`}
</section>
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
  )}
<h3>Last events</h3>${happenings(status, now)}
${lastError && html`<h3>Last error</h3><p><code>${lastError.code}</code> since ${when(lastError.firstTime ?? lastError.time, now)}, last seen ${when(lastError.time, now)}${nextAttemptTime !== undefined && html`, next attempt ${when(nextAttemptTime, now)}`}: ${lastError.message}</p>`}
</section>
</div>`;
}

function mapping({ kind, namespace, name, state, message, context }: MappingStatus): Html {
  const ok = state === 'ok';
  return html`<span class="${ok ? 'good' : 'warning'}">${ok ? '✓' : '!'} ${state}</span> ${kind} ${namespace}/${name}${context !== undefined && html` → ${context}`}${message !== undefined && html`: ${message}`}`;
}

const list = (items: readonly Html[], empty: string): Html =>
  items.length === 0
    ? html`<p class="none">${empty}</p>`
    : html`<ul>${items.map((item) => html`<li>${item}</li>`)}</ul>`;
