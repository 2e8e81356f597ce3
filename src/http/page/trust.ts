import type { RootStatus } from '../../core/status.ts';
import { type Html, html } from './html.ts';
import { when } from './when.ts';

const WIDTH = 240;
const LANE = 16;
const DAY_MS = 86_400_000;

/** The roots in the bundle as lanes on one axis of time, so that an overlap of old and new is seen; then as a list. */
export function trustTimeline(roots: readonly RootStatus[], now: number): Html {
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
