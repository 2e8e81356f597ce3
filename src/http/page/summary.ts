import type { Readiness } from '../source/readiness.ts';
import type { StatusEntry } from '../source/source.ts';
import { type Html, html } from './html.ts';
import { verdictOf } from './verdict.ts';

export interface PageState extends Readiness {
  readonly version: string;
  /** Epoch ms. */
  readonly now: number;
}

/** What a glance should tell: how many of what level, whether this replica leads, and the agent's own problems. */
export function renderSummary(entries: readonly StatusEntry[], state: PageState): Html {
  const count = { good: 0, warning: 0, bad: 0 };
  for (const { status } of entries) count[verdictOf(status).level] += 1;
  const own = state.problems.filter(({ certificate }) => certificate === undefined);
  const role = state.leader === undefined ? '' : state.leader ? ', leading' : ', following';
  return html`<p><span class="good">✓ ${count.good} good</span> <span class="warning">! ${count.warning} need attention</span> <span class="bad">✗ ${count.bad} not ready</span></p>
<p>meshcert ${state.version}, ${state.ready ? 'ready' : 'starting'}${role}</p>
${own.map(({ code, message }) => html`<p class="next"><code>${code}</code> ${message}</p>`)}`;
}
