import type { PublicationStatus } from '../../core/status.ts';
import { type Html, html } from './html.ts';
import { when } from './when.ts';

/** What a status remembers of what happened, newest first: rotations, failures, and conditions that changed. */
export function happenings(status: PublicationStatus, now: number): Html {
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
