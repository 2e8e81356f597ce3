import { createHash } from 'node:crypto';
import type { Decision } from '../../core/decision/decide.ts';
import { leafOf } from '../../mesh/identity.ts';

export interface Rotation {
  readonly kind: 'leaf' | 'bundle';
  /** From the mesh issuing the leaf to its being read back; undefined for a bundle. */
  readonly lagMs: number | undefined;
}

/** Remembers the last desired state that was read back, to distinguish a rotation from a repair. */
export class RotationTracker {
  #leaf: string | undefined;
  #bundle: string | undefined;
  #objects: string | undefined;

  /** Records that this decision is published; returns the rotation that it completes, if any. */
  reached(decision: Decision, lagMs: number | undefined): Rotation | undefined {
    const [leaf, bundle] = [this.#leaf, this.#bundle];
    this.#leaf = leafIn(decision);
    this.#bundle = bundleIn(decision);
    this.#objects = objectsIn(decision);
    if (bundle === undefined) return undefined;
    if (leaf !== this.#leaf) return { kind: 'leaf', lagMs };
    return bundle === this.#bundle ? undefined : { kind: 'bundle', lagMs: undefined };
  }

  /** The same state was read back before: a write that is now needed undoes somebody else's change. */
  wasReached(decision: Decision): boolean {
    return (
      this.#bundle !== undefined &&
      this.#leaf === leafIn(decision) &&
      this.#bundle === bundleIn(decision) &&
      this.#objects === objectsIn(decision)
    );
  }
}

const leafIn = ({ identity }: Decision): string | undefined => identity && leafOf(identity).fingerprint;
/** A single root is its own text; only several are joined. */
const bundleIn = ({ trust, upstreamTrust }: Decision): string => {
  const roots = trust === upstreamTrust ? trust.bundle : [...trust.bundle, ...upstreamTrust.bundle];
  return roots.map((root) => root.fingerprint).join(' ');
};

/** A digest of what is desired, but for the content of Secrets: a further object or another setting is no repair. */
function objectsIn({ desired = [] }: Decision): string {
  const objects = desired.map(({ object }) => (object.kind === 'Secret' ? object.metadata : object));
  return createHash('sha256').update(JSON.stringify(objects)).digest('base64');
}
