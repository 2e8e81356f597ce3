import type { Certificate } from '../pki/certificate.ts';
import { anchorOf, authorityOf, findPath } from '../pki/chain.ts';
import { LIMITS, SKEW_MS } from './checks.ts';
import { lifetimeOf } from './schedule.ts';

/**
 * When the mesh began to name a published root, or stopped naming it. A root without an entry was there from the start.
 */
interface RootTime {
  readonly state: 'added' | 'retained';
  /** Epoch ms, whole seconds. */
  readonly at: number;
  /** Of a retained root: when the mesh had begun to name it; absent if it was there from the start. */
  readonly addedAt?: number;
}

/** By SHA-256 fingerprint. */
export type RootTimes = ReadonlyMap<string, RootTime>;

/** When the mesh began to name the root; undefined for one that was there from the start. */
export const addedAtOf = (time: RootTime): number | undefined => (time.state === 'added' ? time.at : time.addedAt);

export interface TrustInput {
  /** The roots that the mesh names now. An empty list is a fault of the mesh and changes nothing. */
  readonly named: readonly Certificate[];
  /** The bundle in the cluster. */
  readonly published: readonly Certificate[];
  /** The annotation on the published bundle. */
  readonly since: RootTimes;
  readonly now: number;
  readonly retainMs: number;
  /** SHA-256 fingerprints of roots that are no longer trusted, whatever the mesh names. */
  readonly withdrawn: readonly string[];
  /** A root stays at least as long as a leaf under it may live. */
  readonly leafLifetimeMs: number;
  /** Chains in use, leaf first: a root without which one of them cannot be verified stays until it expires. */
  readonly chains?: readonly (readonly Certificate[])[];
  readonly limits?: { readonly bundle: number; readonly bundleBytes: number };
}

export interface TrustDecision {
  /** Newest first; see `orderRoots`. */
  readonly bundle: readonly Certificate[];
  readonly since: RootTimes;
  readonly dropped: readonly Dropped[];
  /** The roots that are not in the bundle because they are withdrawn. */
  readonly withdrawn: readonly Certificate[];
  /** Why the roots that the mesh names are not in the bundle, or the withdrawn ones still are. */
  readonly problem: { readonly code: 'ERR_TRUST_LIMIT' | 'ERR_TRUST_WITHDRAWN'; readonly message: string } | undefined;
  /** Epoch ms at which the same input gives another answer. */
  readonly nextChangeAt: number | undefined;
}

interface Dropped {
  readonly certificate: Certificate;
  /** `replaced`: another root has the same subject and key and takes its place. */
  readonly reason: 'expired' | 'retained' | 'replaced' | 'withdrawn';
}

const SECOND = 1000;
/** Rounded up, so that a root is never dropped early. */
const nextSecond = (ms: number): number => Math.ceil(ms / SECOND) * SECOND;
const thisSecond = (ms: number): number => Math.floor(ms / SECOND) * SECOND;

/**
 * The bundle to publish: the roots that the mesh names, and those that it named until recently, since upstreams may
 * still present leaves under them. Of several roots that are the same trust anchor the bundle has one: Envoy takes the
 * first that it finds, and refuses every handshake if that one has expired. The bundle is never empty while the mesh
 * names a root that has not expired, except when the first bundle would exceed the limit, or have only withdrawn
 * roots. A published bundle in which every root is withdrawn stays: without roots, gateways verify nothing.
 */
export function decideTrust(input: TrustInput): TrustDecision {
  const out = withdrawnIn(input);
  if (out.length === 0) return decideWithin(input);
  const left = (roots: readonly Certificate[]) => roots.filter((root) => !out.includes(root.fingerprint));
  const [named, published] = [left(input.named), left(input.published)];
  const decision = named.length + published.length === 0 ? NOTHING : decideWithin({ ...input, named, published });
  const withdrawn = unique([...input.published, ...input.named]).filter((root) => out.includes(root.fingerprint));
  if (decision.bundle.length > 0) {
    const dropped = withdrawn.filter((root) =>
      input.published.some(({ fingerprint }) => fingerprint === root.fingerprint),
    );
    const reasons = dropped.map((certificate) => ({ certificate, reason: 'withdrawn' as const }));
    return { ...decision, withdrawn, dropped: [...decision.dropped, ...reasons] };
  }
  const message = `every root that the mesh names is in spec.trust.withdrawn. ${input.published.length > 0 ? 'The published bundle stays, because without roots a gateway verifies nothing' : 'Nothing is published'}. Give the mesh another root, or remove the fingerprint`;
  const unchanged = input.published.length > 0 ? decideWithin({ ...input, named: [] }) : NOTHING;
  return { ...unchanged, problem: { code: 'ERR_TRUST_WITHDRAWN', message } };
}

/** The fingerprints of the withdrawn roots, and of those at hand that have the key of one. */
function withdrawnIn({ withdrawn, named, published }: TrustInput): readonly string[] {
  if (withdrawn.length === 0) return withdrawn;
  const all = [...published, ...named];
  const keys = all
    .filter(({ fingerprint }) => withdrawn.includes(fingerprint))
    .map((root) => root.publicKeyFingerprint);
  return all.filter((root) => keys.includes(root.publicKeyFingerprint)).map(({ fingerprint }) => fingerprint);
}

function decideWithin(input: TrustInput): TrustDecision {
  const { published, since, limits = LIMITS } = input;
  const before = namedRoots(published, since);
  const named = input.named.length > 0 ? input.named : before;
  const decision = decideFor(input, named);
  const bytes = decision.bundle.reduce((sum, { pem }) => sum + pem.length, 0);
  const fits = decision.bundle.length <= limits.bundle && bytes <= limits.bundleBytes;
  if (fits || named === before) return decision;
  const retained = [...decision.since.values()].filter(({ state }) => state === 'retained').length;
  const message = `the mesh names ${named.length} trust roots; with ${retained} retained ones the bundle would have ${decision.bundle.length} roots and ${bytes} bytes, and the limits are ${limits.bundle} and ${limits.bundleBytes}. The published bundle stays. Remove roots that are no longer used from the mesh`;
  const unchanged = published.length > 0 ? decideFor(input, before) : NOTHING;
  return { ...unchanged, problem: { code: 'ERR_TRUST_LIMIT', message } };
}

const NOTHING: TrustDecision = {
  bundle: [],
  since: new Map(),
  dropped: [],
  withdrawn: [],
  problem: undefined,
  nextChangeAt: undefined,
};

function decideFor(input: TrustInput, names: readonly Certificate[]): TrustDecision {
  const { published, now, leafLifetimeMs } = input;
  const retain = Math.max(input.retainMs, leafLifetimeMs);
  const all = unique([...published, ...names]);
  const since = new Map<string, RootTime>();
  const reasons = new Map<Certificate, Dropped['reason']>();
  const changes: number[] = [];
  /** With the epoch ms at which it is no longer chosen. */
  const chosen = new Map<Certificate, number>();

  for (const anchor of anchorsOf(all, input, names)) {
    const mark = markOf(anchor, published.length > 0, retain, now);
    const end = mark?.state === 'retained' ? mark.at + retain : Number.POSITIVE_INFINITY;
    const choice = now < end ? chooseRoot(anchor.roots, now) : undefined;
    for (const root of anchor.roots) {
      if (mark) since.set(root.fingerprint, mark);
      reasons.set(root, now >= root.notAfter ? 'expired' : now >= end ? 'retained' : 'replaced');
    }
    if (choice) chosen.set(choice.root, Math.min(choice.until, end));
  }

  const isRetained = ({ fingerprint }: Certificate) => since.get(fingerprint)?.state === 'retained';
  let bundle = [...chosen.keys()].filter((root) => {
    // A root that the mesh names is not replaced by one that it has stopped naming.
    const successors = [...chosen.keys()].filter((one) => isRetained(root) || !isRetained(one));
    const leaves = leavesAt(root, successors, leafLifetimeMs) ?? root.notAfter;
    if (now < leaves) changes.push(leaves, chosen.get(root) ?? leaves);
    return now < leaves;
  });
  for (const chain of input.chains ?? []) {
    const needed = indispensable(chain, bundle, all, now);
    if (needed) {
      bundle = [...bundle, needed];
      changes.push(needed.notAfter);
    }
  }
  const order = orderRoots(bundle, now);
  const next = Math.min(...changes.filter((at) => at > now), order.until);
  return {
    bundle: order.bundle,
    since: new Map([...since].filter(([id]) => bundle.some(({ fingerprint }) => fingerprint === id))),
    dropped: all.flatMap((certificate) => {
      const reason = bundle.includes(certificate) ? undefined : reasons.get(certificate);
      return reason === undefined ? [] : [{ certificate, reason }];
    }),
    withdrawn: [],
    problem: undefined,
    nextChangeAt: Number.isFinite(next) ? next : undefined,
  };
}

/** The certificates of one trust anchor, which is named or published if one of them is. */
interface Anchor {
  readonly roots: readonly Certificate[];
  readonly isNamed: boolean;
  readonly isPublished: boolean;
  /** As published; undefined for an anchor that was there from the start, and for one that is not published. */
  readonly time: RootTime | undefined;
}

function anchorsOf(
  all: readonly Certificate[],
  { published, since }: Pick<TrustInput, 'published' | 'since'>,
  names: readonly Certificate[],
): readonly Anchor[] {
  const groups = new Map<string, Certificate[]>();
  for (const root of all) groups.set(anchorOf(root), [...(groups.get(anchorOf(root)) ?? []), root]);
  const [named, there] = [names, published].map((roots) => new Set(roots.map(({ fingerprint }) => fingerprint)));
  return [...groups.values()].map((roots) => {
    const old = roots.filter(({ fingerprint }) => there?.has(fingerprint));
    const times = old.map(({ fingerprint }) => since.get(fingerprint));
    return {
      roots,
      isNamed: roots.some(({ fingerprint }) => named?.has(fingerprint)),
      isPublished: old.length > 0,
      time: times.includes(undefined) ? undefined : (times.find((time) => time?.state === 'added') ?? times[0]),
    };
  });
}

/** The entry of an anchor from now on; undefined for one that was there from the start and is still named. */
function markOf(
  { isNamed, isPublished, time }: Anchor,
  isUpdate: boolean,
  retain: number,
  now: number,
): RootTime | undefined {
  if (!isNamed) {
    const addedAt = time && addedAtOf(time);
    // A time further ahead than the retention itself comes from a wrong clock.
    const at = time?.state === 'retained' && time.at <= now + retain ? time.at : nextSecond(now);
    return { state: 'retained', at, ...(addedAt === undefined ? {} : { addedAt }) };
  }
  if (time?.state === 'added') return time;
  const isNew = isUpdate && (!isPublished || time?.state === 'retained');
  return isNew ? { state: 'added', at: thisSecond(now) } : undefined;
}

/** The root among `all` without which the chain would not verify; undefined if `bundle` is enough. */
function indispensable(
  [leaf, ...links]: readonly Certificate[],
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
  // Usually all are, and then the bundle itself is shared by all publications of a mesh.
  return bundle.every(isNamed) ? bundle : bundle.filter(isNamed);
};

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((one) => [one.fingerprint, one])).values()];
}

/** A CA certificate is ending when a tenth of its life is left, thirty days at most: long-lived CAs need planning. */
const ENDING_OF_LIFE = 0.1;
const ENDING_MS = 30 * 86_400_000;

export interface IssuerEnd {
  /** The certificate above the leaf that ends first. */
  readonly certificate: Certificate;
  /** Epoch ms from which it counts as ending. */
  readonly endingAt: number;
}

/** Which certificate above the leaf ends first. `path` is leaf to root; undefined if it has only one certificate. */
export function issuerEndOf(path: readonly Certificate[]): IssuerEnd | undefined {
  const [certificate] = path.slice(1).sort((a, b) => a.notAfter - b.notAfter);
  if (!certificate) return undefined;
  const { notBefore, notAfter } = certificate;
  const endingAt = notAfter - Math.min(ENDING_MS, (notAfter - notBefore) * ENDING_OF_LIFE);
  return { certificate, endingAt: Math.round(endingAt) };
}

/**
 * True if publishing a leaf with the path `next` in place of one with the path `current`, both leaf to root, gains
 * something: the new one is valid for longer, has other names, or has another issuer. CAs that shorten a leaf to their
 * own end issue one after another that gains nothing, and each publication makes the gateway reconfigure itself.
 */
export function isGain(next: readonly Certificate[], current: readonly Certificate[]): boolean {
  const ids = (path: readonly Certificate[]) => path.slice(1).map(({ fingerprint }) => fingerprint);
  return (
    lifetimeOf(next).notAfter > lifetimeOf(current).notAfter ||
    ids(next).join() !== ids(current).join() ||
    JSON.stringify(next[0]?.names) !== JSON.stringify(current[0]?.names)
  );
}

/**
 * The order of roots matters because Envoy's BoringSSL takes the first root whose subject and key identifier match, and
 * gives up if that one has expired or is not valid yet. In bundles of more than about 16 roots it even sorts them by an
 * unstable algorithm. Therefore roots that can replace each other are never published together.
 */

/** The root that ends last comes first, so that an expired root never precedes a valid one. */
function newestFirst(a: Certificate, b: Certificate): number {
  return b.notAfter - a.notAfter || b.notBefore - a.notBefore || (a.fingerprint < b.fingerprint ? -1 : 1);
}

/**
 * Epoch ms from which every gateway node considers `root` valid, although its clock may be behind; until then it
 * relies on `fallback`, so the wait is never longer than half of the time that both are valid.
 */
const settledAt = (root: Certificate, fallback: Certificate): number =>
  root.notBefore + Math.max(0, Math.min(SKEW_MS, (fallback.notAfter - root.notBefore) / 2));

interface Chosen {
  readonly root: Certificate;
  /** Epoch ms at which another root of the anchor is chosen, or none. */
  readonly until: number;
}

/** Of roots that are the same trust anchor, the one to publish: the last to end, once every gateway node accepts it. */
function chooseRoot(anchor: readonly Certificate[], now: number): Chosen | undefined {
  const [only] = anchor;
  if (anchor.length === 1 && only) return now < only.notAfter ? { root: only, until: only.notAfter } : undefined;
  const root = rootAt(anchor, now);
  if (!root) return undefined;
  const until = anchor
    .flatMap((one) => [one.notBefore, one.notAfter, ...anchor.map((other) => settledAt(one, other))])
    .filter((at) => now < at && rootAt(anchor, at) !== root);
  return { root, until: Math.min(...until) };
}

function rootAt(anchor: readonly Certificate[], now: number): Certificate | undefined {
  const alive = anchor.filter(({ notAfter }) => now < notAfter).sort(newestFirst);
  const valid = alive.filter(({ notBefore }) => notBefore <= now);
  if (valid.length === 0) return alive.sort((a, b) => a.notBefore - b.notBefore)[0];
  return valid.find((root) =>
    valid.every((other) => other.notBefore >= root.notBefore || now >= settledAt(root, other)),
  );
}

interface Ordered {
  readonly bundle: readonly Certificate[];
  /** Epoch ms at which the order changes by itself. */
  readonly until: number;
}

/** Newest first, except that a root that is not settled yet follows the older ones of its subject and key. */
function orderRoots(bundle: readonly Certificate[], now: number): Ordered {
  const ordered = orderAt(bundle, now);
  const until = bundle
    .flatMap((root) => relatives(root, bundle).map((other) => settledAt(root, other)))
    .filter((at) => now < at && orderAt(bundle, at).some((root, n) => root !== ordered[n]));
  return { bundle: ordered, until: Math.min(...until) };
}

function orderAt(bundle: readonly Certificate[], now: number): readonly Certificate[] {
  const newest = [...bundle].sort(newestFirst);
  const isYoung = (root: Certificate) =>
    relatives(root, bundle).some(
      (other) => other.notBefore < root.notBefore && other.notBefore <= now && now < settledAt(root, other),
    );
  return [...newest.filter((root) => !isYoung(root)), ...newest.filter(isYoung)];
}

/**
 * Epoch ms at which `root` leaves the bundle although it is still valid; undefined if it stays until its end. It
 * leaves if another root with the same subject and key outlives it, although the two do not verify the same chains:
 * one leaf lifetime before its end, but never before nine tenths of the time that both are valid have passed, so that
 * the mesh has long signed under the other one.
 */
function leavesAt(root: Certificate, bundle: readonly Certificate[], leafLifetimeMs: number): number | undefined {
  const times = relatives(root, bundle)
    .filter(({ notAfter }) => notAfter > root.notAfter)
    .map(({ notBefore }) => {
      const both = root.notAfter - Math.max(notBefore, root.notBefore);
      return Math.ceil(root.notAfter - Math.min(leafLifetimeMs, both / 10));
    });
  return times.length === 0 ? undefined : Math.min(...times);
}

const relatives = (root: Certificate, bundle: readonly Certificate[]): readonly Certificate[] =>
  bundle.filter((other) => other !== root && authorityOf(other) === authorityOf(root));

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
