import { createECDH } from 'node:crypto';
import * as der from '../der.ts';
import { type KeyKind, signing } from '../keys.ts';
import { EVERYWHERE, leafOf, ofAll, ofCert, type Variation } from '../variation.ts';

const KINDS: readonly KeyKind[] = ['p384', 'p521', 'secp256k1', 'rsa2048', 'rsa1024', 'ed25519'];
const EC = '1.2.840.10045.2.1';
const P256 = '1.2.840.10045.3.1.7';
const P384 = '1.3.132.0.34';

const point = (spki: Buffer): Buffer => spki.subarray(-65);
const ecKey = (parameters: Buffer, content: Buffer, unused = 0) =>
  der.sequence(der.sequence(der.oid(EC), parameters), der.bits(content, unused));

function compressed(spki: Buffer): Buffer {
  const curve = createECDH('prime256v1');
  curve.generateKeys();
  return Buffer.concat([Buffer.of((point(spki).at(-1) ?? 0) & 1 ? 3 : 2), point(spki).subarray(1, 33)]);
}

function flipped(bytes: Buffer): Buffer {
  const changed = Buffer.from(bytes);
  changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
  return changed;
}

const SPKIS: readonly (readonly [string, (spki: Buffer) => Buffer])[] = [
  [
    'with unused bits',
    (spki) =>
      ecKey(
        der.oid(P256),
        Buffer.concat([point(spki).subarray(0, -1), Buffer.of((point(spki).at(-1) ?? 0) & 0xf0)]),
        4,
      ),
  ],
  ['that says unused bits', (spki) => ecKey(der.oid(P256), point(spki), 1)],
  ['compressed', (spki) => ecKey(der.oid(P256), compressed(spki))],
  [
    'hybrid',
    (spki) =>
      ecKey(der.oid(P256), Buffer.concat([Buffer.of((point(spki).at(-1) ?? 0) & 1 ? 7 : 6), point(spki).subarray(1)])),
  ],
  ['off its curve', (spki) => ecKey(der.oid(P256), flipped(point(spki)))],
  ['of another curve', (spki) => ecKey(der.oid(P384), point(spki))],
  ['at infinity', () => ecKey(der.oid(P256), Buffer.of(0))],
  ['without a curve', (spki) => der.sequence(der.sequence(der.oid(EC)), der.bits(point(spki)))],
  ['with NULL for its curve', (spki) => ecKey(der.nothing(), point(spki))],
  ['with a tail', (spki) => der.sequence(der.split(spki).content, der.nothing())],
  ['of an unknown algorithm', () => der.sequence(der.sequence(der.oid('1.2.3.4')), der.bits(Buffer.of(1, 2)))],
  ['with a long length', der.longLength],
];

const rsaKey = (modulus: Buffer, exponent: Buffer, parameters: readonly Buffer[] = [der.nothing()]) =>
  der.sequence(
    der.sequence(der.oid('1.2.840.113549.1.1.1'), ...parameters),
    der.bits(der.sequence(der.integer(modulus), der.integer(exponent))),
  );
const MODULUS = Buffer.concat([Buffer.of(0), Buffer.alloc(256, 0xc3)]);

/** No private key belongs to these: they are used where a certificate need not prove anything. */
const FOREIGN: readonly (readonly [string, Buffer])[] = [
  ['RSA with exponent 1', rsaKey(MODULUS, Buffer.of(1))],
  ['RSA with exponent 3', rsaKey(MODULUS, Buffer.of(3))],
  ['RSA with an even exponent', rsaKey(MODULUS, Buffer.of(4))],
  ['RSA with a modulus below zero', rsaKey(Buffer.alloc(256, 0xc3), Buffer.of(1, 0, 1))],
  ['RSA without NULL', rsaKey(MODULUS, Buffer.of(1, 0, 1), [])],
  ['RSA of 16384 bits', rsaKey(Buffer.concat([Buffer.of(0), Buffer.alloc(2048, 0xc3)]), Buffer.of(1, 0, 1))],
  ['RSA of 512 bits', rsaKey(Buffer.concat([Buffer.of(0), Buffer.alloc(64, 0xc3)]), Buffer.of(1, 0, 1))],
];

export const KEYS: readonly Variation[] = [
  ...KINDS.flatMap((kind) =>
    ofCert(`key ${kind}`, EVERYWHERE, (cert, _random, blueprint) => {
      const was = cert.key;
      cert.key = blueprint.fresh(kind);
      if (cert.role === 'leaf' && blueprint.key === was) blueprint.key = cert.key;
    }),
  ),
  ...SPKIS.flatMap(([what, make]) =>
    ofCert(`key ${what}`, EVERYWHERE, (cert) => {
      if (cert.key.kind === 'p256') cert.spki = make(cert.key.spki);
    }),
  ),
  ...FOREIGN.flatMap(([what, spki]) =>
    ofCert(`key ${what}`, EVERYWHERE, (cert) => {
      cert.spki = spki;
    }),
  ),
  ofAll('the key of another', (blueprint) => {
    blueprint.key = blueprint.fresh();
  }),
  ofAll('an RSA key beside an EC leaf', (blueprint) => {
    blueprint.key = blueprint.fresh('rsa2048');
  }),
  ofAll('the key of the issuer', (blueprint) => {
    blueprint.key = (leafOf(blueprint).issuer ?? leafOf(blueprint)).key;
  }),
  ...(['sha1', 'sha384', 'sha512'] as const).flatMap((digest) =>
    ofCert(`signed with ${digest}`, EVERYWHERE, (cert) => {
      cert.digest = digest;
    }),
  ),
  ...ofCert('signed by an RSA key with PSS', ['leaf', 'intermediate'], (cert, _random, { fresh }) => {
    if (cert.issuer) cert.issuer.key = fresh('rsa2048');
    cert.pss = true;
  }),
  ...ofCert('signed by an RSA key with SHA-1', ['leaf', 'intermediate'], (cert, _random, { fresh }) => {
    if (cert.issuer) cert.issuer.key = fresh('rsa2048');
    cert.digest = 'sha1';
  }),
  ...ofCert('signed by another key', EVERYWHERE, (cert, _random, { fresh }) => {
    cert.signer = fresh();
  }),
  ...ofCert('a broken signature', EVERYWHERE, (cert, random) => {
    const at = random.int(8);
    cert.editWhole = ([signed, algorithm, signature]) => {
      const broken = Buffer.from(signature ?? '');
      broken[broken.length - 1 - at] = (broken[broken.length - 1 - at] ?? 0) ^ 1;
      return [signed, algorithm, broken].filter((one) => one !== undefined);
    };
  }),
  ...ofCert('an empty signature', EVERYWHERE, (cert) => {
    cert.editWhole = (parts) => [...parts.slice(0, 2), der.bits(Buffer.alloc(0))];
  }),
  ...ofCert('a signature with unused bits', EVERYWHERE, (cert) => {
    cert.editWhole = (parts) => {
      const signature = Buffer.from(parts[2] ?? '');
      signature[signature.indexOf(0, 1)] = 1;
      return [...parts.slice(0, 2), signature];
    };
  }),
  ...ofCert('another algorithm beside the signature', EVERYWHERE, (cert) => {
    cert.editWhole = ([signed, , signature]) =>
      [signed, signing(cert.key, cert.digest === 'sha384' ? 'sha256' : 'sha384').algorithm, signature].filter(
        (one) => one !== undefined,
      );
  }),
  ...ofCert('NULL beside the algorithm', EVERYWHERE, (cert) => {
    const noted = () =>
      der.sequence(
        der.split(signing(cert.signer ?? (cert.issuer ?? cert).key, cert.digest).algorithm).content,
        der.nothing(),
      );
    cert.editSigned = (parts) => parts.map((value, n) => (n === 2 ? noted() : value));
    cert.editWhole = (parts) => parts.map((value, n) => (n === 1 ? noted() : value));
  }),
];
