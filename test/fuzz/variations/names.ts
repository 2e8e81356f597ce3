import { DNS_NAME, dns, drop, name, OID, put, SPIFFE_ID, uri } from '../blueprint.ts';
import * as der from '../der.ts';
import { EVERYWHERE, LEAF, ofCert, type Variation } from '../variation.ts';

const URIS: readonly string[] = [
  'spiffe://td.example',
  'spiffe://td.example/',
  'spiffe://td.example/ns/shop/',
  'spiffe://TD.example/ns/shop',
  'SPIFFE://td.example/ns/shop',
  'spiffe://td.example//ns',
  'spiffe://td.example/./ns',
  'spiffe://td.example/../ns',
  'spiffe://td.example/ns?a=b',
  'spiffe://td.example/ns#a',
  'spiffe://user@td.example/ns',
  'spiffe://td.example:8080/ns',
  'spiffe://td_under.example/ns',
  'spiffe://-td.example/ns',
  'spiffe://10.0.0.1/ns',
  'spiffe://[::1]/ns',
  'spiffe://[::1/ns',
  'spiffe://td.example/n%41',
  'spiffe://td.example/n%zz',
  'spiffe://td.example/a b',
  'spiffe://td.example/\xe9',
  'spiffe://td.example/\0',
  'spiffe://td.example/\n',
  'spiffe:///ns/shop',
  'spiffe:td.example/ns',
  'spiffe//td.example/ns',
  'https://td.example/ns',
  'urn:uuid:1',
  '://',
  ':',
  '',
  `spiffe://td.example/${'a'.repeat(2028)}`,
  `spiffe://td.example/${'a'.repeat(5000)}`,
  `spiffe://${'t'.repeat(256)}/ns`,
];

const HOSTS: readonly string[] = [
  '*.td.example',
  'web.*.example',
  '*',
  'under_score.td.example',
  '-web.td.example',
  'web.td.example.',
  '.td.example',
  'web..example',
  'w\xe9b.example',
  'xn--wb-bja.example',
  'web td.example',
  'web\0.example',
  '',
  '10.0.0.1',
  `${'a'.repeat(64)}.example`,
  'WEB.SHOP.example',
  `${'abc.'.repeat(80)}example`,
];

const other = der.tlv(0xa0, der.oid('1.3.6.1.4.1.311.20.2.3'), der.explicit(0, der.tlv(0x0c, der.ascii('a@b'))));
const OTHERS: readonly (readonly [string, Buffer])[] = [
  ['other name', other],
  ['other name broken', der.tlv(0xa0, der.integer(1))],
  ['directory name', der.tlv(0xa4, name([OID.commonName, 'a']))],
  ['X.400 address', der.tlv(0xa3, der.sequence())],
  ['EDI party', der.tlv(0xa5, der.tlv(0xa1, der.tlv(0x0c, der.ascii('a'))))],
  ['registered ID', der.implicit(8, Buffer.of(0x2a, 3))],
  ['address of four bytes', der.implicit(7, Buffer.of(10, 0, 0, 1))],
  ['address of 16 bytes', der.implicit(7, Buffer.alloc(16, 1))],
  ['address of five bytes', der.implicit(7, Buffer.alloc(5, 1))],
  ['address of no bytes', der.implicit(7, Buffer.alloc(0))],
  ['email', der.implicit(1, der.ascii('a@td.example'))],
  ['email broken', der.implicit(1, der.ascii('a b@@'))],
  ['email not ASCII', der.implicit(1, der.ascii('\xe9@td.example'))],
  ['tag 9', der.implicit(9, Buffer.of(1))],
  ['universal tag', der.tlv(0x16, der.ascii('a'))],
  ['constructed URI', der.tlv(0xa6, der.tlv(0x16, der.ascii('spiffe://td.example/a')))],
  ['constructed DNS', der.tlv(0xa2, der.tlv(0x16, der.ascii('td.example')))],
];

const own = (form: string): Buffer => (form === 'spiffe' ? uri(SPIFFE_ID) : dns(DNS_NAME));
const shown = (text: string): string =>
  JSON.stringify(text.length > 60 ? `${text.slice(0, 30)}… of ${text.length}` : text);

export const NAMES: readonly Variation[] = [
  ...URIS.flatMap((text) => [
    ...ofCert(`URI ${shown(text)}`, EVERYWHERE, (cert) =>
      put(cert, OID.subjectAltName, der.sequence(uri(text)), cert.role === 'leaf'),
    ),
    ...ofCert(`a second URI ${shown(text)}`, LEAF, (cert, _random, { form }) =>
      put(cert, OID.subjectAltName, der.sequence(own(form), uri(text)), true),
    ),
  ]),
  ...HOSTS.flatMap((text) => [
    ...ofCert(`DNS ${shown(text)}`, EVERYWHERE, (cert) =>
      put(cert, OID.subjectAltName, der.sequence(dns(text)), cert.role === 'leaf'),
    ),
    ...ofCert(`and DNS ${shown(text)}`, LEAF, (cert, _random, { form }) =>
      put(cert, OID.subjectAltName, der.sequence(own(form), dns(text)), true),
    ),
  ]),
  ...OTHERS.flatMap(([what, value]) => [
    ...ofCert(`and ${what}`, LEAF, (cert, _random, { form }) =>
      put(cert, OID.subjectAltName, der.sequence(own(form), value), true),
    ),
    ...ofCert(`named by ${what}`, EVERYWHERE, (cert) => put(cert, OID.subjectAltName, der.sequence(value))),
  ]),
  ...ofCert('no names', LEAF, (cert) => drop(cert, OID.subjectAltName)),
  ...ofCert('no names, a common name', LEAF, (cert) => {
    drop(cert, OID.subjectAltName);
    cert.subject = name([OID.commonName, DNS_NAME]);
  }),
  ...ofCert('an empty list of names', EVERYWHERE, (cert) => put(cert, OID.subjectAltName, der.sequence())),
  ...ofCert('names in a SET', EVERYWHERE, (cert, _random, { form }) =>
    put(cert, OID.subjectAltName, der.setOf(own(form))),
  ),
  ...ofCert('names with a tail', EVERYWHERE, (cert, _random, { form }) =>
    put(cert, OID.subjectAltName, Buffer.concat([der.sequence(own(form)), der.nothing()])),
  ),
  ...ofCert('names with a long length', EVERYWHERE, (cert, _random, { form }) =>
    put(cert, OID.subjectAltName, der.longLength(der.sequence(own(form)))),
  ),
  ...ofCert('critical names', EVERYWHERE, (cert, _random, { form }) =>
    put(cert, OID.subjectAltName, der.sequence(own(form)), true),
  ),
  ...ofCert('500 names', LEAF, (cert, _random, { form }) =>
    put(
      cert,
      OID.subjectAltName,
      der.sequence(own(form), ...Array.from({ length: 500 }, (_, n) => dns(`w${n}.example`))),
    ),
  ),
];
