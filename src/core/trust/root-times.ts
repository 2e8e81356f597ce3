import type { Certificate } from '../../pki/certificate.ts';
import type { RootTime, RootTimes } from './trust.ts';

/**
 * On the CA Secret, so that it survives a restart and other replicas can read it: `+<fp16>=<RFC 3339>` for a root that
 * the mesh first named at that time, `-<fp16>=<RFC 3339>` for one that it has not named since then, followed by `/<RFC
 * 3339>` if it had first been named at a known time. Joined by commas; `fp16` is the first 16 hex digits of the
 * SHA-256.
 */
export const ROOT_TIMES_ANNOTATION = 'meshcert.dev/root-times';

const SIGNS = { added: '+', retained: '-' } as const;
const NO_TIMES: RootTimes = new Map();
const short = (fingerprint: string): string => fingerprint.slice(0, 16);

/** Sorted, so that equal times give equal text; empty when there are none. */
export function formatRootTimes(times: RootTimes): string {
  return [...times]
    .map(([fingerprint, { state, at, addedAt }]) => {
      const before = addedAt === undefined ? '' : `/${rfc3339(addedAt)}`;
      return `${SIGNS[state]}${short(fingerprint)}=${rfc3339(at)}${before}`;
    })
    .sort()
    .join(',');
}

/** Entries that cannot be read, or that match no root of `bundle`, are ignored: the cost is a longer retention. */
export function parseRootTimes(text: string | undefined, bundle: readonly Certificate[]): RootTimes {
  if (text === undefined) return NO_TIMES;
  const times = new Map<string, RootTime>();
  for (const entry of text.split(',')) {
    const [, sign, id, date = '', before] = /^\s*([+-])([0-9a-f]{16})=([^/\s]+)(?:\/(\S+))?\s*$/.exec(entry) ?? [];
    const root = bundle.find(({ fingerprint }) => short(fingerprint) === id);
    const at = Date.parse(date);
    const addedAt = before === undefined ? undefined : Date.parse(before);
    if (!root || Number.isNaN(at) || Number.isNaN(addedAt)) continue;
    if (sign === '+') times.set(root.fingerprint, { state: 'added', at });
    else times.set(root.fingerprint, { state: 'retained', at, ...(addedAt === undefined ? {} : { addedAt }) });
  }
  return times;
}

const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace('.000Z', 'Z');
