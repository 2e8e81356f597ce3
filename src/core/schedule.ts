/** The fields of a Certificate that its schedule depends on. */
export interface Lifetime {
  readonly notBefore: number;
  readonly notAfter: number;
  /** SHA-256, hex. */
  readonly fingerprint: string;
}

/**
 * When this leaf is due, epoch ms: `at` of its life plus a share of `jitter` that is drawn once, from its fingerprint.
 * A new draw at each reconcile would let the earliest draw win and bunch rotations.
 */
export function renewAt(leaf: Lifetime, at = 0.6, jitter = 0.06): number {
  return Math.round(leaf.notBefore + lifeOf(leaf) * (at + jitter * drawOf(leaf)));
}

/** The last tenth of its life: from here on no hold and no window delays a valid successor. Epoch ms. */
export const emergencyAt = (leaf: Lifetime): number => Math.round(leaf.notBefore + lifeOf(leaf) * 0.9);

/** A leaf is usable only while every certificate above it is: its life, bounded by its path, leaf first. */
export function lifetimeOf(path: readonly Lifetime[]): Lifetime {
  const [leaf] = path;
  if (!leaf) throw new TypeError('a path begins with a leaf');
  const { notBefore, fingerprint } = leaf;
  return { notBefore, fingerprint, notAfter: Math.min(...path.map(({ notAfter }) => notAfter)) };
}

const lifeOf = ({ notBefore, notAfter }: Lifetime): number => Math.max(0, notAfter - notBefore);

/** Uniform in [0, 1): 48 bits are exact in a double. */
const drawOf = ({ fingerprint }: Lifetime): number => Number.parseInt(fingerprint.slice(0, 12), 16) / 2 ** 48;
