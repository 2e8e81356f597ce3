import { setTimeout as delay } from 'node:timers/promises';

export interface RootRotation {
  /** Between the steps of one rotation. */
  readonly stepMs: number;
  /** From the beginning of one rotation to that of the next. */
  readonly everyMs: number;
}

/** Replaces one root after another until the signal; resolves with the number of complete rotations. */
export async function rotateRoots(
  rotateRoot: (pause: () => Promise<void>) => Promise<void>,
  { stepMs, everyMs }: RootRotation,
  signal: AbortSignal,
): Promise<number> {
  let rotations = 0;
  const pause = () => delay(stepMs, undefined, { signal });
  try {
    while (!signal.aborted) {
      const next = performance.now() + everyMs;
      await rotateRoot(pause);
      rotations += 1;
      await delay(Math.max(0, next - performance.now()), undefined, { signal });
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  return rotations;
}

/** Each root is trusted before it signs, and signs before the old one is removed. */
export async function overlapRoots(
  ca: { overlapRoot(): Promise<'trusted' | 'signing' | 'alone'> },
  pause: () => Promise<void>,
): Promise<void> {
  while ((await ca.overlapRoot()) !== 'alone') await pause();
}
