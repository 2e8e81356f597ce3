import { type Condition, isTrouble, type PublicationStatus } from '../../core/status.ts';

export type Level = 'good' | 'warning' | 'bad';

/**
 * One word and one symbol for a certificate, so that colour is never the only sign, and what to do when it is not good.
 */
export interface RowVerdict {
  readonly level: Level;
  readonly word: string;
  readonly symbol: string;
  readonly next: readonly string[];
}

/** Lower is worse, and is shown first. */
export const RANK: Readonly<Record<Level, number>> = { bad: 0, warning: 1, good: 2 };

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
