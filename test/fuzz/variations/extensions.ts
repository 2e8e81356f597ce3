import { authorityKeyId, drop, encodeExtension, find, keyIdOf, OID, put } from '../blueprint.ts';
import * as der from '../der.ts';
import { EVERYWHERE, ISSUERS, ofCert, type Variation } from '../variation.ts';

const UNKNOWN = '1.3.6.1.4.1.55555.1';

/** Well-formed values; unknown to most implementations, or known and ignored. */
const KNOWN: readonly (readonly [name: string, id: string, value: Buffer])[] = [
  ['certificate policies', OID.policies, der.sequence(der.sequence(der.oid('2.5.29.32.0')))],
  ['a policy twice', OID.policies, der.sequence(der.sequence(der.oid('1.2.3')), der.sequence(der.oid('1.2.3')))],
  ['policy constraints', OID.policyConstraints, der.sequence(der.implicit(0, Buffer.of(0)))],
  ['no policy constraints', OID.policyConstraints, der.sequence()],
  ['policy mappings', '2.5.29.33', der.sequence(der.sequence(der.oid('1.2.3'), der.oid('1.2.4')))],
  ['inhibit any policy', '2.5.29.54', der.integer(0)],
  ['private key period', '2.5.29.16', der.sequence(der.implicit(0, der.ascii('20200101000000Z')))],
  ['issuer names', '2.5.29.18', der.sequence(der.implicit(2, der.ascii('ca.example')))],
  [
    'distribution points',
    '2.5.29.31',
    der.sequence(der.sequence(der.tlv(0xa0, der.tlv(0xa0, der.implicit(6, der.ascii('http://crl.example/')))))),
  ],
  [
    'delta list',
    '2.5.29.46',
    der.sequence(der.sequence(der.tlv(0xa0, der.tlv(0xa0, der.implicit(6, der.ascii('x')))))),
  ],
  ['issuing point', '2.5.29.28', der.sequence()],
  [
    'authority information',
    '1.3.6.1.5.5.7.1.1',
    der.sequence(der.sequence(der.oid('1.3.6.1.5.5.7.48.1'), der.implicit(6, der.ascii('http://ocsp.example/')))),
  ],
  ['subject information', '1.3.6.1.5.5.7.1.11', der.sequence()],
  ['must staple', '1.3.6.1.5.5.7.1.24', der.sequence(der.integer(5))],
  ['no check', '1.3.6.1.5.5.7.48.1.5', der.nothing()],
  ['transparency', '1.3.6.1.4.1.11129.2.4.2', der.octets(Buffer.of(0, 0))],
  ['poison', '1.3.6.1.4.1.11129.2.4.3', der.nothing()],
  ['Netscape client', '2.16.840.1.113730.1.1', der.namedBits(0)],
  ['Netscape server', '2.16.840.1.113730.1.1', der.namedBits(1)],
  ['Netscape CA', '2.16.840.1.113730.1.1', der.namedBits(5)],
  ['Netscape comment', '2.16.840.1.113730.1.13', der.tlv(0x16, der.ascii('hello'))],
  ['proxy', '1.3.6.1.5.5.7.1.14', der.sequence(der.sequence(der.oid('1.3.6.1.5.5.7.21.1')))],
  ['address blocks', '1.3.6.1.5.5.7.1.7', der.sequence()],
  ['AS numbers', '1.3.6.1.5.5.7.1.8', der.sequence()],
  ['unknown', UNKNOWN, der.tlv(0x0c, der.ascii('value'))],
  ['under the arc of X.509', '2.5.29.99', der.nothing()],
];

/** Values that are not the one DER value that an extension is meant to hold. */
const BROKEN: readonly (readonly [name: string, value: Buffer])[] = [
  ['empty', Buffer.alloc(0)],
  ['text', der.ascii('no DER at all')],
  ['cut short', Buffer.of(0x30, 0x20, 0x01)],
  ['with a tail', Buffer.concat([der.nothing(), der.nothing()])],
  ['of indefinite length', der.indefiniteLength(der.sequence(der.nothing()))],
  ['with a long length', der.longLength(der.sequence(der.nothing()))],
  ['one byte', Buffer.of(0x1f)],
];

const READ: readonly (readonly [string, string])[] = [
  ['subject key id', OID.subjectKeyId],
  ['authority key id', OID.authorityKeyId],
  ['names', OID.subjectAltName],
  ['key usage', OID.keyUsage],
  ['basic constraints', OID.basicConstraints],
  ['extended usage', OID.extendedKeyUsage],
  ['policies', OID.policies],
  ['distribution points', '2.5.29.31'],
  ['authority information', '1.3.6.1.5.5.7.1.1'],
];

export const EXTENSIONS: readonly Variation[] = [
  ...KNOWN.flatMap(([what, id, value]) => [
    ...ofCert(`extension ${what}`, EVERYWHERE, (cert) => put(cert, id, value)),
    ...ofCert(`critical extension ${what}`, EVERYWHERE, (cert) => put(cert, id, value, true)),
  ]),
  ...BROKEN.flatMap(([what, value]) => [
    ...ofCert(`unknown extension ${what}`, EVERYWHERE, (cert) => put(cert, UNKNOWN, value)),
    ...ofCert(`critical unknown extension ${what}`, EVERYWHERE, (cert) => put(cert, UNKNOWN, value, true)),
    ...READ.flatMap(([known, id]) => ofCert(`extension ${known} ${what}`, EVERYWHERE, (cert) => put(cert, id, value))),
  ]),
  ...[...READ, ['unknown', UNKNOWN] as const].flatMap(([what, id]) => [
    ...ofCert(`extension ${what} twice`, EVERYWHERE, (cert) => {
      const value = find(cert, id)?.value ?? der.sequence();
      cert.extensions.push({ id, critical: false, value }, ...(find(cert, id) ? [] : [{ id, critical: false, value }]));
    }),
  ]),
  ...ofCert('names twice, the second others', EVERYWHERE, (cert) => {
    const value = der.sequence(der.implicit(6, der.ascii('spiffe://other.example/x')));
    cert.extensions.push({ id: OID.subjectAltName, critical: false, value });
  }),
  ...ofCert('basic constraints twice, the second others', ISSUERS, (cert) => {
    cert.extensions.push({ id: OID.basicConstraints, critical: true, value: der.sequence() });
  }),
  ...ofCert('critical FALSE is written', EVERYWHERE, (cert) => {
    for (const one of cert.extensions) if (one.critical === false) one.critical = 'explicit';
  }),
  ...ofCert('critical TRUE as 0x01', EVERYWHERE, (cert) => {
    cert.editSigned = (parts) => [
      ...parts.slice(0, -1),
      der.explicit(3, der.sequence(...cert.extensions.map((one) => loose(encodeExtension(cert, one))))),
    ];
  }),
  ...ofCert('the order of the extensions is reversed', EVERYWHERE, (cert) => cert.extensions.reverse()),
  ...ofCert('no extensions', EVERYWHERE, (cert) => {
    cert.extensions = [];
  }),
  ...ofCert('an empty list of extensions', EVERYWHERE, (cert) => {
    cert.extensions = [];
    cert.editSigned = (parts) => [...parts, der.explicit(3, der.sequence())];
  }),
  ...ofCert('an extension without a value', EVERYWHERE, (cert) => {
    cert.editSigned = (parts) => [
      ...parts.slice(0, -1),
      der.explicit(
        3,
        der.sequence(...cert.extensions.map((one) => encodeExtension(cert, one)), der.sequence(der.oid(UNKNOWN))),
      ),
    ];
  }),
  ...ofCert('40 extensions', EVERYWHERE, (cert) => {
    for (let n = 0; n < 40; n++) put(cert, `1.3.6.1.4.1.55555.40.${n}`, der.nothing());
  }),
  ...ofCert('an extension of 20 KB', EVERYWHERE, (cert) => put(cert, UNKNOWN, der.octets(Buffer.alloc(20_000)))),

  ...ofCert('no subject key id', EVERYWHERE, (cert) => drop(cert, OID.subjectKeyId)),
  ...ofCert('subject key id of another key', EVERYWHERE, (cert, random) =>
    put(cert, OID.subjectKeyId, der.octets(random.bytes(20))),
  ),
  ...ofCert('subject key id empty', EVERYWHERE, (cert) => put(cert, OID.subjectKeyId, der.octets(Buffer.alloc(0)))),
  ...ofCert('subject key id critical', EVERYWHERE, (cert) =>
    put(cert, OID.subjectKeyId, (own) => der.octets(keyIdOf(own.key)), true),
  ),
  ...ofCert('no authority key id', EVERYWHERE, (cert) => drop(cert, OID.authorityKeyId)),
  ...ofCert('authority key id of another key', EVERYWHERE, (cert, random) =>
    put(cert, OID.authorityKeyId, der.sequence(der.implicit(0, random.bytes(20)))),
  ),
  ...ofCert('authority key id without parts', EVERYWHERE, (cert) => put(cert, OID.authorityKeyId, der.sequence())),
  ...ofCert('authority key id critical', EVERYWHERE, (cert) => put(cert, OID.authorityKeyId, authorityKeyId, true)),
  ...ofCert('authority key id by name and serial', EVERYWHERE, (cert) =>
    put(cert, OID.authorityKeyId, (own) =>
      byName((own.issuer ?? own).issuer?.subject ?? (own.issuer ?? own).subject, (own.issuer ?? own).serial),
    ),
  ),
  ...ofCert('authority key id by another serial', EVERYWHERE, (cert) =>
    put(cert, OID.authorityKeyId, (own) =>
      byName((own.issuer ?? own).issuer?.subject ?? (own.issuer ?? own).subject, Buffer.of(9)),
    ),
  ),
  ...ofCert('authority key id by name alone', EVERYWHERE, (cert) =>
    put(cert, OID.authorityKeyId, (own) => der.sequence(der.tlv(0xa1, der.tlv(0xa4, (own.issuer ?? own).subject)))),
  ),
  ...ofCert('authority key id with the key and another serial', EVERYWHERE, (cert) =>
    put(cert, OID.authorityKeyId, (own) =>
      der.sequence(
        der.implicit(0, keyIdOf((own.issuer ?? own).key)),
        der.tlv(0xa1, der.tlv(0xa4, (own.issuer ?? own).subject)),
        der.implicit(2, Buffer.of(9)),
      ),
    ),
  ),
];

const byName = (issuer: Buffer, serial: Buffer): Buffer =>
  der.sequence(der.tlv(0xa1, der.tlv(0xa4, issuer)), der.implicit(2, serial));

/** TRUE is 0xff in DER; BER allows anything but zero. */
function loose(extension: Buffer): Buffer {
  const at = extension.indexOf(Buffer.of(1, 1, 0xff));
  if (at < 0) return extension;
  const changed = Buffer.from(extension);
  changed[at + 2] = 1;
  return changed;
}
