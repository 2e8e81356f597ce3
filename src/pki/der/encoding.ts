import { SIGNATURE_ALGORITHMS } from './algorithms.ts';
import { children, TAG, type Tlv } from './der.ts';
import type { DerFields } from './fields.ts';

/** 1 to 3 in the usual numbering; any other number is not a version of X.509. */
export function versionOf({ signed: [first] }: DerFields): number {
  if (first?.tag !== 0xa0) return 1;
  const [version] = children(first);
  return version?.content.length === 1 ? (version.content[0] ?? 0) + 1 : 0;
}

/** Why Envoy does not load a certificate of its version; undefined when it does. */
export function versionDefect(fields: DerFields): string | undefined {
  const version = versionOf(fields);
  if (version === 1 && fields.signed[0]?.tag === 0xa0) return 'it has an explicit version 1, which DER forbids';
  // Anything after the public key: unique identifiers came with version 2.
  if (version === 1 && fields.signed.at(-1) !== fields.publicKey) {
    return 'it is of version 1 and has extensions or unique identifiers, which need version 3';
  }
  if (version === 1) return undefined;
  return version === 3 ? undefined : `it is of version ${version}, which is not in use; certificates have version 3`;
}

/** Why Envoy does not load a certificate, whether or not it is used for a path; undefined when it does. */
export function loadDefect({ issuer, subject, publicKey, parts }: DerFields): string | undefined {
  for (const name of [issuer, subject]) {
    if (children(name).some((set) => set.tag !== TAG.set || set.content.length === 0)) {
      return 'a part of its subject or issuer is empty';
    }
  }
  const [, key] = children(publicKey);
  if (key?.content[0] !== 0) return 'its public key ends within a byte';
  return parts[2]?.content[0] === 0 ? undefined : 'its signature ends within a byte';
}

/** Why some implementation cannot read the fields other than the extensions; undefined when all can. */
export function fieldDefect({ signed, serial, issuer, subject, parts }: DerFields): string | undefined {
  const algorithm = signed[signed.indexOf(serial) + 1];
  if ((serial.content[0] ?? 0x80) >= 0x80) return 'its serial number is negative';
  if (!algorithm || !parts[1]?.raw.equals(algorithm.raw)) return 'it names two different signature algorithms';
  const odd = [issuer, subject].flatMap(textsIn).find((text) => !isReadable(text));
  return odd && 'a text in its subject or issuer does not match its declared type';
}

/** Whether OpenSSL, BoringSSL and Go all verify signatures of the algorithm that the certificate names. */
export const hasCommonSignature = ({ parts }: DerFields): boolean =>
  SIGNATURE_ALGORITHMS.some(({ der }) => parts[1]?.raw.equals(der) === true);

const textsIn = (name: Tlv): (Tlv | undefined)[] =>
  children(name).flatMap((set) => children(set).map((attribute) => children(attribute)[1]));

const UTF8 = new TextDecoder('utf-8', { fatal: true });
const PRINTABLE = /^[A-Za-z0-9 '()+,./:=?*&-]*$/;

function isReadable(text: Tlv | undefined): boolean {
  if (!text) return false;
  const { tag, content } = text;
  switch (tag) {
    case TAG.utf8:
      try {
        UTF8.decode(content);
        return true;
      } catch {
        return false;
      }
    case TAG.printable:
      return PRINTABLE.test(content.toString('latin1'));
    case TAG.numeric:
      return /^[0-9 ]*$/.test(content.toString('latin1'));
    case TAG.ia5:
      return content.every((byte) => byte < 0x80);
    case TAG.t61:
      return true;
    case TAG.bmp:
      return content.length % 2 === 0;
    default:
      return false;
  }
}
