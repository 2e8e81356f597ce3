import { constraints, drop, OID, put, usages } from '../blueprint.ts';
import * as der from '../der.ts';
import { EVERYWHERE, ISSUERS, insertAbove, LEAF, leafOf, ofAll, ofCert, rootOf, type Variation } from '../variation.ts';

const CODE_SIGNING = '1.3.6.1.5.5.7.3.3';
const ANY = '2.5.29.37.0';
const UNKNOWN_USAGE = '1.3.6.1.4.1.55555.7';

const USAGES: readonly (readonly [string, readonly string[]])[] = [
  ['client', [OID.clientAuth]],
  ['server', [OID.serverAuth]],
  ['any', [ANY]],
  ['code signing', [CODE_SIGNING]],
  ['unknown', [UNKNOWN_USAGE]],
  ['client and unknown', [OID.clientAuth, UNKNOWN_USAGE]],
  ['client twice', [OID.clientAuth, OID.clientAuth]],
  ['nothing', []],
];

/** Positions of the bits of keyUsage. */
const BITS: readonly (readonly [string, readonly number[]])[] = [
  ['signature', [0]],
  ['encipherment', [2]],
  ['agreement', [4]],
  ['commitment', [1]],
  ['signing of certificates', [5]],
  ['signing of lists', [6]],
  ['signature and signing of certificates', [0, 5]],
  ['decipher only', [4, 8]],
  ['nothing', []],
];

export const AUTHORITY: readonly Variation[] = [
  ...ofCert('no CA flag', ISSUERS, (cert) => put(cert, OID.basicConstraints, constraints(false), true)),
  ...ofCert('CA flag', LEAF, (cert) => put(cert, OID.basicConstraints, constraints(true), true)),
  ...ofCert('no basic constraints', EVERYWHERE, (cert) => drop(cert, OID.basicConstraints)),
  ...ofCert('no basic constraints, no key usage', EVERYWHERE, (cert) => {
    drop(cert, OID.basicConstraints);
    drop(cert, OID.keyUsage);
  }),
  ...ofCert('basic constraints not critical', EVERYWHERE, (cert) =>
    put(cert, OID.basicConstraints, constraints(cert.role !== 'leaf')),
  ),
  ...ofCert('basic constraints with FALSE written', EVERYWHERE, (cert) =>
    put(cert, OID.basicConstraints, der.sequence(der.boolean(false)), true),
  ),
  ...ofCert('CA flag TRUE as 0x01', ISSUERS, (cert) =>
    put(cert, OID.basicConstraints, der.sequence(der.tlv(1, Buffer.of(1))), true),
  ),
  ...ofCert('basic constraints of another type', EVERYWHERE, (cert) =>
    put(cert, OID.basicConstraints, der.octets(Buffer.of(1, 1, 0xff)), true),
  ),
  ...ofCert('basic constraints with a tail', EVERYWHERE, (cert) => {
    const value = der.sequence(...(cert.role === 'leaf' ? [] : [der.boolean(true)]), der.nothing());
    put(cert, OID.basicConstraints, value, true);
  }),
  ...[0, 1, 2, 127].flatMap((length) =>
    ofCert(`path length ${length}`, ISSUERS, (cert) =>
      put(cert, OID.basicConstraints, constraints(true, length), true),
    ),
  ),
  ...ofCert('path length without CA flag', EVERYWHERE, (cert) =>
    put(cert, OID.basicConstraints, constraints(false, 0), true),
  ),
  ...ofCert('path length below zero', ISSUERS, (cert) =>
    put(cert, OID.basicConstraints, der.sequence(der.boolean(true), der.integer(0xff)), true),
  ),
  ...ofCert('path length of nine bytes', ISSUERS, (cert) =>
    put(cert, OID.basicConstraints, der.sequence(der.boolean(true), der.integer(Buffer.alloc(9, 0x11))), true),
  ),
  ofAll('path length 0 above two intermediates', (blueprint) => {
    insertAbove(blueprint, insertAbove(blueprint, leafOf(blueprint)));
    put(rootOf(blueprint), OID.basicConstraints, constraints(true, 0), true);
  }),
  ofAll('path length 0 above one that issues itself', (blueprint) => {
    const lower = insertAbove(blueprint, leafOf(blueprint));
    const upper = insertAbove(blueprint, lower);
    upper.subject = lower.subject;
    put(upper, OID.basicConstraints, constraints(true, 0), true);
  }),
  ...USAGES.flatMap(([what, ids]) => [
    ...ofCert(`extended usage ${what}`, EVERYWHERE, (cert) => put(cert, OID.extendedKeyUsage, usages(...ids))),
    ...ofCert(`critical extended usage ${what}`, EVERYWHERE, (cert) =>
      put(cert, OID.extendedKeyUsage, usages(...ids), true),
    ),
  ]),
  ...ofCert('no extended usage', LEAF, (cert) => drop(cert, OID.extendedKeyUsage)),
  ...ofCert('extended usage of another type', EVERYWHERE, (cert) =>
    put(cert, OID.extendedKeyUsage, der.oid(OID.clientAuth)),
  ),
  ...BITS.flatMap(([what, bits]) => [
    ...ofCert(`usage ${what}`, EVERYWHERE, (cert) => put(cert, OID.keyUsage, der.namedBits(...bits), true)),
    ...ofCert(`usage ${what}, not critical`, EVERYWHERE, (cert) => put(cert, OID.keyUsage, der.namedBits(...bits))),
  ]),
  ...ofCert('no key usage', EVERYWHERE, (cert) => drop(cert, OID.keyUsage)),
  ...ofCert('key usage with zeros at its end', EVERYWHERE, (cert) =>
    put(cert, OID.keyUsage, der.bits(Buffer.of(cert.role === 'leaf' ? 0x80 : 0x06, 0), 0), true),
  ),
  ...ofCert('key usage with unused bits that are set', EVERYWHERE, (cert) =>
    put(cert, OID.keyUsage, der.bits(Buffer.of(cert.role === 'leaf' ? 0x81 : 0x07), 1), true),
  ),
  ...ofCert('key usage of another type', EVERYWHERE, (cert) =>
    put(cert, OID.keyUsage, der.octets(Buffer.of(0, 0xff)), true),
  ),
];
