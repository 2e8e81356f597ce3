import { createHash, type KeyObject, X509Certificate } from 'node:crypto';
import { children, readTime, readTlv, TAG } from './der.ts';
import { PkiError } from './error.ts';
import { readExtensions } from './extensions.ts';
import { isP256, type KeyType, keyTypeOf, P256 } from './key-type.ts';
import type { Names } from './names.ts';
import { formatPem, PEM_LIMITS, type PemLimits, parsePem } from './pem.ts';

const LABELS = new Set(['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE']);

/** One X.509 certificate and the facts about it. Immutable; equality is by `fingerprint`. */
export class Certificate {
  /** OpenSSL's view is 20 KB outside the heap, so it is not kept, but used for as long as it lasts. */
  #openssl: WeakRef<X509Certificate>;
  /** One block with lines of 64 columns: the only copy of the bytes, since it is what is written and compared. */
  readonly pem: string;
  readonly #issuesItself: boolean;
  /** SHA-256 of the DER, hex. */
  readonly fingerprint: string;
  /** Hex as OpenSSL prints it. */
  readonly serial: string;
  /** `CN=a, O=b` in the order of the certificate; empty when it names none. */
  readonly subject: string;
  readonly issuer: string;
  /** Epoch ms. */
  readonly notBefore: number;
  /** Epoch ms. */
  readonly notAfter: number;
  readonly names: Names;
  /** Hex without colons. */
  readonly subjectKeyId: string | undefined;
  readonly authorityKeyId: string | undefined;
  /** OIDs; empty when the extension is absent. */
  readonly extendedKeyUsage: readonly string[];
  readonly isCa: boolean;
  readonly keyType: KeyType;
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  readonly publicKeyFingerprint: string;
  #selfSigned: boolean | undefined;
  /** The last answer: one is asked about the same issuer at each look. */
  #issued: { readonly by: string; readonly is: boolean } | undefined;

  private constructor(x509: X509Certificate, der: Buffer) {
    this.pem = formatPem('CERTIFICATE', der);
    this.#openssl = new WeakRef(x509);
    const { issuer, subject, notBefore, notAfter, publicKey, wrapper } = fieldsOf(der);
    const extensions = readExtensions(wrapper && children(wrapper)[0]);

    this.#issuesItself = subject.raw.equals(issuer.raw);
    this.fingerprint = sha256(der);
    this.serial = x509.serialNumber;
    this.subject = oneLine(x509.subject);
    this.issuer = oneLine(x509.issuer);
    this.notBefore = readTime(notBefore);
    this.notAfter = readTime(notAfter);
    this.names = extensions.names;
    this.subjectKeyId = extensions.subjectKeyId;
    this.authorityKeyId = extensions.authorityKeyId;
    this.extendedKeyUsage = extensions.extendedKeyUsage;
    this.isCa = x509.ca;
    // What a mesh's leaves have, and costs OpenSSL as much as all else here. An issuer's key must be one that it can use.
    const isPlain = !this.isCa && isP256(publicKey.raw);
    this.keyType = isPlain ? P256 : keyTypeOf(x509.publicKey);
    this.publicKeyFingerprint = sha256(
      isPlain ? publicKey.raw : x509.publicKey.export({ type: 'spki', format: 'der' }),
    );
  }

  static fromDer(der: Uint8Array): Certificate {
    const bytes = Buffer.from(der);
    try {
      if (readTlv(bytes).tag !== TAG.sequence || readTlv(bytes).raw.length !== bytes.length) {
        throw new PkiError('ERR_DER_SYNTAX', 'bytes follow the certificate');
      }
      return new Certificate(new X509Certificate(bytes), bytes);
    } catch (cause) {
      const why = cause instanceof PkiError ? `: ${cause.message}` : '';
      throw new PkiError('ERR_CERT_SYNTAX', `not a certificate that can be read${why}`, { cause });
    }
  }

  /** Exactly one certificate; for several see parseCertificates. */
  static fromPem(pem: string | Uint8Array): Certificate {
    const certificates = parseCertificates(pem);
    const [certificate] = certificates;
    if (!certificate || certificates.length > 1) {
      throw new PkiError('ERR_CERT_COUNT', `input has ${certificates.length} certificates where exactly one is due`);
    }
    return certificate;
  }

  get #x509(): X509Certificate {
    const known = this.#openssl.deref();
    if (known) return known;
    const x509 = new X509Certificate(this.pem);
    this.#openssl = new WeakRef(x509);
    return x509;
  }

  get der(): Buffer {
    return Buffer.from(this.pem.split('\n').slice(1, -2).join(''), 'base64');
  }

  get selfSigned(): boolean {
    this.#selfSigned ??= this.#issuesItself && this.#wasSignedWith(this);
    return this.#selfSigned;
  }

  get publicKey(): KeyObject {
    return this.#x509.publicKey;
  }

  /** Names, key identifiers and key usage fit, and the signature is the issuer's. Times are not looked at. */
  isIssuedBy(issuer: Certificate): boolean {
    if (this.#issued?.by !== issuer.fingerprint) {
      this.#issued = {
        by: issuer.fingerprint,
        is: this.#x509.checkIssued(issuer.#x509) && this.#wasSignedWith(issuer),
      };
    }
    return this.#issued.is;
  }

  #wasSignedWith(issuer: Certificate): boolean {
    try {
      return this.#x509.verify(issuer.publicKey);
    } catch {
      // A key that is no point of its curve has signed nothing.
      return false;
    }
  }

  toJSON(): object {
    const { subject, issuer, serial, fingerprint, names } = this;
    const [notBefore, notAfter] = [this.notBefore, this.notAfter].map((ms) => new Date(ms).toISOString());
    return { subject, issuer, serial, fingerprint, notBefore, notAfter, names };
  }
}

function fieldsOf(der: Buffer) {
  const [tbs] = children(readTlv(der));
  if (!tbs) throw new PkiError('ERR_DER_SYNTAX', 'a certificate without content');
  const fields = children(tbs);
  const skip = fields[0]?.tag === 0xa0 ? 1 : 0;
  const [, , issuer, validity, subject, publicKey] = fields.slice(skip);
  if (!issuer || !validity || !subject || !publicKey)
    throw new PkiError('ERR_DER_SYNTAX', 'a certificate lacks fields');
  const [notBefore, notAfter] = children(validity);
  if (!notBefore || !notAfter) throw new PkiError('ERR_DER_SYNTAX', 'a certificate lacks its validity');
  return { issuer, subject, notBefore, notAfter, publicKey, wrapper: fields.find(({ tag }) => tag === 0xa3) };
}

/** Epoch ms of the first certificate in a PEM text: all that costs a tenth of reading it whole. Throws as that does. */
export function firstNotBefore(text: string): number {
  const block = parsePem(text).find(({ label }) => LABELS.has(label));
  if (!block) throw new PkiError('ERR_PEM_EMPTY', 'input has no certificate');
  return readTime(fieldsOf(block.der).notBefore);
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const oneLine = (name: string | undefined): string => (name ?? '').split('\n').join(', ');

export interface CertificateParsing {
  readonly limits?: PemLimits;
  /** Blocks of other kinds, such as keys: skipped, or refused with ERR_PEM_LABEL. */
  readonly others?: 'ignore' | 'refuse';
  /** Those that are met again are not read again: the roots in each answer of a mesh are mostly the same. */
  readonly known?: readonly Certificate[] | undefined;
}

/** All certificates in their order, without duplicates; at least one, or ERR_PEM_EMPTY. */
export function parseCertificates(text: string | Uint8Array, options: CertificateParsing = {}): Certificate[] {
  const found = new Map<string, Certificate>();
  for (const { label, der } of parsePem(text, options.limits ?? PEM_LIMITS)) {
    if (LABELS.has(label)) {
      const fingerprint = sha256(der);
      if (found.has(fingerprint)) continue;
      const known = options.known?.find((one) => one.fingerprint === fingerprint);
      found.set(fingerprint, known ?? Certificate.fromDer(der));
    } else if (options.others === 'refuse') {
      throw new PkiError('ERR_PEM_LABEL', `a ${label} block stands where only certificates are due`);
    }
  }
  if (found.size === 0) throw new PkiError('ERR_PEM_EMPTY', 'input has no certificate');
  return [...found.values()];
}

export const formatCertificates = (certificates: readonly Certificate[]): string =>
  certificates.map(({ pem }) => pem).join('');
