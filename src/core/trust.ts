import type { Certificate } from '../pki/certificate.ts';
import { findPath } from '../pki/chain.ts';
import { LIMITS, SKEW_MS } from './checks.ts';

/** When the mesh began to name a published root, or ceased to. A root without an entry was there from the start. */
export interface RootTime {
  readonly state: 'added' | 'retained';
  /** Epoch ms, whole seconds. */
  readonly at: number;
  /** Of a retained root: when the mesh had begun to name it, unless it was there from the start. */
  readonly addedAt?: number;
}

/** By SHA-256 fingerprint. */
export type RootTimes = ReadonlyMap<string, RootTime>;

/** When the mesh began to name the root; undefined for one that was there from the start. */
export const addedAtOf = (time: RootTime): number | undefined => (time.state === 'added' ? time.at : time.addedAt);

export interface TrustInput {
  /** What the mesh names now. Naming nothing is a fault of the mesh, and no news. */
  readonly named: readonly Certificate[];
  /** What stands in the cluster. */
  readonly published: readonly Certificate[];
  /** As it stands in the cluster beside `published`. */
  readonly since: RootTimes;
  readonly now: number;
  readonly retainMs: number;
  /** A root stays at least as long as a leaf under it may live. */
  readonly leafLifetimeMs: number;
  /** What stands, leaf first: the root that it cannot be verified without stays, whatever time and cap say. */
  readonly chain?: readonly Certificate[];
  /** Most roots in a bundle; the oldest retained ones go first. */
  readonly cap?: number;
}

export interface TrustDecision {
  /** Published roots in their published order, then new ones in the mesh's order: an order alone is no change. */
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  readonly dropped: readonly Dropped[];
  /** Epoch ms at which the same input gives another answer. */
  readonly nextChangeAt: number | undefined;
}

export interface Dropped {
  readonly certificate: Certificate;
  readonly reason: 'expired' | 'retained' | 'cap';
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
  const news = input.named.length > 0 ? input.named : namedRoots(published, input.since);
  const named = new Set(news.map(({ fingerprint }) => fingerprint));
  const retain = Math.max(input.retainMs, input.leafLifetimeMs);
  const known = new Set(published.map(({ fingerprint }) => fingerprint));
  let dropped: Dropped[] = [];

  const droppedAt = (root: Certificate): number => {
    const mark = input.since.get(root.fingerprint);
    // A mark from further ahead than the retention itself was made by a clock that was wrong.
    return mark?.state === 'retained' && mark.at <= now + retain ? mark.at : nextSecond(now);
  };
  const stays = (root: Certificate): boolean => named.has(root.fingerprint) || now < droppedAt(root) + retain;
  const drop = (certificate: Certificate, reason: Dropped['reason']) => dropped.push({ certificate, reason });

  const all = unique([...published, ...news]).filter((root) => now < root.notAfter || !drop(root, 'expired'));
  let bundle = all.filter((root) => stays(root) || !drop(root, 'retained'));
  const surplus = bundle.length - (input.cap ?? LIMITS.bundle);
  if (surplus > 0) {
    const oldestFirst = bundle
      .filter(({ fingerprint }) => !named.has(fingerprint))
      .sort((a, b) => droppedAt(a) - droppedAt(b));
    const gone = new Set(oldestFirst.slice(0, surplus));
    bundle = bundle.filter((root) => !gone.has(root) || !drop(root, 'cap'));
  }
  const needed = indispensable(input.chain, bundle, all, now);
  if (needed) {
    bundle = all.filter((root) => root === needed || bundle.includes(root));
    dropped = dropped.filter(({ certificate }) => certificate !== needed);
  }

  const since = new Map<string, RootTime>();
  const changes: number[] = [];
  for (const root of bundle) {
    const { fingerprint } = root;
    const mark = input.since.get(fingerprint);
    changes.push(root.notAfter);
    if (!named.has(fingerprint)) {
      const addedAt = mark && addedAtOf(mark);
      since.set(fingerprint, { state: 'retained', at: droppedAt(root), ...(addedAt === undefined ? {} : { addedAt }) });
      if (root !== needed) changes.push(droppedAt(root) + retain);
    } else if (mark?.state === 'added') since.set(fingerprint, mark);
    else if (published.length > 0 && (!known.has(fingerprint) || mark?.state === 'retained')) {
      since.set(fingerprint, { state: 'added', at: thisSecond(now) });
    }
  }
  return { bundle, since, dropped, nextChangeAt: changes.length > 0 ? Math.min(...changes) : undefined };
}

/** The one root among `all` without which the chain would not verify; undefined where `bundle` is enough. */
function indispensable(
  [leaf, ...links]: readonly Certificate[] = [],
  bundle: readonly Certificate[],
  all: readonly Certificate[],
  now: number,
): Certificate | undefined {
  if (!leaf || bundle.length === all.length || findPath(leaf, links, bundle, now, SKEW_MS).ok) return undefined;
  const found = findPath(leaf, links, all, now, SKEW_MS);
  return found.ok ? found.path.at(-1) : undefined;
}

/** Of a published bundle, the roots that the mesh named when it was written. */
export const namedRoots = (bundle: readonly Certificate[], since: RootTimes): readonly Certificate[] => {
  const isNamed = ({ fingerprint }: Certificate) => since.get(fingerprint)?.state !== 'retained';
  // Mostly all are, and the bundle itself is shared by all publications of a mesh.
  return bundle.every(isNamed) ? bundle : bundle.filter(isNamed);
};

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((one) => [one.fingerprint, one])).values()];
}
