import { authority, type Blueprint, type Cert } from './blueprint.ts';
import type { Random } from './random.ts';

export type Role = Cert['role'];

/** One change to a good pair or bundle. Its label is its name, and the role of the certificate that it changes. */
export interface Variation {
  readonly label: string;
  apply(blueprint: Blueprint, random: Random): void;
}

type Change = (cert: Cert, random: Random, blueprint: Blueprint) => void;

/** A change to one certificate: one variation for each role. */
export function ofCert(name: string, roles: readonly Role[], change: Change): Variation[] {
  return roles.map((role) => ({
    label: `${name} @${role}`,
    apply: (blueprint, random) => change(certOf(blueprint, role, random), random, blueprint),
  }));
}

/** A change to the chain, the bundle or the key. */
export const ofAll = (label: string, apply: Variation['apply']): Variation => ({ label, apply });

export const EVERYWHERE: readonly Role[] = ['leaf', 'intermediate', 'root'];
export const ISSUERS: readonly Role[] = ['intermediate', 'root'];
export const LEAF: readonly Role[] = ['leaf'];

function certOf(blueprint: Blueprint, role: Role, random: Random): Cert {
  if (role === 'leaf') return leafOf(blueprint);
  if (role === 'root') return rootOf(blueprint);
  return intermediateOf(blueprint, random);
}

export function leafOf({ chain }: Blueprint): Cert {
  const leaf = chain.find(({ role }) => role === 'leaf');
  if (!leaf) throw new TypeError('a blueprint always has its leaf');
  return leaf;
}

/** The root above the leaf. */
export function rootOf(blueprint: Blueprint): Cert {
  const seen = new Set<Cert>();
  let top = leafOf(blueprint);
  while (top.issuer && !seen.has(top)) {
    seen.add(top);
    top = top.issuer;
  }
  return top;
}

/** One of those in the chain; if there is none, one is inserted between the leaf and its issuer. */
export function intermediateOf(blueprint: Blueprint, random: Random): Cert {
  const there = blueprint.chain.filter(({ role }) => role === 'intermediate');
  return there.length > 0 ? random.pick(there) : insertAbove(blueprint, leafOf(blueprint));
}

/** A new intermediate between a certificate and its issuer, valid by itself. */
export function insertAbove(blueprint: Blueprint, below: Cert): Cert {
  const { fresh, now } = blueprint;
  const above = below.issuer ?? below;
  const added = authority('intermediate', `added ${blueprint.chain.length}`, fresh(), now, above);
  below.issuer = added;
  blueprint.chain.splice(blueprint.chain.indexOf(below) + 1, 0, added);
  return added;
}
