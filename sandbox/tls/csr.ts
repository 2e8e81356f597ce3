import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { children, parsePem, readOid, readTlv, TAG, type Tlv } from '../../src/pki/der.ts';
import { extensionsIn, OID, readExtensions } from '../../src/pki/extensions.ts';
import { type Names, NO_NAMES } from '../../src/pki/names.ts';

/** A PKCS#10 request as read by a certificate authority. */
export interface Csr {
  readonly publicKey: KeyObject;
  readonly names: Names;
  /** Common name of the subject; requests to meshes have empty subjects. */
  readonly commonName: string | undefined;
  readonly emptySubject: boolean;
  /** Whether the request is signed by the key that it names: proof of possession. */
  readonly signatureValid: boolean;
}

/** Throws PkiError or TypeError for anything but a request. */
export function readCsr(input: Uint8Array | string): Csr {
  const [info, , signature] = children(readTlv(derOf(input)));
  if (!info || !signature) throw new TypeError('a certification request has three parts');
  const [, subject, spki, attributes] = children(info);
  if (!subject || !spki) throw new TypeError('a certification request names a subject and a key');
  const publicKey = createPublicKey({ key: spki.raw, format: 'der', type: 'spki' });
  return {
    publicKey,
    names: attributes ? namesOf(attributes) : NO_NAMES,
    commonName: commonNameOf(subject),
    emptySubject: subject.content.length === 0,
    // A BIT STRING starts with its count of unused bits.
    signatureValid: verify('sha256', info.raw, publicKey, signature.content.subarray(1)),
  };
}

function derOf(input: Uint8Array | string): Buffer {
  if (typeof input !== 'string') return Buffer.from(input);
  const block = parsePem(input).find(({ label }) => /^(NEW )?CERTIFICATE REQUEST$/.test(label));
  if (!block) throw new TypeError('the PEM text has no CERTIFICATE REQUEST');
  return Buffer.from(block.der);
}

function namesOf(attributes: Tlv): Names {
  for (const attribute of children(attributes)) {
    const [type, values] = children(attribute);
    if (type && values && readOid(type) === OID.extensionRequest) {
      return readExtensions(extensionsIn(children(values)[0])).names;
    }
  }
  return NO_NAMES;
}

function commonNameOf(subject: Tlv): string | undefined {
  for (const relative of children(subject)) {
    for (const attribute of children(relative)) {
      const [type, value] = children(attribute);
      if (type?.tag === TAG.oid && value && readOid(type) === OID.commonName) return value.content.toString('utf8');
    }
  }
  return undefined;
}
