import type { Certificate } from '../pki/certificate.ts';
import type { PrivateKey } from '../pki/key.ts';

/**
 * One usable identity and the roots that its mesh names now. Two identities are the same when the SHA-256 of their
 * leaves is equal: serial numbers repeat in some meshes.
 */
export interface Identity {
  /** SPIFFE ID or DNS name. */
  readonly id: string;
  readonly key: PrivateKey;
  /** Leaf first, then intermediates; no root. */
  readonly chain: readonly Certificate[];
  readonly roots: readonly Certificate[];
  /** Set if upstreams are in another trust domain than the identity: they are verified by these roots alone. */
  readonly upstream?: UpstreamTrust | undefined;
}

/** The roots of one trust domain, for upstreams of that domain. */
export interface UpstreamTrust {
  readonly trustDomain: string;
  readonly roots: readonly Certificate[];
}

export function leafOf(identity: Pick<Identity, 'chain'>): Certificate {
  const leaf = identity.chain[0];
  if (!leaf) throw new TypeError('an identity has at least a leaf');
  return leaf;
}

export function sameLeaf(a: Pick<Identity, 'chain'> | undefined, b: Pick<Identity, 'chain'> | undefined): boolean {
  return a !== undefined && b !== undefined && leafOf(a).fingerprint === leafOf(b).fingerprint;
}

export function sameRoots(a: readonly Certificate[], b: readonly Certificate[]): boolean {
  const names = new Set(a.map((root) => root.fingerprint));
  return (
    names.size === new Set(b.map((root) => root.fingerprint)).size && b.every((root) => names.has(root.fingerprint))
  );
}

/** The same leaf with the same certificates above it, under the same roots, for the same upstreams. */
export function sameIdentity(a: Identity | undefined, b: Identity): boolean {
  if (!a || a.chain.length !== b.chain.length || !sameRoots(a.roots, b.roots)) return false;
  if (a.upstream?.trustDomain !== b.upstream?.trustDomain) return false;
  if (!sameRoots(a.upstream?.roots ?? [], b.upstream?.roots ?? [])) return false;
  return a.chain.every(({ fingerprint }, index) => fingerprint === b.chain[index]?.fingerprint);
}
