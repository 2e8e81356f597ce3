import { createHash, createPublicKey, type KeyObject, sign } from 'node:crypto';
import * as der from '../../src/pki/der.ts';
import { ECDSA_SHA256, ED25519, RSA_SHA256 } from '../../src/pki/der.ts';
import { OID } from '../../src/pki/extensions.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { encodeNames, type Names } from '../../src/pki/names.ts';

export interface CertificateFields {
  readonly serial: bigint;
  /** Default 3. */
  readonly version?: number | undefined;
  readonly subject: { readonly commonName?: string | undefined; readonly organization?: string | undefined };
  readonly issuer: { readonly commonName?: string | undefined; readonly organization?: string | undefined };
  /** Epoch milliseconds, written in whole seconds. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKey: Buffer;
  readonly signingKey: KeyObject;
  readonly names: Partial<Names>;
  readonly ca: boolean;
  readonly basicConstraints: boolean;
  readonly pathLength?: number | undefined;
  /** Empty omits the extension. */
  readonly keyUsage: readonly KeyUsage[];
  readonly eku: readonly string[];
  readonly subjectKeyId: Buffer | undefined;
  readonly authorityKeyId: Buffer | undefined;
  /** Whole extensions after the others, DER; see `extension`. */
  readonly more?: readonly Buffer[] | undefined;
}

const KEY_USAGE = {
  digitalSignature: 0,
  keyEncipherment: 2,
  dataEncipherment: 3,
  keyAgreement: 4,
  keyCertSign: 5,
  cRLSign: 6,
} as const;

export type KeyUsage = keyof typeof KEY_USAGE;

const ORGANIZATION = '2.5.4.10';

/** An X.509 v3 certificate, signed with SHA-256 or Ed25519; DER. */
export function encodeCertificate(fields: CertificateFields): Buffer {
  const algorithm = signatureAlgorithm(fields.signingKey);
  const tbs = der.seq(
    der.explicit(0, der.int((fields.version ?? 3) - 1)),
    der.int(fields.serial),
    algorithm,
    name(fields.issuer),
    der.seq(der.time(fields.notBefore), der.time(fields.notAfter)),
    name(fields.subject),
    fields.publicKey,
    der.explicit(3, der.seq(...extensions(fields))),
  );
  return der.seq(tbs, algorithm, der.bitString(sign(algorithm === ED25519 ? null : 'sha256', tbs, fields.signingKey)));
}

export function spkiOf(key: KeyObject | PrivateKey): Buffer {
  if (key instanceof PrivateKey) return key.spki;
  return (key.type === 'private' ? createPublicKey(key) : key).export({ type: 'spki', format: 'der' });
}

/** RFC 5280 §4.2.1.2: the hash of the key itself with SHA-1; with SHA-256, the hash of the whole SPKI that some meshes take. */
export function keyIdOf(spki: Buffer, hash: 'sha1' | 'sha256' = 'sha1'): Buffer {
  if (hash === 'sha256') return createHash('sha256').update(spki).digest();
  const bits = der.children(der.readTlv(spki))[1];
  if (!bits) throw new TypeError('a SubjectPublicKeyInfo has two parts');
  return createHash('sha1').update(bits.content.subarray(1)).digest();
}

function signatureAlgorithm(key: KeyObject): Buffer {
  if (key.asymmetricKeyType === 'ec') return ECDSA_SHA256;
  if (key.asymmetricKeyType === 'rsa') return RSA_SHA256;
  if (key.asymmetricKeyType === 'ed25519') return ED25519;
  throw new TypeError(`no signature algorithm for a key of type ${key.asymmetricKeyType}`);
}

function name(parts: CertificateFields['subject']): Buffer {
  const attributes: [string, string | undefined][] = [
    [ORGANIZATION, parts.organization],
    [OID.commonName, parts.commonName],
  ];
  return der.seq(
    ...attributes.flatMap(([type, value]) =>
      value === undefined ? [] : [der.set(der.seq(der.oid(type), der.utf8(value)))],
    ),
  );
}

function extensions(fields: CertificateFields): Buffer[] {
  const { names, subject } = fields;
  const hasNames = [names.uris, names.dns, names.ips, names.emails].some((list) => list && list.length > 0);
  const emptySubject = subject.commonName === undefined && subject.organization === undefined;
  const { pathLength } = fields;
  const constraints = [
    ...(fields.ca ? [der.bool(true)] : []),
    ...(pathLength === undefined ? [] : [der.int(pathLength)]),
  ];
  return [
    ...(fields.basicConstraints ? [extension(OID.basicConstraints, der.seq(...constraints), fields.ca)] : []),
    ...(fields.keyUsage.length > 0 ? [extension(OID.keyUsage, keyUsage(fields.keyUsage), true)] : []),
    ...(fields.eku.length > 0
      ? [extension(OID.extendedKeyUsage, der.seq(...fields.eku.map((id) => der.oid(id))))]
      : []),
    ...(fields.subjectKeyId ? [extension(OID.subjectKeyId, der.octetString(fields.subjectKeyId))] : []),
    ...(fields.authorityKeyId ? [extension(OID.authorityKeyId, der.seq(der.context(0, fields.authorityKeyId)))] : []),
    ...(hasNames ? [extension(OID.subjectAltName, encodeNames(names), emptySubject)] : []),
    ...(fields.more ?? []),
  ];
}

export interface CrlFields {
  readonly issuer: CertificateFields['subject'];
  readonly signingKey: KeyObject;
  readonly authorityKeyId: Buffer;
  readonly number: number;
  /** Epoch ms. */
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  /** Serial numbers, hex. */
  readonly revoked: readonly string[];
  /** Whole extensions after the others, DER; see `extension`. */
  readonly more?: readonly Buffer[] | undefined;
  /** Of each entry. */
  readonly entryExtensions?: readonly Buffer[] | undefined;
}

/** A certificate revocation list of version 2 (RFC 5280 §5). */
export function encodeCrl(fields: CrlFields): Buffer {
  const algorithm = signatureAlgorithm(fields.signingKey);
  const revoked = fields.revoked.map((serial) =>
    der.seq(
      der.int(Buffer.from(serial, 'hex')),
      der.time(fields.thisUpdate),
      ...(fields.entryExtensions ? [der.seq(...fields.entryExtensions)] : []),
    ),
  );
  const extensions = [
    extension(OID.authorityKeyId, der.seq(der.context(0, fields.authorityKeyId))),
    extension('2.5.29.20', der.int(fields.number)),
    ...(fields.more ?? []),
  ];
  const signed = der.seq(
    der.int(1),
    algorithm,
    name(fields.issuer),
    der.time(fields.thisUpdate),
    der.time(fields.nextUpdate),
    ...(revoked.length > 0 ? [der.seq(...revoked)] : []),
    der.explicit(0, der.seq(...extensions)),
  );
  const hash = fields.signingKey.asymmetricKeyType === 'ed25519' ? null : 'sha256';
  return der.seq(signed, algorithm, der.bitString(sign(hash, signed, fields.signingKey)));
}

/** One extension around the DER of its value. */
export function extension(type: string, value: Buffer, critical = false): Buffer {
  return der.seq(der.oid(type), ...(critical ? [der.bool(true)] : []), der.octetString(value));
}

function keyUsage(usages: readonly KeyUsage[]): Buffer {
  const bits = usages.map((usage): number => KEY_USAGE[usage]);
  const byte = bits.reduce((value, bit) => value | (0x80 >> bit), 0);
  return der.bitString(Buffer.from([byte]), 7 - Math.max(...bits));
}

/** Name constraints, critical, around GeneralNames as `der.context(6, host)` or `der.context(2, domain)`. */
export function nameConstraints(lists: {
  readonly permitted?: readonly Buffer[];
  readonly excluded?: readonly Buffer[];
}): Buffer {
  const { permitted, excluded } = lists;
  const subtrees = (n: number, bases: readonly Buffer[]) => der.explicit(n, ...bases.map((base) => der.seq(base)));
  const value = der.seq(...(permitted ? [subtrees(0, permitted)] : []), ...(excluded ? [subtrees(1, excluded)] : []));
  return extension(OID.nameConstraints, value, true);
}
