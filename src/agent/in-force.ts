import { leafOf } from '../mesh/identity.ts';
import type { Decision } from './decide.ts';

export interface Rotation {
  readonly kind: 'leaf' | 'bundle';
  /** From the mesh handing out the leaf to its being read back; undefined for a bundle. */
  readonly lagMs: number | undefined;
}

/** Remembers what was last read back as it should be, to tell a rotation from a repair. */
export class InForce {
  #wish: string | undefined;
  #leaf: string | undefined;

  /** Notes that this decision stands; returns the rotation that it completes, if any. */
  reached(decision: Decision, lagMs: number | undefined): Rotation | undefined {
    const [wishBefore, leafBefore] = [this.#wish, this.#leaf];
    this.#wish = wishOf(decision);
    this.#leaf = decision.identity && leafOf(decision.identity).fingerprint;
    if (wishBefore === undefined || wishBefore === this.#wish) return undefined;
    return leafBefore === this.#leaf ? { kind: 'bundle', lagMs: undefined } : { kind: 'leaf', lagMs };
  }

  /** The same was in force before: what must be written now undoes what somebody else did. */
  wasReached(decision: Decision): boolean {
    return this.#wish !== undefined && this.#wish === wishOf(decision);
  }
}

/** Two decisions with the same text want the same leaf and bundle to stand. */
function wishOf({ identity, trust }: Decision): string {
  const leaf = identity ? leafOf(identity).fingerprint : '';
  return [leaf, ...trust.bundle.map((root) => root.fingerprint)].join(' ');
}
