import { type Condition, isProgress, type PublicationStatus } from '../status.ts';

type Said = Omit<Condition, 'lastTransitionTime'>;

export interface Progress {
  readonly before: PublicationStatus | undefined;
  /** The generation that the conditions are about; a file has none. */
  readonly observedGeneration?: number;
  readonly isRefused: boolean;
  /** The desired objects are published, or nothing is to be done. */
  readonly isDone: boolean;
  /** A valid pair is published, whether or not it is the desired one. */
  readonly hasPublished: boolean;
}

/**
 * Stalled while a spec is refused, Reconciling while a spec is not published yet. A rotation is no progress that anybody
 * waits for: once a spec was published, Reconciling comes back only with another spec, or when nothing is published.
 */
export function progressOf(
  conditions: readonly Said[],
  { before, observedGeneration, isRefused, isDone, hasPublished }: Progress,
): Said[] {
  const as = (source: Condition['type'], type: Condition['type']): Said[] =>
    conditions.filter((one) => one.type === source).map((one) => ({ ...one, type, status: 'True' }));
  if (isRefused) return as('Degraded', 'Stalled');
  if (isDone) return [];
  const wasDone = before?.observedGeneration === observedGeneration && !before?.conditions.some(isProgress);
  return wasDone && hasPublished ? [] : as('Published', 'Reconciling');
}

/** Conditions of progress are in a status only while they are True. */
export const withoutEnded = (conditions: readonly Condition[], progress: readonly Said[]): Condition[] =>
  conditions.filter((one) => !isProgress(one) || progress.some(({ type }) => type === one.type));
