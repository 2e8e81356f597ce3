import { authority, type Blueprint, type Cert, encode, workload } from './blueprint.ts';
import { pem } from './der.ts';
import { type KeyKind, keyOf } from './keys.ts';
import { Random, seedOf } from './random.ts';
import type { Variation } from './variation.ts';
import { AUTHORITY } from './variations/authority.ts';
import { CHAIN } from './variations/chain.ts';
import { CONSTRAINTS } from './variations/constraints.ts';
import { ENCODING } from './variations/encoding.ts';
import { EXTENSIONS } from './variations/extensions.ts';
import { KEYS } from './variations/keys.ts';
import { NAMES } from './variations/names.ts';

const GROUPS: readonly (readonly Variation[])[] = [AUTHORITY, CONSTRAINTS, EXTENSIONS, ENCODING, NAMES, KEYS, CHAIN];
/** Most cases change one thing, so that its effect is clear. */
const CHANGES = [0, 1, 1, 1, 1, 2, 2, 2, 3, 4] as const;

export const LABELS: readonly string[] = GROUPS.flat().map(({ label }) => label);
const BY_LABEL = new Map(GROUPS.flat().map((one) => [one.label, one]));

/** A pair and a bundle, signed. */
export interface Case {
  readonly seed: number;
  /** What was changed, in this order; everything else of a case is valid. */
  readonly labels: readonly string[];
  readonly form: 'spiffe' | 'dns';
  /** PEM; the chain leaf first. */
  readonly chain: string;
  readonly roots: string;
  readonly key: string;
}

/**
 * The case of a seed; only RSA keys and the random part of signatures differ. `labels` makes other changes to the same
 * pair and bundle; the effect of each change does not depend on the others.
 */
export function makeCase(seed: number, now: number, labels: readonly string[] = labelsOf(seed)): Case {
  const blueprint = goodBlueprint(new Random(seedOf(seed, 'good')), now);
  for (const label of labels) {
    const variation = BY_LABEL.get(label);
    if (!variation) throw new RangeError(`there is no variation ${JSON.stringify(label)}`);
    variation.apply(blueprint, new Random(seedOf(seed, label)));
  }
  const encoded = new Map<Cert, string>();
  const text = (certs: readonly Cert[]) =>
    certs
      .map((cert) => {
        const known = encoded.get(cert) ?? pem('CERTIFICATE', encode(cert));
        encoded.set(cert, known);
        return known;
      })
      .join('');
  const { form, key, chain, bundle } = blueprint;
  return { seed, labels, form, chain: text(chain), roots: text(bundle), key: key.pem };
}

function labelsOf(seed: number): string[] {
  const random = new Random(seedOf(seed, 'changes'));
  return Array.from({ length: random.pick(CHANGES) }, () => random.pick(random.pick(GROUPS)).label);
}

function goodBlueprint(random: Random, now: number): Blueprint {
  const taken = new Map<KeyKind, number>();
  const fresh = (kind: KeyKind = 'p256') => {
    const n = taken.get(kind) ?? 0;
    taken.set(kind, n + 1);
    return keyOf(kind, n);
  };
  const form = random.chance(0.8) ? 'spiffe' : 'dns';
  const root = authority('root', 'root', fresh(), now, undefined);
  let issuer = root;
  const intermediates: Cert[] = [];
  for (let n = random.pick([0, 1, 1, 1, 2]); n > 0; n--) {
    issuer = authority('intermediate', `intermediate ${n}`, fresh(), now, issuer);
    intermediates.unshift(issuer);
  }
  const leaf = workload(form, fresh(), now, issuer);
  return { form, now, chain: [leaf, ...intermediates], bundle: [root], key: leaf.key, fresh };
}
