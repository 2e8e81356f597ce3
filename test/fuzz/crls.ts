import { chooseCrls } from '../../src/core/crls.ts';
import { verify } from '../../src/core/verify.ts';
import { parseCertificates } from '../../src/pki/certificate.ts';
import { formatCrls, parseCrls } from '../../src/pki/crl.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { opensslPreflight } from '../../src/preflight/preflight.ts';
import type { GoJudge } from '../peers/servers/x509-judges.ts';
import { openssl, withFiles } from '../property/openssl.ts';
import {
  authority,
  type Cert,
  drop,
  type Extension,
  encode,
  encodeMoment,
  keyIdOf,
  type Moment,
  name,
  OID,
  put,
  workload,
} from './blueprint.ts';
import * as der from './der.ts';
import { crlsAtEnvoy } from './envoy.ts';
import { type Digest, type Key, type KeyKind, keyOf, signing } from './keys.ts';
import { Random, seedOf } from './random.ts';

/** A CRL before it is signed. Variations change any part of it. */
interface List {
  readonly role: 'intermediate' | 'root';
  issuer: Cert;
  issuerName?: Buffer;
  signer?: Key;
  /** The encoded value: 1 for version 2; undefined omits it. */
  version: number | undefined;
  thisUpdate: Moment;
  nextUpdate: Moment | undefined;
  /** Whole entries, DER. */
  entries: Buffer[];
  extensions: Extension[];
  digest: Digest;
  pss?: boolean;
  editSigned?: (parts: Buffer[]) => Buffer[];
  editWhole?: (parts: Buffer[]) => Buffer[];
  editBytes?: (bytes: Buffer) => Buffer;
}

interface World {
  readonly now: number;
  readonly root: Cert;
  readonly intermediate: Cert;
  bundle: Cert[];
  lists: List[];
  readonly fresh: (kind?: KeyKind) => Key;
}

interface Pair {
  readonly chain: string;
  readonly key: string;
}

/** A bundle with CRLs, and the certificates of two upstreams. All PEM. */
export interface CrlCase {
  readonly seed: number;
  readonly labels: readonly string[];
  readonly roots: string;
  readonly crls: string;
  readonly good: Pair;
  /** The CRL of its issuer names it. */
  readonly revoked: Pair;
}

interface CrlVariation {
  readonly label: string;
  apply(world: World, random: Random): void;
}

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const NUMBER = '2.5.29.20';
const REASON = '2.5.29.21';
const DELTA = '2.5.29.27';
const SCOPE = '2.5.29.28';

const ROLES = ['intermediate', 'root'] as const;
const listOf = ({ lists }: World, role: List['role']): List => {
  const list = lists.find((one) => one.role === role);
  if (!list) throw new TypeError('there is always a list');
  return list;
};
const each = (what: string, change: (list: List, world: World, random: Random) => void): CrlVariation[] =>
  ROLES.map((role) => ({
    label: `${what} @${role}`,
    apply: (world, random) => change(listOf(world, role), world, random),
  }));
const ofCa = (what: string, change: (ca: Cert, world: World) => void): CrlVariation[] =>
  ROLES.map((role) => ({ label: `${what} @${role}`, apply: (world) => change(world[role], world) }));
const ofSet = (label: string, apply: CrlVariation['apply']): CrlVariation => ({ label, apply });

const extra = (
  what: string,
  id: string,
  value: Buffer | ((list: List) => Buffer),
  critical: Extension['critical'] = false,
) =>
  each(what, (list) =>
    list.extensions.push({ id, critical, value: typeof value === 'function' ? value(list) : value }),
  );
const own = (list: List, id: string, change: (value: Extension) => Extension | undefined): void => {
  list.extensions = list.extensions.flatMap((one) => (one.id === id ? (change(one) ?? []) : [one]));
};
const entry = (serial: Buffer, date: Buffer, ...extensions: readonly Buffer[]): Buffer =>
  der.sequence(der.integer(serial), date, ...(extensions.length > 0 ? [der.sequence(...extensions)] : []));
const SERIAL = Buffer.of(0x33, 0x44);
const anEntry = (what: string, make: (date: Buffer) => Buffer) =>
  each(`an entry ${what}`, (list, { now }) => list.entries.push(make(encodeMoment(now - HOUR))));
const entryWith = (what: string, id: string, value: Buffer, critical = false) =>
  anEntry(`with ${what}`, (date) =>
    entry(SERIAL, date, der.sequence(der.oid(id), ...(critical ? [der.boolean(true)] : []), der.octets(value))),
  );
const enumerated = (value: number): Buffer => der.tlv(0x0a, Buffer.of(value));
const flag = (n: number): Buffer => der.implicit(n, Buffer.of(0xff));
const uriPoint = der.explicit(0, der.explicit(0, der.implicit(6, der.ascii('http://ca.example/crl'))));
const text = (moment: string, tag = 0x18): Moment => ({ tag, text: moment });
const stamp = (ms: number): string => `${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14)}`;

const VARIATIONS: readonly CrlVariation[] = [
  ...extra('a delta indicator, critical', DELTA, der.integer(1), true),
  ...extra('a delta indicator, not critical', DELTA, der.integer(1)),
  ...(
    [
      ['users', flag(1)],
      ['CAs', flag(2)],
      ['some reasons', der.implicit(3, Buffer.of(1, 0x80))],
      ['indirect', flag(4)],
      ['attributes', flag(5)],
      ['a point', uriPoint],
    ] as const
  ).flatMap(([what, part]) => [
    ...extra(`scope ${what}, critical`, SCOPE, der.sequence(part), true),
    ...extra(`scope ${what}, not critical`, SCOPE, der.sequence(part)),
  ]),
  ...extra('scope of two kinds', SCOPE, der.sequence(flag(1), flag(2)), true),
  ...extra('scope that is empty', SCOPE, der.sequence(), true),
  ...extra('scope that is not DER', SCOPE, Buffer.of(0x30, 0x05, 1), true),
  ...extra('unknown extension, critical', '1.2.3.4', der.nothing(), true),
  ...extra('unknown extension', '1.2.3.4', der.nothing()),
  ...extra('unknown extension, explicit FALSE', '1.2.3.4', der.nothing(), 'explicit'),
  ...extra('unknown extension that is not DER', '1.2.3.4', Buffer.of(0xff)),
  ...extra('freshest CRL', '2.5.29.46', der.sequence(der.sequence(uriPoint))),
  ...extra('issuer alternative name', '2.5.29.18', der.sequence(der.implicit(6, der.ascii('http://ca')))),
  ...extra('a second number', NUMBER, der.integer(2)),
  ...extra('a second authority key id', OID.authorityKeyId, der.sequence(der.implicit(0, Buffer.alloc(20)))),
  ...each('no extensions', (list) => (list.extensions = [])),
  ...each('no authority key id', (list) => own(list, OID.authorityKeyId, () => undefined)),
  ...each('authority key id of another', (list) =>
    own(list, OID.authorityKeyId, (one) => ({ ...one, value: der.sequence(der.implicit(0, Buffer.alloc(20, 1))) })),
  ),
  ...each('authority key id by serial', (list) =>
    own(list, OID.authorityKeyId, (one) => ({ ...one, value: byName(list.issuer, list.issuer.serial) })),
  ),
  ...each('authority key id by another serial', (list) =>
    own(list, OID.authorityKeyId, (one) => ({ ...one, value: byName(list.issuer, SERIAL) })),
  ),
  ...each('authority key id that is empty', (list) =>
    own(list, OID.authorityKeyId, (one) => ({ ...one, value: der.sequence() })),
  ),
  ...each('authority key id that is not DER', (list) =>
    own(list, OID.authorityKeyId, (one) => ({ ...one, value: Buffer.of(0x30, 9) })),
  ),
  ...each('authority key id, critical', (list) => own(list, OID.authorityKeyId, (one) => ({ ...one, critical: true }))),
  ...each('no number', (list) => own(list, NUMBER, () => undefined)),
  ...(
    [
      ['negative', Buffer.of(0x80)],
      ['of 20 bytes', Buffer.alloc(20, 7)],
      ['of 30 bytes', Buffer.alloc(30, 7)],
      ['padded', Buffer.of(0, 1)],
      ['empty', Buffer.of()],
    ] as const
  ).flatMap(([what, content]) =>
    each(`number ${what}`, (list) => own(list, NUMBER, (one) => ({ ...one, value: der.integer(content) }))),
  ),
  ...each('number that is no number', (list) => own(list, NUMBER, (one) => ({ ...one, value: der.nothing() }))),
  ...each('number, critical', (list) => own(list, NUMBER, (one) => ({ ...one, critical: true }))),
  ...each('version 1', (list) => Object.assign(list, { version: undefined, extensions: [] })),
  ...each('version 1 with extensions', (list) => (list.version = undefined)),
  ...([0, 2, 3, 0x81] as const).flatMap((version) =>
    each(`version ${version + 1}, explicit`, (list) => (list.version = version)),
  ),
  ...each('an empty list of extensions', (list) => {
    list.extensions = [];
    list.editSigned = (parts) => [...parts, der.explicit(0, der.sequence())];
  }),
  ...each('an empty list of entries', (list) => {
    if (list.entries.length > 0) return;
    list.editSigned = (parts) => {
      const at = parts.findIndex((part) => part[0] === 0xa0);
      return at < 0 ? [...parts, der.sequence()] : [...parts.slice(0, at), der.sequence(), ...parts.slice(at)];
    };
  }),
  ...each('a field after the extensions', (list) => (list.editSigned = (parts) => [...parts, der.nothing()])),
  ...each(
    'the fields out of order',
    (list) => (list.editSigned = ([first, ...parts]) => [...parts, first ?? Buffer.of()]),
  ),
  ...[0, 1, 4, 6, 7, 8, 9, 10, 11, 0x7f].flatMap((n) => entryWith(`reason ${n}`, REASON, enumerated(n))),
  ...entryWith('a reason, critical', REASON, enumerated(1), true),
  ...entryWith('a reason that is no number', REASON, der.boolean(true)),
  ...entryWith('a reason of two bytes', REASON, der.tlv(0x0a, Buffer.of(1, 1))),
  ...entryWith('an empty reason', REASON, der.tlv(0x0a)),
  ...entryWith('an invalidity date', '2.5.29.24', der.tlv(0x18, der.ascii('20260101000000Z'))),
  ...entryWith('an issuer, critical', '2.5.29.29', der.sequence(der.explicit(4, name([OID.commonName, 'x']))), true),
  ...entryWith('an issuer', '2.5.29.29', der.sequence(der.explicit(4, name([OID.commonName, 'x'])))),
  ...entryWith('an unknown extension', '1.2.3.4', der.nothing()),
  ...entryWith('an unknown extension, critical', '1.2.3.4', der.nothing(), true),
  ...anEntry('twice', (date) => Buffer.concat([entry(SERIAL, date), entry(SERIAL, date)])),
  ...anEntry('with a reason twice', (date) => {
    const reason = der.sequence(der.oid(REASON), der.octets(enumerated(1)));
    return entry(SERIAL, date, reason, reason);
  }),
  ...anEntry('with no extensions in their list', (date) => der.sequence(der.integer(SERIAL), date, der.sequence())),
  ...(
    [
      ['negative', Buffer.of(0x80)],
      ['zero', Buffer.of(0)],
      ['padded', Buffer.of(0, 1)],
      ['empty', Buffer.of()],
      ['of 40 bytes', Buffer.alloc(40, 1)],
    ] as const
  ).flatMap(([what, serial]) => anEntry(`with a serial that is ${what}`, (date) => entry(serial, date))),
  ...anEntry('without a date', () => der.sequence(der.integer(SERIAL))),
  ...anEntry('with a fourth field', (date) => der.sequence(der.integer(SERIAL), date, der.sequence(), der.nothing())),
  ...anEntry('with a date with an offset', () => entry(SERIAL, der.tlv(0x17, der.ascii('260101000000+0100')))),
  ...anEntry('with a date without seconds', () => entry(SERIAL, der.tlv(0x17, der.ascii('2601010000Z')))),
  ...anEntry('with a date that does not exist', () => entry(SERIAL, der.tlv(0x17, der.ascii('260231000000Z')))),
  ...anEntry('with a long date', () => entry(SERIAL, der.tlv(0x18, der.ascii('20260101000000Z')))),
  ...anEntry('of next year', () => entry(SERIAL, der.tlv(0x17, der.ascii('400101000000Z')))),
  ...each('2,000 entries', (list, { now }, random) => {
    for (let n = 0; n < 2000; n++) {
      list.entries.push(entry(Buffer.concat([Buffer.of(0x44), random.bytes(15)]), encodeMoment(now - HOUR)));
    }
  }),
  ...each('an entry for its own CA', ({ entries, issuer }, { now }) =>
    entries.push(entry(issuer.serial, encodeMoment(now - HOUR))),
  ),
  ofSet('an entry for the intermediate @root', ({ lists, intermediate, now }) =>
    lists.find(({ role }) => role === 'root')?.entries.push(entry(intermediate.serial, encodeMoment(now - HOUR))),
  ),
  ...each('from in an hour on', (list, { now }) => (list.thisUpdate = now + HOUR)),
  ...each('expired', (list, { now }) => (list.nextUpdate = now - MINUTE)),
  ...each('expiring in 30 s', (list, { now }) => (list.nextUpdate = now + 30_000)),
  ...each('without an end', (list) => (list.nextUpdate = undefined)),
  ...each('with an end before its beginning', (list, { now }) => (list.nextUpdate = now - 48 * HOUR)),
  ...each('beginning in a long form', (list, { now }) => (list.thisUpdate = text(`${stamp(now - HOUR)}Z`))),
  ...each('beginning with a fraction', (list, { now }) => (list.thisUpdate = text(`${stamp(now - HOUR)}.5Z`))),
  ...each(
    'beginning with an offset',
    (list, { now }) => (list.thisUpdate = text(`${stamp(now - HOUR).slice(2)}+0100`, 0x17)),
  ),
  ...each(
    'ending without seconds',
    (list, { now }) => (list.nextUpdate = text(`${stamp(now + HOUR).slice(2, 12)}Z`, 0x17)),
  ),
  ...each('ending in a local time', (list, { now }) => (list.nextUpdate = text(stamp(now + HOUR)))),
  ...each('ending in 2060', (list) => (list.nextUpdate = text('20600101000000Z'))),
  ...each('ending in 9999', (list) => (list.nextUpdate = text('99991231235959Z'))),
  ...each('signed by another key', (list, { fresh }) => (list.signer = fresh())),
  ...each('signed by an RSA key', (list, { fresh }) => (list.signer = fresh('rsa2048'))),
  ...(['sha1', 'sha384', 'sha512'] as const).flatMap((digest) =>
    each(`signed with ${digest}`, (list) => (list.digest = digest)),
  ),
  ...each('two algorithms', (list) => {
    const other = der.sequence(der.oid('1.2.840.10045.4.3.3'));
    list.editWhole = ([signed = Buffer.of(), , signature = Buffer.of()]) => [signed, other, signature];
  }),
  ...each('a signature with a flipped bit', (list) => {
    list.editBytes = (bytes) => Buffer.concat([bytes.subarray(0, -1), Buffer.of((bytes.at(-1) ?? 0) ^ 1)]);
  }),
  ...each('a signature with unused bits', (list) => {
    list.editWhole = ([signed = Buffer.of(), algorithm = Buffer.of(), signature = Buffer.of()]) => [
      signed,
      algorithm,
      der.bits(der.split(signature).content.subarray(1), 3),
    ];
  }),
  ...each('a fourth part', (list) => (list.editWhole = (parts) => [...parts, der.nothing()])),
  ...each('bytes after it', (list) => (list.editBytes = (bytes) => Buffer.concat([bytes, Buffer.of(0)]))),
  ...each('a length of four bytes', (list) => (list.editBytes = der.longLength)),
  ...each('an indefinite length', (list) => (list.editBytes = der.indefiniteLength)),
  ...each('a random byte', (list, _world, random) => {
    const [place, value] = [random.int(1 << 20), random.int(256)];
    list.editBytes = (bytes) => {
      const changed = Buffer.from(bytes);
      changed[place % changed.length] = value;
      return changed;
    };
  }),
  ...each('cut short', (list, _world, random) => {
    const place = random.int(1 << 20);
    list.editBytes = (bytes) => bytes.subarray(0, place % bytes.length);
  }),
  ...each('issuer of another name', (list) => (list.issuerName = name([OID.commonName, 'nobody']))),
  ...each('issuer in capitals', (list) => {
    list.issuerName = name([OID.organization, 'TD.EXAMPLE'], [OID.commonName, list.role.toUpperCase()]);
  }),
  ...each('issuer in printable strings', (list) => {
    const { printable } = der.STRING;
    list.issuerName = name([OID.organization, 'td.example', printable], [OID.commonName, list.role, printable]);
  }),
  ...each('an empty issuer', (list) => (list.issuerName = name())),

  ...ofCa('CA without cRLSign', (ca) => put(ca, OID.keyUsage, der.namedBits(5), true)),
  ...ofCa('CA without key usage', (ca) => drop(ca, OID.keyUsage)),
  ...ofCa('CA without key id', (ca) => drop(ca, OID.subjectKeyId)),
  ...(['p384', 'p521', 'rsa2048', 'ed25519'] as const).flatMap((kind) =>
    ofCa(`CA with a key ${kind}`, (ca, { fresh }) => (ca.key = fresh(kind))),
  ),
  ofSet('PSS by an RSA key @root', (world) => {
    world.root.key = world.fresh('rsa2048');
    listOf(world, 'root').pss = true;
  }),

  ...ROLES.map((role) =>
    ofSet(`no list @${role}`, (world) => (world.lists = world.lists.filter((one) => one.role !== role))),
  ).map(
    ({ label, apply }): CrlVariation => ({ label, apply: (world, random) => later(world, () => apply(world, random)) }),
  ),
  ...(
    [
      ['an older copy', { ago: 2 * HOUR }],
      ['an expired copy', { ago: 48 * HOUR, end: -HOUR }],
      ['a newer delta', { ago: 30_000, delta: true }],
      ['an older delta', { ago: 2 * HOUR, delta: true }],
      ['a delta of the same time', { ago: HOUR, delta: true }],
      ['a newer copy by another key', { ago: 30_000, forged: true }],
      ['a newer copy without key id by another key', { ago: 30_000, forged: true, keyless: true }],
      ['a copy of tomorrow', { ago: -24 * HOUR }],
    ] as const
  ).flatMap(([what, kind]: readonly [string, CopyOptions]) =>
    (['before', 'after'] as const).flatMap((where) =>
      each(`${what} ${where} it`, (list, world) => copy(list, world, kind, where)),
    ),
  ),
  ofSet('the lists reversed', (world) => later(world, () => world.lists.reverse())),
  ofSet('another root with its list', (world) => another(world, 'another', true)),
  ofSet('another root without a list', (world) => another(world, 'another', false)),
  ofSet('another root of the same name with its list', (world) => another(world, 'root', true)),
  ofSet('another root of the same name without a list', (world) => another(world, 'root', false)),
  ofSet('another root of the same name, no key ids', (world) => {
    another(world, 'root', true);
    for (const ca of world.bundle) drop(ca, OID.subjectKeyId);
  }),
  ofSet('another root of the same name, lists without key ids', (world) => {
    another(world, 'root', true);
    for (const list of world.lists) own(list, OID.authorityKeyId, () => undefined);
  }),
  ofSet('the list of a stranger', (world) => {
    const stranger = authority('root', 'stranger', world.fresh(), world.now, undefined);
    world.lists.push(listFor('root', stranger, world.now));
  }),
  ofSet('the intermediate in the bundle', (world) => world.bundle.push(world.intermediate)),
  ofSet('the intermediate is the only root', (world) => (world.bundle = [world.intermediate])),
  ofSet('an intermediate of another in the bundle', (world) => {
    const above = authority('root', 'above', world.fresh(), world.now, undefined);
    const anchor = authority('root', 'anchor', world.fresh(), world.now, above);
    world.bundle.push(anchor);
    world.lists.push(listFor('root', anchor, world.now), listFor('root', above, world.now));
  }),
];

interface CopyOptions {
  readonly ago: number;
  readonly end?: number;
  readonly delta?: boolean;
  readonly forged?: boolean;
  readonly keyless?: boolean;
}

const waiting = new WeakMap<World, (() => void)[]>();
/** What changes the set waits until each list was changed. */
const later = (world: World, change: () => void): void => {
  waiting.set(world, [...(waiting.get(world) ?? []), change]);
};

function copy(list: List, world: World, kind: CopyOptions, where: 'before' | 'after'): void {
  later(world, () => {
    const { ago, end = 24 * HOUR, delta, forged, keyless } = kind;
    const made: List = { ...list, thisUpdate: world.now - ago, nextUpdate: world.now + end };
    made.extensions = list.extensions.filter(({ id }) => !(keyless && id === OID.authorityKeyId));
    if (delta) made.extensions.push({ id: DELTA, critical: true, value: der.integer(1) });
    if (forged) made.signer = keyOf('p256', 900);
    world.lists = where === 'before' ? [made, ...world.lists] : [...world.lists, made];
  });
}

function another(world: World, commonName: string, hasList: boolean): void {
  const root = authority('root', commonName, world.fresh(), world.now, undefined);
  world.bundle.push(root);
  if (hasList) world.lists.push(listFor('root', root, world.now));
}

const byName = (issuer: Cert, serial: Buffer): Buffer =>
  der.sequence(der.explicit(1, der.explicit(4, (issuer.issuer ?? issuer).subject)), der.implicit(2, serial));

const listFor = (role: List['role'], issuer: Cert, now: number, ...entries: Buffer[]): List => ({
  ...{ role, issuer, version: 1, thisUpdate: now - HOUR, nextUpdate: now + 24 * HOUR, entries, digest: 'sha256' },
  extensions: [
    { id: OID.authorityKeyId, critical: false, value: () => der.sequence(der.implicit(0, keyIdOf(issuer.key))) },
    { id: NUMBER, critical: false, value: der.integer(1) },
  ],
});

function encodeList(list: List): Buffer {
  const { algorithm, sign } = signing(list.signer ?? list.issuer.key, list.digest, list.pss);
  const extensions = list.extensions.map(({ id, critical, value }) =>
    der.sequence(
      der.oid(id),
      ...(critical === false ? [] : [der.boolean(critical === true)]),
      der.octets(typeof value === 'function' ? value(list.issuer) : value),
    ),
  );
  const parts = [
    ...(list.version === undefined ? [] : [der.integer(list.version)]),
    algorithm,
    list.issuerName ?? list.issuer.subject,
    encodeMoment(list.thisUpdate),
    ...(list.nextUpdate === undefined ? [] : [encodeMoment(list.nextUpdate)]),
    ...(list.entries.length > 0 ? [der.sequence(...list.entries)] : []),
    ...(extensions.length > 0 ? [der.explicit(0, der.sequence(...extensions))] : []),
  ];
  const signed = der.sequence(...(list.editSigned?.(parts) ?? parts));
  const whole = [signed, algorithm, der.bits(sign(signed))];
  const bytes = der.sequence(...(list.editWhole?.(whole) ?? whole));
  return list.editBytes?.(bytes) ?? bytes;
}

const BY_LABEL = new Map(VARIATIONS.map((one) => [one.label, one]));
const CHANGES = [0, 1, 1, 1, 1, 1, 2, 2, 3] as const;

export function makeCrlCase(seed: number, now: number, labels: readonly string[] = labelsOf(seed)): CrlCase {
  const taken = new Map<KeyKind, number>();
  const fresh = (kind: KeyKind = 'p256') => {
    const n = taken.get(kind) ?? 0;
    taken.set(kind, n + 1);
    return keyOf(kind, n);
  };
  const root = authority('root', 'root', fresh(), now, undefined);
  const intermediate = authority('intermediate', 'intermediate', fresh(), now, root);
  const [good, revoked] = [
    workload('spiffe', fresh(), now, intermediate),
    workload('spiffe', fresh(), now, intermediate),
  ];
  const entries = [entry(revoked.serial, encodeMoment(now - HOUR))];
  const lists = [listFor('intermediate', intermediate, now, ...entries), listFor('root', root, now)];
  const world: World = { now, root, intermediate, bundle: [root], lists, fresh };
  for (const label of labels) {
    const variation = BY_LABEL.get(label);
    if (!variation) throw new RangeError(`there is no variation ${JSON.stringify(label)}`);
    variation.apply(world, new Random(seedOf(seed, label)));
  }
  for (const change of waiting.get(world) ?? []) change();
  const certificate = (cert: Cert) => der.pem('CERTIFICATE', encode(cert));
  const above = certificate(intermediate);
  const pairOf = (leaf: Cert): Pair => ({ chain: `${certificate(leaf)}${above}`, key: leaf.key.pem });
  return {
    ...{ seed, labels, good: pairOf(good), revoked: pairOf(revoked) },
    roots: [...world.bundle].map((cert) => (cert === intermediate ? above : certificate(cert))).join(''),
    crls: world.lists.map((list) => der.pem('X509 CRL', encodeList(list))).join(''),
  };
}

function labelsOf(seed: number): string[] {
  const random = new Random(seedOf(seed, 'crl changes'));
  return Array.from({ length: random.pick(CHANGES) }, () => random.pick(VARIATIONS).label);
}

interface CrlOpinion {
  /** PEM; undefined: none may be published. */
  readonly published: string | undefined;
  readonly reason: string;
}

const preflight = opensslPreflight();

/** What the agent would publish of these CRLs. */
async function published({ roots, crls, good }: CrlCase, now: number): Promise<CrlOpinion> {
  const refused = (reason: string): CrlOpinion => ({ published: undefined, reason });
  try {
    const pair = { key: PrivateKey.fromPem(good.key), chain: parseCertificates(good.chain) };
    const bundle = parseCertificates(roots);
    const verdict = verify(pair, bundle, { form: 'spiffe' }, now);
    if (!verdict.ok) return refused(`${verdict.code}: ${verdict.message}`);
    const isRoot = ({ fingerprint }: (typeof bundle)[number]) => bundle.some((one) => one.fingerprint === fingerprint);
    const above = verdict.path.slice(1).filter((one) => !isRoot(one));
    const choice = chooseCrls(parseCrls(crls), [...above, ...bundle], now);
    if (!choice.ok) return refused(`${choice.problem.code}: ${choice.problem.message}`);
    const proof = await preflight(pair, bundle, choice.crls);
    return proof.ok ? { published: formatCrls(choice.crls), reason: '' } : refused(`${proof.code}: ${proof.message}`);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!code?.startsWith('ERR_')) throw error;
    return refused(`${code}: ${message}`);
  }
}

/** A case that a judge takes for something else than we do, with what it said. */
export interface CrlFinding {
  readonly at: CrlCase;
  readonly why: string;
}

export interface CrlResult {
  readonly cases: number;
  readonly accepted: number;
  /** Accepted by us: Envoy refuses the good upstream, or accepts the revoked one. */
  readonly envoy: readonly CrlFinding[];
  readonly openssl: readonly CrlFinding[];
  readonly go: readonly CrlFinding[];
  /** Refused by us, and used by Envoy as they are. */
  readonly strict: readonly CrlFinding[];
}

/** Go reads no CRL of version 1. */
const GO_DIFFERS = /unsupported crl version/;
const BATCH = 100;

/** Judges CRLs by us, OpenSSL, Go and Envoy. Envoy judges by handshakes with both upstreams. */
export async function fuzzCrls(cases: number, from: number, go: GoJudge): Promise<CrlResult> {
  const result = { cases, accepted: 0, envoy: [], openssl: [], go: [], strict: [] } as {
    cases: number;
    accepted: number;
  } & Record<'envoy' | 'openssl' | 'go' | 'strict', CrlFinding[]>;
  for (let done = 0; done < cases; done += BATCH) {
    const now = Date.now();
    const seeds = Array.from({ length: Math.min(BATCH, cases - done) }, (_, n) => from + done + n);
    const all = await Promise.all(
      seeds.map(async (seed) => {
        const at = makeCrlCase(seed, now);
        return { at, ours: await published(at, Date.now()) };
      }),
    );
    const answers = await crlsAtEnvoy(all.map(({ at, ours }) => ({ ...at, crls: ours.published ?? at.crls })));
    for (const [n, { at, ours }] of all.entries()) {
      const envoy = answers[n] ?? 'no answer';
      if (ours.published === undefined) {
        if (envoy === 'used') result.strict.push({ at, why: ours.reason });
        continue;
      }
      result.accepted += 1;
      if (envoy !== 'used') result.envoy.push({ at, why: envoy });
      const cli = opensslOn(at, ours.published);
      if (cli !== undefined) result.openssl.push({ at, why: cli });
      const said = await goOn(at, ours.published, go);
      if (said !== undefined && !GO_DIFFERS.test(said)) result.go.push({ at, why: said });
    }
  }
  return result;
}

function opensslOn({ roots, good, revoked }: CrlCase, crls: string): string | undefined {
  const files = { 'roots.pem': roots, 'crls.pem': crls, 'good.pem': good.chain, 'revoked.pem': revoked.chain };
  return withFiles(files, (path) => {
    const verdict = (which: string) =>
      openssl([
        ...['verify', '-partial_chain', '-crl_check_all', '-no-CApath', '-no-CAstore', '-CAfile', path('roots.pem')],
        ...['-CRLfile', path('crls.pem'), '-untrusted', path(which), path(which)],
      ]);
    const [first, second] = [verdict('good.pem'), verdict('revoked.pem')];
    if (!first.ok) return first.output.trim();
    return !second.ok && /revoked/.test(second.output) ? undefined : `the revoked one: ${second.output.trim()}`;
  });
}

async function goOn({ roots, good, revoked }: CrlCase, crls: string, go: GoJudge): Promise<string | undefined> {
  const [first, second] = await Promise.all([good, revoked].map(({ chain }) => go.judge({ chain, roots, crls })));
  if (!first?.ok) return `${first?.stage}: ${first?.reason}`;
  return second?.stage === 'revoked' ? undefined : `the revoked one: ${second?.stage ?? 'accepted'}`;
}

/** Results that must not occur. */
export const unknownCrls = ({ envoy, openssl: cli, go }: CrlResult): readonly CrlFinding[] => [...envoy, ...cli, ...go];

export function crlTable(result: CrlResult): string {
  const rows: readonly (readonly [string, number])[] = [
    ['sets of CRLs', result.cases],
    ['accepted by us', result.accepted],
    ['of these not loaded or not used by Envoy in a handshake', result.envoy.length],
    ['of these refused or not used by OpenSSL', result.openssl.length],
    ['of these refused or not used by Go, other than of version 1', result.go.length],
    ['refused by us, used by Envoy', result.strict.length],
  ];
  return ['| | |\n|---|---|', ...rows.map(([what, n]) => `| ${what} | ${n} |`)].join('\n');
}

export const describeCrl = ({ at, why }: CrlFinding): string => `seed ${at.seed}: ${at.labels.join(' + ')}: ${why}`;
