import { createHash } from 'node:crypto';
import * as der from './der.ts';
import { type Digest, type Key, signing } from './keys.ts';

/** A certificate before it is signed. Variations change any part of it; its issuer is another blueprint. */
export interface Cert {
  readonly role: 'leaf' | 'intermediate' | 'root';
  key: Key;
  /** Undefined: it issues itself. */
  issuer: Cert | undefined;
  /** DER of a Name. */
  subject: Buffer;
  /** DER of a Name, if it is not the subject of the issuer. */
  issuerName?: Buffer;
  /** The signing key, if it is not the issuer's. */
  signer?: Key;
  /** The encoded value: 2 for version 3; undefined omits it, which means version 1. */
  version: number | undefined;
  /** Content of the INTEGER. */
  serial: Buffer;
  notBefore: Moment;
  notAfter: Moment;
  extensions: Extension[];
  digest: Digest;
  pss?: boolean;
  /** DER, if it is not the key's own. */
  spki?: Buffer;
  /** Changes the signed fields: version, serial, algorithm, issuer, validity, subject, key, and the rest. */
  editSigned?: (parts: Buffer[]) => Buffer[];
  /** Changes the three parts of the whole: signed fields, algorithm, signature. */
  editWhole?: (parts: Buffer[]) => Buffer[];
  /** Changes the final bytes. */
  editBytes?: (bytes: Buffer) => Buffer;
}

/** Epoch ms, or the text of a time with its tag. */
export type Moment = number | { readonly tag: number; readonly text: string };

export interface Extension {
  readonly id: string;
  /** `false` is omitted, as DER requires; `explicit` writes it. */
  critical: boolean | 'explicit';
  /** The content of the OCTET STRING. */
  value: Buffer | ((own: Cert) => Buffer);
}

/** A pair and a bundle before they are signed. */
export interface Blueprint {
  readonly form: 'spiffe' | 'dns';
  readonly now: number;
  /** Leaf first, as it is sent. */
  chain: Cert[];
  bundle: Cert[];
  /** The key beside the chain. */
  key: Key;
  /** Returns a key of this kind that nothing else here has. */
  readonly fresh: (kind?: Key['kind']) => Key;
}

export const OID = {
  commonName: '2.5.4.3',
  country: '2.5.4.6',
  organization: '2.5.4.10',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  nameConstraints: '2.5.29.30',
  policies: '2.5.29.32',
  authorityKeyId: '2.5.29.35',
  policyConstraints: '2.5.29.36',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

export function name(...attributes: readonly (readonly [type: string, text: string, tag?: number])[]): Buffer {
  return der.sequence(
    ...attributes.map(([type, text, tag = der.STRING.utf8]) =>
      der.setOf(der.sequence(der.oid(type), der.tlv(tag, Buffer.from(text)))),
    ),
  );
}

export const keyIdOf = (key: Key): Buffer => createHash('sha1').update(key.spki).digest();

export const find = (cert: Cert, id: string): Extension | undefined => cert.extensions.find((one) => one.id === id);

export function drop(cert: Cert, id: string): void {
  cert.extensions = cert.extensions.filter((one) => one.id !== id);
}

/** Replaces the extension if it exists, and adds it otherwise. */
export function put(cert: Cert, id: string, value: Extension['value'], critical: Extension['critical'] = false): void {
  const known = find(cert, id);
  if (!known) cert.extensions.push({ id, critical, value });
  else Object.assign(known, { critical, value });
}

export function encode(cert: Cert): Buffer {
  const { algorithm, sign } = signing(cert.signer ?? cert.issuer?.key ?? cert.key, cert.digest, cert.pss);
  const extensions = cert.extensions.map((one) => encodeExtension(cert, one));
  const parts = [
    ...(cert.version === undefined ? [] : [der.explicit(0, der.integer(cert.version))]),
    der.integer(cert.serial),
    algorithm,
    cert.issuerName ?? (cert.issuer ?? cert).subject,
    der.sequence(encodeMoment(cert.notBefore), encodeMoment(cert.notAfter)),
    cert.subject,
    cert.spki ?? cert.key.spki,
    ...(extensions.length === 0 ? [] : [der.explicit(3, der.sequence(...extensions))]),
  ];
  const signed = der.sequence(...(cert.editSigned?.(parts) ?? parts));
  const whole = [signed, algorithm, der.bits(sign(signed))];
  const bytes = der.sequence(...(cert.editWhole?.(whole) ?? whole));
  return cert.editBytes?.(bytes) ?? bytes;
}

export function encodeExtension(cert: Cert, { id, critical, value }: Extension): Buffer {
  return der.sequence(
    der.oid(id),
    ...(critical === false ? [] : [der.boolean(critical === true)]),
    der.octets(typeof value === 'function' ? value(cert) : value),
  );
}

export function encodeMoment(moment: Moment): Buffer {
  if (typeof moment !== 'number') return der.tlv(moment.tag, der.ascii(moment.text));
  const text = timeText(moment);
  return Number(text.slice(0, 4)) < 2050 ? der.tlv(0x17, der.ascii(text.slice(2))) : der.tlv(0x18, der.ascii(text));
}

/** `YYYYMMDDHHMMSSZ`. */
export const timeText = (ms: number): string => `${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`;

const HOUR = 3_600_000;
const YEAR = 365 * 24 * HOUR;

export const SPIFFE_ID = 'spiffe://td.example/ns/shop/sa/web';
export const DNS_NAME = 'web.shop.serviceaccount.identity.linkerd.td.example';

export const uri = (text: string): Buffer => der.implicit(6, der.ascii(text));
export const dns = (text: string): Buffer => der.implicit(2, der.ascii(text));

export const constraints = (isCa: boolean, pathLength?: number): Buffer =>
  der.sequence(...(isCa ? [der.boolean(true)] : []), ...(pathLength === undefined ? [] : [der.integer(pathLength)]));
export const usages = (...ids: readonly string[]): Buffer => der.sequence(...ids.map(der.oid));

const subjectKeyId = (own: Cert): Buffer => der.octets(keyIdOf(own.key));
export const authorityKeyId = (own: Cert): Buffer =>
  der.sequence(der.implicit(0, keyIdOf(own.signer ?? (own.issuer ?? own).key)));

export function authority(
  role: Cert['role'],
  commonName: string,
  key: Key,
  now: number,
  issuer: Cert | undefined,
): Cert {
  return {
    role,
    key,
    issuer,
    subject: name([OID.organization, 'td.example'], [OID.commonName, commonName]),
    version: 2,
    serial: Buffer.concat([Buffer.of(0x11), keyIdOf(key).subarray(0, 7)]),
    notBefore: now - 24 * HOUR,
    notAfter: now + 10 * YEAR,
    extensions: [
      { id: OID.keyUsage, critical: true, value: der.namedBits(5, 6) },
      { id: OID.basicConstraints, critical: true, value: constraints(true) },
      { id: OID.subjectKeyId, critical: false, value: subjectKeyId },
      ...(issuer ? [{ id: OID.authorityKeyId, critical: false, value: authorityKeyId }] : []),
    ],
    digest: 'sha256',
  };
}

export function workload(form: Blueprint['form'], key: Key, now: number, issuer: Cert): Cert {
  return {
    role: 'leaf',
    key,
    issuer,
    subject: name(),
    version: 2,
    serial: Buffer.concat([Buffer.of(0x22), keyIdOf(key).subarray(0, 15)]),
    notBefore: now - HOUR,
    notAfter: now + 24 * HOUR,
    extensions: [
      { id: OID.keyUsage, critical: true, value: der.namedBits(0, 2) },
      { id: OID.extendedKeyUsage, critical: false, value: usages(OID.serverAuth, OID.clientAuth) },
      { id: OID.basicConstraints, critical: true, value: constraints(false) },
      { id: OID.authorityKeyId, critical: false, value: authorityKeyId },
      {
        id: OID.subjectAltName,
        critical: true,
        value: der.sequence(form === 'spiffe' ? uri(SPIFFE_ID) : dns(DNS_NAME)),
      },
    ],
    digest: 'sha256',
  };
}
