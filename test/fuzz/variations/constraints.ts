import { DNS_NAME, dns, name, OID, put, SPIFFE_ID, uri } from '../blueprint.ts';
import * as der from '../der.ts';
import { EVERYWHERE, ISSUERS, LEAF, ofCert, type Variation } from '../variation.ts';

const permitted = (...bases: readonly Buffer[]) => der.tlv(0xa0, ...bases.map((base) => der.sequence(base)));
const excluded = (...bases: readonly Buffer[]) => der.tlv(0xa1, ...bases.map((base) => der.sequence(base)));
const constrained = (...subtrees: readonly Buffer[]) => der.sequence(...subtrees);

const email = (text: string) => der.implicit(1, der.ascii(text));
const ip = (...octets: readonly number[]) => der.implicit(7, Buffer.from(octets));
const directory = (value: Buffer) => der.tlv(0xa4, value);
const registered = () => der.implicit(8, Buffer.of(0x2a, 3, 4));
const otherName = () => der.tlv(0xa0, der.oid('1.2.3.4'), der.explicit(0, der.integer(1)));

const HOSTS = [
  'td.example',
  '.td.example',
  'other.example',
  '.example',
  'TD.example',
  'td.example.',
  '',
  '.',
  'spiffe',
];
const SUFFIXES = ['td.example', '.td.example', 'other.example', 'example', DNS_NAME.toUpperCase(), '', '.', 'xample'];
const TREES: readonly (readonly [string, Buffer])[] = [
  ...HOSTS.map((host) => [`URI ${JSON.stringify(host)}`, uri(host)] as const),
  ...SUFFIXES.map((suffix) => [`DNS ${JSON.stringify(suffix)}`, dns(suffix)] as const),
  ['URI with a scheme', uri('spiffe://td.example')],
  ['URI with a port', uri('td.example:80')],
  ['URI of an address', uri('10.0.0.1')],
  ['URI not ASCII', uri('t\xe4.example')],
  ['DNS with a wildcard', dns('*.td.example')],
  ['DNS not ASCII', dns('t\xe4.example')],
  ['DNS with a space', dns('td example')],
  ['IP of everything', ip(0, 0, 0, 0, 0, 0, 0, 0)],
  ['IP 10/8', ip(10, 0, 0, 0, 255, 0, 0, 0)],
  ['IP with a broken mask', ip(10, 0, 0, 0, 255, 0, 255, 0)],
  ['IP of three bytes', ip(10, 0, 0)],
  ['email host', email('td.example')],
  ['email @', email('a@@b')],
  ['directory empty', directory(name())],
  ['directory td.example', directory(name([OID.organization, 'td.example']))],
  ['directory other', directory(name([OID.organization, 'other']))],
  ['registered ID', registered()],
  ['other name', otherName()],
];

const SUBTREES = (base: Buffer) => [['permitted', permitted(base)] as const, ['excluded', excluded(base)] as const];

export const CONSTRAINTS: readonly Variation[] = [
  ...TREES.flatMap(([what, base]) =>
    SUBTREES(base).flatMap(([how, tree]) => [
      ...ofCert(`${how} ${what}`, ISSUERS, (cert) => put(cert, OID.nameConstraints, constrained(tree), true)),
      ...ofCert(`${how} ${what}, not critical`, ISSUERS, (cert) => put(cert, OID.nameConstraints, constrained(tree))),
    ]),
  ),
  ...ofCert('permitted ours, excluded ours', ISSUERS, (cert) =>
    put(
      cert,
      OID.nameConstraints,
      constrained(permitted(uri('td.example'), dns('td.example')), excluded(uri('td.example'), dns('td.example'))),
      true,
    ),
  ),
  ...ofCert('permitted ours and others', ISSUERS, (cert) =>
    put(
      cert,
      OID.nameConstraints,
      constrained(permitted(uri('other.example'), uri('td.example'), dns('other.example'), dns('td.example'))),
      true,
    ),
  ),
  ...ofCert('name constraints without subtrees', ISSUERS, (cert) =>
    put(cert, OID.nameConstraints, constrained(), true),
  ),
  ...ofCert('name constraints with an empty list', ISSUERS, (cert) =>
    put(cert, OID.nameConstraints, constrained(permitted()), true),
  ),
  ...ofCert('name constraints with a minimum', ISSUERS, (cert) => {
    const tree = der.tlv(0xa0, der.sequence(uri('td.example'), der.implicit(0, Buffer.of(1))));
    put(cert, OID.nameConstraints, constrained(tree), true);
  }),
  ...ofCert('name constraints with a maximum', ISSUERS, (cert) => {
    const tree = der.tlv(0xa1, der.sequence(uri('other.example'), der.implicit(1, Buffer.of(1))));
    put(cert, OID.nameConstraints, constrained(tree), true);
  }),
  ...ofCert('name constraints of another type', EVERYWHERE, (cert) =>
    put(cert, OID.nameConstraints, der.octets(Buffer.of(1)), true),
  ),
  ...ofCert('name constraints', LEAF, (cert, random) =>
    put(cert, OID.nameConstraints, constrained(permitted(uri('other.example'))), random.chance(0.5)),
  ),
  // Names that constraints have to be compared with.
  ...ofCert('common name like a host name, DNS constraint', ISSUERS, (cert, _random, { chain }) => {
    const leaf = chain[0];
    if (leaf) leaf.subject = name([OID.commonName, 'web.other.example']);
    put(cert, OID.nameConstraints, constrained(permitted(dns('td.example'))), true);
  }),
  ...[
    'spiffe:///ns/shop',
    'spiffe://10.0.0.1/ns',
    'spiffe://td.example:80/ns',
    'spiffe:td.example',
    'td.example',
  ].flatMap((odd) =>
    ofCert(`URI constraint for ${odd}`, ISSUERS, (cert, random, { chain }) => {
      if (chain[0]) put(chain[0], OID.subjectAltName, der.sequence(uri(odd)), true);
      const tree = random.chance(0.5) ? permitted(uri('td.example')) : excluded(uri('other.example'));
      put(cert, OID.nameConstraints, constrained(tree), true);
    }),
  ),
  ...ofCert('constraint of both kinds of names', ISSUERS, (cert, random, { chain }) => {
    const names = [uri(SPIFFE_ID), dns(random.pick(['web.td.example', 'web.other.example'])), ip(10, 1, 2, 3)];
    if (chain[0]) put(chain[0], OID.subjectAltName, der.sequence(...names), true);
    put(
      cert,
      OID.nameConstraints,
      constrained(permitted(random.pick([dns('td.example'), ip(10, 0, 0, 0, 255, 0, 0, 0)]))),
      true,
    );
  }),
];
