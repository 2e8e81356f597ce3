import type { Decision } from '../../core/decision/decide.ts';
import { leafOf } from '../../mesh/identity.ts';

export interface Rotation {
  readonly kind: 'leaf' | 'bundle';
  /** From the mesh handing out the leaf to its being read back; undefined for a bundle. */
  readonly lagMs: number | undefined;
}

/** Remembers what was last read back as it should be, to tell a rotation from a repair. */
export class RotationTracker {
  #leaf: string | undefined;
  #bundle: string | undefined;

  /** Notes that this decision stands; returns the rotation that it completes, if any. */
  reached(decision: Decision, lagMs: number | undefined): Rotation | undefined {
    const [leaf, bundle] = [this.#leaf, this.#bundle];
    this.#leaf = leafIn(decision);
    this.#bundle = bundleIn(decision);
    if (bundle === undefined) return undefined;
    if (leaf !== this.#leaf) return { kind: 'leaf', lagMs };
    return bundle === this.#bundle ? undefined : { kind: 'bundle', lagMs: undefined };
  }

  /** The same was in force before: what must be written now undoes what somebody else did. */
  wasReached(decision: Decision): boolean {
    return this.#bundle !== undefined && this.#leaf === leafIn(decision) && this.#bundle === bundleIn(decision);
  }
}

const leafIn = ({ identity }: Decision): string | undefined => identity && leafOf(identity).fingerprint;
/** Of one root, its own text: joined is only what is more. */
const bundleIn = ({ trust }: Decision): string => trust.bundle.map((root) => root.fingerprint).join(' ');
