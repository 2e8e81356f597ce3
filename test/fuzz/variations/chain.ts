import { authority, type Blueprint, type Cert, constraints, drop, OID, put, usages, workload } from '../blueprint.ts';
import type { Random } from '../random.ts';
import { insertAbove, intermediateOf, leafOf, ofAll, rootOf, type Variation } from '../variation.ts';

const HOUR = 3_600_000;
const YEAR = 365 * 24 * HOUR;

/** A different certificate for the same subject and key; changes apply only to the copy. */
const copy = (cert: Cert, changes: Partial<Cert> = {}): Cert => ({
  ...cert,
  extensions: cert.extensions.map((one) => ({ ...one })),
  serial: Buffer.concat([cert.serial, Buffer.of(1)]),
  ...changes,
});

const expired = (now: number): Partial<Cert> => ({ notBefore: now - 2 * YEAR, notAfter: now - HOUR });
const later = (now: number): Partial<Cert> => ({ notBefore: now + HOUR, notAfter: now + YEAR });

/** The variants of a second certificate for the same subject and key. */
const TWINS: readonly (readonly [string, (cert: Cert, blueprint: Blueprint) => Cert])[] = [
  ['newer', (cert, { now }) => copy(cert, { notBefore: now - HOUR / 2 })],
  ['expired', (cert, { now }) => copy(cert, expired(now))],
  ['not yet valid', (cert, { now }) => copy(cert, later(now))],
  ['without the CA flag', (cert) => twin(cert, (one) => put(one, OID.basicConstraints, constraints(false), true))],
  ['with path length 0', (cert) => twin(cert, (one) => put(one, OID.basicConstraints, constraints(true, 0), true))],
  ['with usage server', (cert) => twin(cert, (one) => put(one, OID.extendedKeyUsage, usages(OID.serverAuth)))],
  ['without the right to sign', (cert) => twin(cert, (one) => drop(one, OID.keyUsage))],
  ['with an unknown critical extension', (cert) => twin(cert, (one) => put(one, '1.2.3.4', Buffer.of(5, 0), true))],
  ['of another key', (cert, { fresh }) => copy(cert, { key: fresh() })],
];

function twin(cert: Cert, change: (copied: Cert) => void): Cert {
  const copied = copy(cert);
  change(copied);
  return copied;
}

/** Puts a certificate before or after another. */
function beside(list: Cert[], cert: Cert, added: Cert, before: boolean): void {
  list.splice(list.indexOf(cert) + (before ? 0 : 1), 0, added);
}

const unrelated = ({ fresh, now }: Blueprint, role: Cert['role'], issuer?: Cert): Cert =>
  authority(role, 'unrelated', fresh(), now, issuer);

function lengthen(blueprint: Blueprint, by: number): void {
  for (let n = 0; n < by; n++) insertAbove(blueprint, leafOf(blueprint));
}

/** Two authorities that certify each other: each has a second certificate that the other signed. */
function crossSigned(blueprint: Blueprint, random: Random, anchored: boolean): void {
  const one = intermediateOf(blueprint, random);
  const other = authority('intermediate', 'other side', blueprint.fresh(), blueprint.now, one);
  const back = copy(one, { issuer: other });
  blueprint.chain = [leafOf(blueprint), ...random.shuffle([back, other, ...(anchored ? [one] : [])])];
  if (anchored) blueprint.chain.push(...above(one));
}

function above(cert: Cert): Cert[] {
  const found: Cert[] = [];
  for (let up = cert.issuer; up && up.role === 'intermediate' && !found.includes(up); up = up.issuer) found.push(up);
  return found;
}

export const CHAIN: readonly Variation[] = [
  ...TWINS.flatMap(([what, make]) =>
    [true, false].flatMap((before) => [
      ofAll(`a twin of the intermediate, ${what}, ${before ? 'before' : 'after'} it`, (blueprint, random) => {
        const cert = intermediateOf(blueprint, random);
        beside(blueprint.chain, cert, make(cert, blueprint), before);
      }),
      ofAll(`a twin of the root, ${what}, ${before ? 'before' : 'after'} it`, (blueprint) => {
        const root = rootOf(blueprint);
        beside(blueprint.bundle, root, make(root, blueprint), before);
      }),
    ]),
  ),
  ofAll('the intermediates are out of order', (blueprint, random) => {
    if (blueprint.chain.length < 3) lengthen(blueprint, 2);
    blueprint.chain = [leafOf(blueprint), ...random.shuffle(blueprint.chain.filter((one) => one.role !== 'leaf'))];
  }),
  ofAll('the chain is reversed', (blueprint) => {
    blueprint.chain.reverse();
  }),
  ofAll('an intermediate is missing', (blueprint, random) => {
    const missing = intermediateOf(blueprint, random);
    blueprint.chain = blueprint.chain.filter((one) => one !== missing);
  }),
  ofAll('the intermediate is in the bundle instead', (blueprint, random) => {
    const moved = intermediateOf(blueprint, random);
    blueprint.chain = blueprint.chain.filter((one) => one !== moved);
    blueprint.bundle.push(moved);
  }),
  ofAll('the intermediate is the only root', (blueprint, random) => {
    blueprint.bundle = [intermediateOf(blueprint, random)];
  }),
  ofAll('the intermediate is in the bundle too', (blueprint, random) => {
    blueprint.bundle.unshift(intermediateOf(blueprint, random));
  }),
  ofAll('the leaf is the only root', (blueprint) => {
    blueprint.bundle = [leafOf(blueprint)];
  }),
  ofAll('the leaf is in the bundle too', (blueprint) => {
    blueprint.bundle.push(leafOf(blueprint));
  }),
  ofAll('the leaf issues itself and is the root', (blueprint) => {
    const leaf = leafOf(blueprint);
    leaf.issuer = undefined;
    leaf.subject = authority('root', 'self', leaf.key, blueprint.now, undefined).subject;
    blueprint.chain = [leaf];
    blueprint.bundle = [leaf];
  }),
  ofAll('the root is in the chain', (blueprint) => {
    blueprint.chain.push(rootOf(blueprint));
  }),
  ofAll('the root is in the chain and not in the bundle', (blueprint) => {
    const root = rootOf(blueprint);
    blueprint.chain.push(root);
    blueprint.bundle = [unrelated(blueprint, 'root')];
  }),
  ofAll('another root is in the chain', (blueprint) => {
    blueprint.chain.push(unrelated(blueprint, 'root'));
  }),
  ofAll('an unrelated intermediate is in the chain', (blueprint) => {
    blueprint.chain.push(unrelated(blueprint, 'intermediate', rootOf(blueprint)));
  }),
  ofAll('another leaf is in the chain', (blueprint) => {
    const { form, fresh, now } = blueprint;
    blueprint.chain.push(workload(form, fresh(), now, rootOf(blueprint)));
  }),
  ofAll('the leaf is in the chain twice', (blueprint) => {
    blueprint.chain.splice(1, 0, leafOf(blueprint));
  }),
  ofAll('an intermediate is in the chain twice', (blueprint, random) => {
    blueprint.chain.push(intermediateOf(blueprint, random));
  }),
  ofAll('another root alone', (blueprint) => {
    blueprint.bundle = [unrelated(blueprint, 'root')];
  }),
  ofAll('another root of the same name alone', (blueprint) => {
    blueprint.bundle = [copy(rootOf(blueprint), { key: blueprint.fresh() })];
  }),
  ofAll('other roots beside it', (blueprint, random) => {
    for (let n = 0; n < 1 + random.int(5); n++) blueprint.bundle.unshift(unrelated(blueprint, 'root'));
  }),
  ofAll('the root is in the bundle twice', (blueprint) => {
    blueprint.bundle.push(rootOf(blueprint));
  }),
  ofAll('70 roots', (blueprint) => {
    const { now } = blueprint;
    const key = blueprint.fresh();
    for (let n = 0; n < 70; n++) blueprint.bundle.push(authority('root', `root ${n}`, key, now, undefined));
  }),
  ofAll('an expired root beside it', (blueprint) => {
    blueprint.bundle.push(Object.assign(unrelated(blueprint, 'root'), expired(blueprint.now)));
  }),
  ofAll('a root of version 1 beside it', (blueprint) => {
    blueprint.bundle.push(Object.assign(unrelated(blueprint, 'root'), { version: undefined, extensions: [] }));
  }),
  ofAll('a root that no one can use beside it', (blueprint) => {
    blueprint.bundle.push(Object.assign(unrelated(blueprint, 'root'), { version: 3 }));
  }),
  ...[4, 7, 8, 9, 10, 12, 20].map((by) => ofAll(`${by} more intermediates`, (blueprint) => lengthen(blueprint, by))),
  ofAll('two that certify each other', (blueprint, random) => crossSigned(blueprint, random, true)),
  ofAll('two that certify only each other', (blueprint, random) => crossSigned(blueprint, random, false)),
  ofAll('a second way over another root', (blueprint, random) => {
    const cert = intermediateOf(blueprint, random);
    const other = unrelated(blueprint, 'root');
    blueprint.chain.splice(1, 0, copy(cert, { issuer: other }));
    if (random.chance(0.5)) blueprint.bundle.push(other);
    if (random.chance(0.3)) blueprint.bundle = blueprint.bundle.filter((one) => one !== rootOf(blueprint));
  }),
  ofAll('the root renewed with its key, the old one gone', (blueprint) => {
    const root = rootOf(blueprint);
    blueprint.bundle = [copy(root, { notBefore: blueprint.now - HOUR / 2 })];
  }),
  ofAll('the new root signed by the old one', (blueprint) => {
    const root = rootOf(blueprint);
    const old = unrelated(blueprint, 'root');
    blueprint.chain.push(copy(root, { issuer: old, role: 'intermediate' }));
    blueprint.bundle = [old];
  }),
  ofAll('an intermediate with the name of the root', (blueprint, random) => {
    intermediateOf(blueprint, random).subject = rootOf(blueprint).subject;
  }),
  ofAll('an intermediate with the name and key of the root', (blueprint, random) => {
    const cert = intermediateOf(blueprint, random);
    cert.subject = rootOf(blueprint).subject;
    cert.key = rootOf(blueprint).key;
  }),
  ofAll('all authorities with one name', (blueprint, random) => {
    if (blueprint.chain.length < 3) lengthen(blueprint, 2);
    const { subject } = rootOf(blueprint);
    for (const one of blueprint.chain) if (one.role !== 'leaf' && random.chance(0.8)) one.subject = subject;
  }),
  ofAll('leaf and issuer with one name', (blueprint) => {
    const leaf = leafOf(blueprint);
    leaf.subject = (leaf.issuer ?? leaf).subject;
  }),
  ofAll('leaf and issuer with one name and key', (blueprint) => {
    const leaf = leafOf(blueprint);
    const issuer = leaf.issuer ?? leaf;
    leaf.subject = issuer.subject;
    leaf.key = issuer.key;
    blueprint.key = leaf.key;
  }),
  ofAll('leaf and issuer with one key', (blueprint) => {
    const leaf = leafOf(blueprint);
    leaf.key = (leaf.issuer ?? leaf).key;
    blueprint.key = leaf.key;
  }),
  ofAll('a leaf issued by a leaf', (blueprint) => {
    const { form, fresh, now } = blueprint;
    const leaf = leafOf(blueprint);
    const between = workload(form, fresh(), now, leaf.issuer ?? leaf);
    leaf.issuer = Object.assign(between, {
      role: 'intermediate',
      subject: authority('intermediate', 'leaf as issuer', fresh(), now, undefined).subject,
    });
    blueprint.chain.splice(1, 0, between);
  }),
  ofAll('no roots', (blueprint) => {
    blueprint.bundle = [];
  }),
];
