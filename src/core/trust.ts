import type { Certificate } from '../pki/certificate.ts';
import { LIMITS } from './checks.ts';

/** When the mesh began to name a published root, or ceased to. A root without an entry was there from the start. */
export interface RootTime {
  readonly state: 'added' | 'retained';
  /** Epoch ms, whole seconds. */
  readonly at: number;
}

/** By SHA-256 fingerprint. */
export type RootTimes = ReadonlyMap<string, RootTime>;

export interface TrustInput {
  /** What the mesh names now. */
  readonly named: readonly Certificate[];
  /** What stands in the cluster. */
  readonly published: readonly Certificate[];
  /** As it stands in the cluster beside `published`. */
  readonly since: RootTimes;
  readonly now: number;
  readonly retainMs: number;
  /** A root stays at least as long as a leaf under it may live. */
  readonly leafLifetimeMs: number;
  /** Roots under which the published leaf verifies: they stay whatever the time. */
  readonly inUse?: readonly Certificate[];
  /** Most roots in a bundle; the oldest retained ones go first. */
  readonly cap?: number;
}

export interface TrustDecision {
  /** Published roots in their published order, then new ones in the mesh's order: an order alone is no change. */
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  readonly dropped: readonly { readonly certificate: Certificate; readonly reason: 'expired' | 'retained' | 'cap' }[];
  /** Epoch ms at which the same input gives another answer. */
  readonly nextChangeAt: number | undefined;
}

const SECOND = 1000;
/** Up, so that a root is never dropped early by rounding. */
const nextSecond = (ms: number): number => Math.ceil(ms / SECOND) * SECOND;
const thisSecond = (ms: number): number => Math.floor(ms / SECOND) * SECOND;

/**
 * The bundle to publish: the roots that the mesh names and those that it named a while ago, since upstreams may still
 * show leaves under them. Never empty while the mesh names a root that is not expired.
 */
export function decideTrust(input: TrustInput): TrustDecision {
  const { published, now } = input;
  const named = new Set(input.named.map(({ fingerprint }) => fingerprint));
  const inUse = new Set(input.inUse?.map(({ fingerprint }) => fingerprint));
  const retain = Math.max(input.retainMs, input.leafLifetimeMs);
  const known = new Set(published.map(({ fingerprint }) => fingerprint));
  const since = new Map<string, RootTime>();
  const dropped: { certificate: Certificate; reason: 'expired' | 'retained' | 'cap' }[] = [];

  const droppedAt = (root: Certificate): number => {
    const mark = input.since.get(root.fingerprint);
    // A mark from further ahead than the retention itself was made by a clock that was wrong.
    return mark?.state === 'retained' && mark.at <= now + retain ? mark.at : nextSecond(now);
  };
  const stays = (root: Certificate): boolean => {
    const reason =
      now >= root.notAfter
        ? 'expired'
        : named.has(root.fingerprint) || inUse.has(root.fingerprint) || now < droppedAt(root) + retain
          ? undefined
          : 'retained';
    if (reason) dropped.push({ certificate: root, reason });
    return reason === undefined;
  };

  let bundle = unique([...published, ...input.named]).filter(stays);
  for (const root of bundle) {
    const { fingerprint } = root;
    const mark = input.since.get(fingerprint);
    if (!named.has(fingerprint)) since.set(fingerprint, { state: 'retained', at: droppedAt(root) });
    else if (mark?.state === 'added') since.set(fingerprint, mark);
    else if (published.length > 0 && (!known.has(fingerprint) || mark?.state === 'retained')) {
      since.set(fingerprint, { state: 'added', at: thisSecond(now) });
    }
  }

  const excess = bundle.length - (input.cap ?? LIMITS.bundle);
  if (excess > 0) {
    const oldestFirst = bundle
      .filter(({ fingerprint }) => !named.has(fingerprint) && !inUse.has(fingerprint))
      .sort((a, b) => droppedAt(a) - droppedAt(b));
    const surplus = new Set(oldestFirst.slice(0, excess));
    bundle = bundle.filter((root) => !surplus.has(root));
    for (const certificate of surplus) {
      dropped.push({ certificate, reason: 'cap' });
      since.delete(certificate.fingerprint);
    }
  }

  const changes = bundle.flatMap((root) => {
    const mark = since.get(root.fingerprint);
    const released = mark?.state === 'retained' && !inUse.has(root.fingerprint) ? [mark.at + retain] : [];
    return [root.notAfter, ...released];
  });
  return { bundle, since, dropped, nextChangeAt: changes.length > 0 ? Math.min(...changes) : undefined };
}

/** Of a published bundle, the roots that the mesh named when it was written. */
export const namedRoots = (bundle: readonly Certificate[], since: RootTimes): readonly Certificate[] =>
  bundle.filter(({ fingerprint }) => since.get(fingerprint)?.state !== 'retained');

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((one) => [one.fingerprint, one])).values()];
}
