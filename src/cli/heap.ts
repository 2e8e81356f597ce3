import { setFlagsFromString } from 'node:v8';

/**
 * Keeps the heap of a long-lived process close to what lives in it. By default V8 lets the young generation grow to
 * 32 MiB at the first burst and never gives it back, and lets the old one double before it collects.
 */
export function keepHeapSmall(): void {
  for (const flag of (process.env.HF ?? '').split(' ')) setFlagsFromString(flag);
}
