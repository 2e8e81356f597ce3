import { type Identity, leafOf, sameLeaf } from '../mesh/identity.ts';

import type { Certificate } from '../pki/certificate.ts';
import { findPath } from '../pki/chain.ts';
import { SKEW_MS } from './checks.ts';
import { emergencyAt, lifetimeOf } from './schedule.ts';
import { addedAtOf, type RootTimes } from './trust.ts';

/** The probed upstream's answer to the candidate. */
export type ProbeOutcome = 'accepted' | 'refused' | 'unknown';

export interface HoldInput {
  /** Verified together with the bundle that would be published. */
  readonly candidate: Pick<Identity, 'chain'>;
  /** The published identity; undefined when there is none. */
  readonly current: Pick<Identity, 'chain'> | undefined;
  /** The roots in the cluster. */
  readonly publishedRoots: readonly Certificate[];
  /**
   * As decided for the bundle that the candidate would be published with: a root that came back counts as new in it.
   */
  readonly since: RootTimes;
  readonly now: number;
  readonly holdMs: number;
  /** A real upstream's answer to the candidate; `unknown` also when there is none to ask. */
  readonly probe?: ProbeOutcome;
}

export type HoldRelease =
  | 'first'
  | 'same_leaf'
  | 'current_unusable'
  | 'emergency'
  | 'known_root'
  | 'probe_accepted'
  | 'hold_passed';

export type HoldDecision =
  | { readonly hold: false; readonly reason: HoldRelease }
  | {
      readonly hold: true;
      /** `probe_refused` lasts until the emergency band: an upstream is known that would refuse the new leaf. */
      readonly reason: 'new_root' | 'probe_refused';
      /** Epoch ms at which it ends by itself. */
      readonly until: number;
    };

/**
 * Whether a leaf under a root that upstreams may not know yet is held back while the published one still works. Some
 * meshes push a leaf before its root, and in others the sidecars learn roots only on restart.
 */
export function decideHold(input: HoldInput): HoldDecision {
  const { candidate, current, publishedRoots, since, now, holdMs } = input;
  const release = (reason: HoldRelease) => ({ hold: false, reason }) as const;
  if (!current) return release('first');
  if (sameLeaf(candidate, current)) return release('same_leaf');
  const currentPath = pathOf(current, publishedRoots, now);
  if (!currentPath) return release('current_unusable');
  const emergency = emergencyAt(lifetimeOf(currentPath));
  if (now >= emergency) return release('emergency');
  if (input.probe === 'refused') return { hold: true, reason: 'probe_refused', until: emergency };

  /** When upstreams can be assumed to know a root: at once if it was there from the start. */
  const knownAt = ({ fingerprint }: Certificate): number => {
    const mark = since.get(fingerprint);
    const addedAt = mark && addedAtOf(mark);
    return addedAt === undefined ? Number.NEGATIVE_INFINITY : addedAt + holdMs;
  };
  const known = publishedRoots.filter((root) => knownAt(root) <= now);
  const carriers = publishedRoots.filter((root) => pathOf(current, [root], now));
  const under = publishedRoots.filter((root) => pathOf(candidate, [root], now));
  // With several young roots it is unknown by which one an upstream accepts the published leaf: each must carry the
  // next.
  const vouched = carriers.some((root) => known.includes(root))
    ? under.some((root) => known.includes(root) && carriers.includes(root))
    : carriers.every((root) => under.includes(root));
  const old = under.filter((root) => knownAt(root) === Number.NEGATIVE_INFINITY);
  if (vouched || old.length > 0) return release('known_root');
  if (input.probe === 'accepted') return release('probe_accepted');
  const until = under.length > 0 ? Math.min(...under.map(knownAt)) : now + holdMs;
  if (now >= until) return release('hold_passed');
  return { hold: true, reason: 'new_root', until: Math.min(until, emergency) };
}

function pathOf(
  { chain }: Pick<Identity, 'chain'>,
  roots: readonly Certificate[],
  now: number,
): readonly Certificate[] | undefined {
  const found = findPath(leafOf({ chain }), chain.slice(1), roots, now, SKEW_MS);
  return found.ok ? found.path : undefined;
}
