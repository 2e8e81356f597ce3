import type { PublicationStatus } from '../../core/status.ts';
import { type Html, html } from './html.ts';

const WIDTH = 200;
const HEIGHT = 14;

/**
 * The leaf's life as a bar: green to the renewal, amber to the emergency band, red to the end, and a mark for now.
 * Drawn only with attributes, since the page allows no inline style.
 */
export function validityBar(status: PublicationStatus, now: number): Html {
  const { notBefore, notAfter, renewalTime, emergencyTime } = status;
  if (notBefore === undefined || notAfter === undefined) return html`<span class="none">no certificate</span>`;
  const start = Date.parse(notBefore);
  const end = Date.parse(notAfter);
  const at = (ms: number) => round(Math.min(1, Math.max(0, (ms - start) / Math.max(1, end - start))) * WIDTH);
  const renewal = at(renewalTime === undefined ? end : Date.parse(renewalTime));
  const emergency = at(emergencyTime === undefined ? end : Date.parse(emergencyTime));
  const passed = Math.round(Math.min(1, Math.max(0, (now - start) / Math.max(1, end - start))) * 100);
  const label = `${passed} % of its life passed; valid until ${notAfter}${renewalTime === undefined ? '' : `, renewal at ${renewalTime}`}`;
  return html`<svg class="bar" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="${label}" data-start="${start}" data-end="${end}">
<title>${label}</title>
<rect class="good" x="0" y="3" width="${renewal}" height="8"/>
<rect class="due" x="${renewal}" y="3" width="${round(Math.max(0, emergency - renewal))}" height="8"/>
<rect class="emergency" x="${emergency}" y="3" width="${round(WIDTH - emergency)}" height="8"/>
<line class="now" x1="${at(now)}" x2="${at(now)}" y1="0" y2="${HEIGHT}"/>
</svg>`;
}

const round = (value: number): number => Math.round(value * 10) / 10;
