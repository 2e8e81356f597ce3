import type { Certificate } from '../pki/certificate.ts';
import type { RootTime, RootTimes } from './trust.ts';

/**
 * On the CA Secret, so that a restart or another replica knows it: `-<fp16>=<RFC 3339>` for a root that the mesh no
 * longer names since then, `+…` for one that it named first then; joined by commas. `fp16` is the first half of
 * 16 hex digits of the SHA-256 fingerprint.
 */
export const ROOT_TIMES_ANNOTATION = 'meshcert.dev/root-times';

const SIGNS = { added: '+', retained: '-' } as const;
const short = (fingerprint: string): string => fingerprint.slice(0, 16);

/** Sorted, so that equal times are equal text; empty when there is nothing to tell. */
export function formatRootTimes(times: RootTimes): string {
  return [...times]
    .map(([fingerprint, { state, at }]) => `${SIGNS[state]}${short(fingerprint)}=${rfc3339(at)}`)
    .sort()
    .join(',');
}

/** Entries that cannot be read, or that are about no root of `bundle`, are left out: they cost a longer retention. */
export function parseRootTimes(text: string | undefined, bundle: readonly Certificate[]): Map<string, RootTime> {
  const times = new Map<string, RootTime>();
  for (const entry of (text ?? '').split(',')) {
    const [, sign, id, date = ''] = /^\s*([+-])([0-9a-f]{16})=(\S+)\s*$/.exec(entry) ?? [];
    const root = bundle.find(({ fingerprint }) => short(fingerprint) === id);
    const at = Date.parse(date);
    if (root && !Number.isNaN(at)) times.set(root.fingerprint, { state: sign === '+' ? 'added' : 'retained', at });
  }
  return times;
}

const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z');
