import { name, OID, put, timeText } from '../blueprint.ts';
import * as der from '../der.ts';
import { EVERYWHERE, ISSUERS, LEAF, ofCert, type Variation } from '../variation.ts';

const HOUR = 3_600_000;
const YEAR = 365 * 24 * HOUR;
const UTC = 0x17;
const GENERALIZED = 0x18;

/** A change to one of the signed fields: version, serial, algorithm, issuer, validity, subject, key. */
const part =
  (at: number, change: (value: Buffer) => Buffer) =>
  (parts: Buffer[]): Buffer[] =>
    parts.map((value, n) => (n === at ? change(value) : value));

const VERSIONS: readonly Variation[] = [0, 1, 3, 4, 127].flatMap((version) => [
  ...ofCert(`version ${version + 1}`, EVERYWHERE, (cert) => {
    cert.version = version;
  }),
  ...ofCert(`version ${version + 1} without extensions`, EVERYWHERE, (cert) => {
    cert.version = version;
    cert.extensions = [];
  }),
]);

const MORE_VERSIONS: readonly Variation[] = [
  ...ofCert('no version', EVERYWHERE, (cert) => {
    cert.version = undefined;
  }),
  ...ofCert('no version, no extensions', EVERYWHERE, (cert) => {
    cert.version = undefined;
    cert.extensions = [];
  }),
  ...ofCert('version of two bytes', EVERYWHERE, (cert) => {
    cert.editSigned = part(0, () => der.explicit(0, der.integer(Buffer.of(0, 2))));
  }),
  ...ofCert('version below zero', EVERYWHERE, (cert) => {
    cert.version = 0xff;
  }),
  ...ofCert('issuer and subject unique ids', EVERYWHERE, (cert) => {
    cert.editSigned = (parts) => [...parts.slice(0, 7), unique(1), unique(2), ...parts.slice(7)];
  }),
  ...ofCert('unique ids in version 1', EVERYWHERE, (cert) => {
    cert.version = undefined;
    cert.extensions = [];
    cert.editSigned = (parts) => [...parts, unique(1)];
  }),
];

const unique = (n: number): Buffer => der.implicit(n, Buffer.of(0, 1, 2, 3));

const STRINGS: readonly (readonly [string, number, Buffer])[] = [
  ['T61String', der.STRING.t61, der.ascii('caf\xe9')],
  ['BMPString', der.STRING.bmp, Buffer.of(0, 0x61, 0, 0x62)],
  ['BMPString of three bytes', der.STRING.bmp, Buffer.of(0, 0x61, 0)],
  ['UniversalString', der.STRING.universal, Buffer.of(0, 0, 0, 0x61)],
  ['IA5String', der.STRING.ia5, der.ascii('abc')],
  ['IA5String with a high byte', der.STRING.ia5, Buffer.of(0xe9)],
  ['PrintableString', der.STRING.printable, der.ascii('abc')],
  ['PrintableString with @ and *', der.STRING.printable, der.ascii('a@*_')],
  ['UTF8String not UTF-8', der.STRING.utf8, Buffer.of(0xff, 0xfe)],
  ['UTF8String with NUL', der.STRING.utf8, Buffer.of(0x61, 0, 0x62)],
  ['empty string', der.STRING.utf8, Buffer.alloc(0)],
  ['string of 200 bytes', der.STRING.utf8, Buffer.alloc(200, 0x61)],
  ['OCTET STRING', 0x04, Buffer.of(1)],
  ['NumericString with letters', 0x12, der.ascii('abc')],
  ['unknown tag', 0x1d, Buffer.of(1)],
];

const attribute = (type: string, tag: number, content: Buffer) => der.sequence(der.oid(type), der.tlv(tag, content));
const common = attribute(OID.commonName, der.STRING.utf8, Buffer.from('a'));
const organization = attribute(OID.organization, der.STRING.utf8, Buffer.from('b'));

const NAMES: readonly (readonly [string, Buffer])[] = [
  ...STRINGS.map(
    ([what, tag, content]) => [what, der.sequence(der.setOf(attribute(OID.commonName, tag, content)))] as const,
  ),
  ['an empty RDN', der.sequence(der.setOf())],
  ['an empty RDN after another', der.sequence(der.setOf(common), der.setOf())],
  ['an RDN of two', der.sequence(der.setOf(common, organization))],
  ['an RDN of two in the wrong order', der.sequence(der.setOf(organization, common))],
  ['an RDN of the same twice', der.sequence(der.setOf(common, common))],
  ['an RDN that is a SEQUENCE', der.sequence(der.sequence(common))],
  ['an attribute without a value', der.sequence(der.setOf(der.sequence(der.oid(OID.commonName))))],
  [
    'an attribute with two values',
    der.sequence(der.setOf(der.sequence(der.oid(OID.commonName), der.integer(1), der.integer(2)))),
  ],
  ['a country of three letters', name([OID.country, 'USA', der.STRING.printable])],
  ['two common names', name([OID.commonName, 'a'], [OID.commonName, 'b'])],
  ['an unknown attribute', name(['1.3.6.1.4.1.55555.2', 'x'])],
  ['100 attributes', name(...Array.from({ length: 100 }, (_, n) => [OID.organization, `o${n}`] as const))],
  ['nothing', name()],
  ['a SET', der.setOf(common)],
];

const SUBJECTS: readonly Variation[] = NAMES.flatMap(([what, subject]) => [
  ...ofCert(`subject with ${what}`, EVERYWHERE, (cert) => {
    cert.subject = subject;
  }),
]);

const MORE_SUBJECTS: readonly Variation[] = [
  ...ofCert('issuer in another string type', ['leaf', 'intermediate'], (cert) => {
    const above = cert.issuer ?? cert;
    above.subject = name([OID.organization, 'td.example'], [OID.commonName, 'same text']);
    cert.issuerName = name([OID.organization, 'td.example'], [OID.commonName, 'same text', der.STRING.printable]);
  }),
  ...ofCert('issuer in other letters', ['leaf', 'intermediate'], (cert) => {
    const above = cert.issuer ?? cert;
    above.subject = name([OID.commonName, 'Same  Text']);
    cert.issuerName = name([OID.commonName, 'same text']);
  }),
  ...ofCert('another issuer name', EVERYWHERE, (cert) => {
    cert.issuerName = name([OID.commonName, 'somebody else']);
  }),
  ...ofCert('issuer name empty', EVERYWHERE, (cert) => {
    cert.issuerName = name();
  }),
  ...ofCert('subject empty, names not critical', LEAF, (cert) => {
    cert.subject = name();
    for (const one of cert.extensions) if (one.id === OID.subjectAltName) one.critical = false;
  }),
  ...ofCert('subject there, names critical', LEAF, (cert) => {
    cert.subject = name([OID.commonName, 'web']);
  }),
  ...ofCert('subject there, names not critical', LEAF, (cert) => {
    cert.subject = name([OID.commonName, 'web']);
    for (const one of cert.extensions) if (one.id === OID.subjectAltName) one.critical = false;
  }),
];

const moments: readonly (readonly [string, (ms: number) => { tag: number; text: string }])[] = [
  ['as GeneralizedTime', (ms) => ({ tag: GENERALIZED, text: timeText(ms) })],
  ['without seconds', (ms) => ({ tag: UTC, text: `${timeText(ms).slice(2, 12)}Z` })],
  ['with an offset', (ms) => ({ tag: UTC, text: `${timeText(ms).slice(2, 14)}+0000` })],
  ['with an offset of an hour', (ms) => ({ tag: GENERALIZED, text: `${timeText(ms).slice(0, 14)}+0100` })],
  ['with a fraction', (ms) => ({ tag: GENERALIZED, text: `${timeText(ms).slice(0, 14)}.5Z` })],
  ['without Z', (ms) => ({ tag: GENERALIZED, text: timeText(ms).slice(0, 14) })],
  ['with a small z', (ms) => ({ tag: UTC, text: `${timeText(ms).slice(2, 14)}z` })],
  ['of another type', (ms) => ({ tag: 0x0c, text: timeText(ms).slice(2) })],
  ['with four digits as UTCTime', (ms) => ({ tag: UTC, text: timeText(ms) })],
  ['on 30 February', (ms) => ({ tag: UTC, text: `${timeText(ms).slice(2, 4)}0230000000Z` })],
  ['at 24 o’clock', (ms) => ({ tag: UTC, text: `${timeText(ms).slice(2, 8)}240000Z` })],
  ['in second 60', (ms) => ({ tag: UTC, text: `${timeText(ms).slice(2, 12)}60Z` })],
  ['empty', () => ({ tag: UTC, text: '' })],
];

const TIMES: readonly Variation[] = [
  ...moments.flatMap(([what, make]) => [
    ...ofCert(`begin ${what}`, EVERYWHERE, (cert) => {
      if (typeof cert.notBefore === 'number') cert.notBefore = make(cert.notBefore);
    }),
    ...ofCert(`end ${what}`, EVERYWHERE, (cert) => {
      if (typeof cert.notAfter === 'number') cert.notAfter = make(cert.notAfter);
    }),
  ]),
  ...ofCert('expired', EVERYWHERE, (cert, random, { now }) => {
    cert.notBefore = now - 10 * YEAR;
    cert.notAfter = now - HOUR * (1 + random.int(10_000));
  }),
  ...ofCert('valid in 10 s', EVERYWHERE, (cert, _random, { now }) => {
    cert.notBefore = now + 10_000;
  }),
  ...ofCert('not yet valid', EVERYWHERE, (cert, random, { now }) => {
    cert.notBefore = now + HOUR * (1 + random.int(10_000));
  }),
  ...ofCert('ends before it begins', EVERYWHERE, (cert, _random, { now }) => {
    cert.notBefore = now + 2 * HOUR;
    cert.notAfter = now - 2 * HOUR;
  }),
  ...ofCert('until 9999', EVERYWHERE, (cert) => {
    cert.notAfter = { tag: GENERALIZED, text: '99991231235959Z' };
  }),
  ...ofCert('until 2050', EVERYWHERE, (cert) => {
    cert.notAfter = Date.UTC(2050, 0, 1);
  }),
  ...ofCert('until 2049 as GeneralizedTime', EVERYWHERE, (cert) => {
    cert.notAfter = { tag: GENERALIZED, text: '20491231235959Z' };
  }),
  ...ofCert('since 1950', ISSUERS, (cert) => {
    cert.notBefore = { tag: UTC, text: '500101000000Z' };
  }),
  ...ofCert('since 1900', ISSUERS, (cert) => {
    cert.notBefore = { tag: GENERALIZED, text: '19000101000000Z' };
  }),
  ...ofCert('since year 0', ISSUERS, (cert) => {
    cert.notBefore = { tag: GENERALIZED, text: '00000101000000Z' };
  }),
  ...ofCert('ends after its issuer', LEAF, (cert, _random, { now }) => {
    cert.notAfter = now + 50 * YEAR;
  }),
];

const SERIALS: readonly Variation[] = (
  [
    ['zero', Buffer.of(0)],
    ['below zero', Buffer.of(0x80, 1)],
    ['of 20 bytes', Buffer.alloc(20, 0x7f)],
    ['of 21 bytes', Buffer.alloc(21, 0x7f)],
    ['of 100 bytes', Buffer.alloc(100, 0x7f)],
    ['with a zero before it', Buffer.of(0, 1)],
    ['with ones before it', Buffer.of(0xff, 0x80)],
    ['empty', Buffer.alloc(0)],
    ['the same for all', Buffer.of(1)],
  ] as const
).flatMap(([what, serial]) =>
  ofCert(`serial ${what}`, EVERYWHERE, (cert, _random, { chain, bundle }) => {
    cert.serial = serial;
    if (what === 'the same for all') for (const other of [...chain, ...bundle]) other.serial = serial;
  }),
);

const FORMS: readonly Variation[] = [
  ...ofCert('whole with a long length', EVERYWHERE, (cert) => {
    cert.editBytes = der.longLength;
  }),
  ...ofCert('whole with an indefinite length', EVERYWHERE, (cert) => {
    cert.editBytes = der.indefiniteLength;
  }),
  ...ofCert('whole with a tail', EVERYWHERE, (cert) => {
    cert.editBytes = (bytes) => Buffer.concat([bytes, Buffer.of(0)]);
  }),
  ...ofCert('whole cut short', EVERYWHERE, (cert) => {
    cert.editBytes = (bytes) => bytes.subarray(0, -1);
  }),
  ...ofCert('a fourth part', EVERYWHERE, (cert) => {
    cert.editWhole = (parts) => [...parts, der.nothing()];
  }),
  ...ofCert('signed part with a tail', EVERYWHERE, (cert) => {
    cert.editSigned = (parts) => [...parts, der.nothing()];
  }),
  ...ofCert('validity with a long length', EVERYWHERE, (cert) => {
    cert.editSigned = part(4, der.longLength);
  }),
  ...ofCert('validity with an indefinite length', EVERYWHERE, (cert) => {
    cert.editSigned = part(4, der.indefiniteLength);
  }),
  ...ofCert('validity with a tail', EVERYWHERE, (cert) => {
    cert.editSigned = part(4, (value) => der.sequence(der.split(value).content, der.nothing()));
  }),
  ...ofCert('subject with a long length', EVERYWHERE, (cert) => {
    cert.subject = der.longLength(cert.subject);
  }),
  ...ofCert('serial with a long length', EVERYWHERE, (cert) => {
    cert.editSigned = part(1, der.longLength);
  }),
  ...ofCert('extensions with an indefinite length', EVERYWHERE, (cert) => {
    cert.editSigned = (parts) => [...parts.slice(0, -1), der.indefiniteLength(parts.at(-1) ?? der.nothing())];
  }),
  ...ofCert('issuer and validity change places', EVERYWHERE, (cert) => {
    cert.editSigned = ([version, serial, algorithm, issuer, validity, ...rest]) =>
      [version, serial, algorithm, validity, issuer, ...rest].filter((one) => one !== undefined);
  }),
  ...ofCert('a random byte changes before it is signed', EVERYWHERE, (cert, random) => {
    cert.editSigned = (parts) => {
      const at = random.int(parts.length);
      return part(at, (value) => flip(value, random.int(value.length), 1 << random.int(8)))(parts);
    };
  }),
  ...ofCert('key usage encoded with its content twice', EVERYWHERE, (cert) =>
    put(cert, OID.keyUsage, Buffer.concat([der.namedBits(0), der.namedBits(0)]), true),
  ),
];

function flip(value: Buffer, at: number, bit: number): Buffer {
  const changed = Buffer.from(value);
  changed[at] = (changed[at] ?? 0) ^ bit;
  return changed;
}

export const ENCODING: readonly Variation[] = [
  ...VERSIONS,
  ...MORE_VERSIONS,
  ...SUBJECTS,
  ...MORE_SUBJECTS,
  ...TIMES,
  ...SERIALS,
  ...FORMS,
];
