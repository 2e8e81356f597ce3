import { hash, type KeyObject, X509Certificate } from 'node:crypto';
import { readTime, readTlv, TAG } from './der.ts';
import { PkiError } from './error.ts';
import { extensionsIn, OID, readExtensions } from './extensions.ts';
import { type Fields, readFields } from './fields.ts';
import { isP256, type KeyType, keyTypeOf, P256 } from './key-type.ts';
import type { Names } from './names.ts';
import { derIn, formatPem, PEM_LIMITS, type PemLimits, parsePem } from './pem.ts';
import { KEY_CERT_SIGN, plainLeafIn, wasSignedBy } from './plain-leaf.ts';

const LABELS = new Set(['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE']);

interface Issuing {
  /** DER. */
  readonly subject: Buffer;
  /** Undefined where it may not sign certificates. */
  readonly key: KeyObject | undefined;
}

/** One X.509 certificate and the facts about it. Immutable; equality is by `fingerprint`. */
export class Certificate {
  /** OpenSSL's view is 20 KB outside the heap, so it is not kept, but used for as long as it lasts. */
  #openssl: WeakRef<X509Certificate> | undefined;
  /** Of a plain leaf, likewise. */
  readonly #fields: WeakRef<Fields> | undefined;
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
  /** Kept by those that were asked: they are few, and each is asked for all its leaves. */
  #issuing: Issuing | undefined;
  /** The last answer: one is asked about the same issuer at each look. */
  #issued: { readonly by: string; readonly is: boolean } | undefined;

  private constructor(der: Buffer) {
    const fields = readFields(der);
    const found = extensionsIn(fields.extensions);
    const extensions = readExtensions(found);
    const told = plainLeafIn(fields, found) ?? new X509Certificate(der);
    const x509 = told instanceof X509Certificate ? told : undefined;
    this.#openssl = x509 && new WeakRef(x509);
    this.#fields = x509 ? undefined : new WeakRef(fields);

    this.pem = formatPem('CERTIFICATE', der);
    this.#issuesItself = fields.subject.raw.equals(fields.issuer.raw);
    this.fingerprint = sha256(der);
    this.serial = told.serialNumber;
    this.subject = oneLine(told.subject);
    this.issuer = oneLine(told.issuer);
    this.notBefore = readTime(fields.notBefore);
    this.notAfter = readTime(fields.notAfter);
    this.names = extensions.names;
    this.subjectKeyId = extensions.subjectKeyId;
    this.authorityKeyId = extensions.authorityKeyId;
    this.extendedKeyUsage = extensions.extendedKeyUsage;
    this.isCa = x509?.ca ?? false;
    // The key costs OpenSSL as much as all else here. An issuer's must be one that it can use.
    const key = this.isCa || !isP256(fields.publicKey.raw) ? x509?.publicKey : undefined;
    this.keyType = key ? keyTypeOf(key) : P256;
    this.publicKeyFingerprint = sha256(key?.export({ type: 'spki', format: 'der' }) ?? fields.publicKey.raw);
  }

  static fromDer(der: Uint8Array): Certificate {
    const bytes = Buffer.from(der);
    try {
      if (readTlv(bytes).tag !== TAG.sequence || readTlv(bytes).raw.length !== bytes.length) {
        throw new PkiError('ERR_DER_SYNTAX', 'bytes follow the certificate');
      }
      return new Certificate(bytes);
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
    const known = this.#openssl?.deref();
    if (known) return known;
    const x509 = new X509Certificate(this.pem);
    this.#openssl = new WeakRef(x509);
    return x509;
  }

  get der(): Buffer {
    return derIn(this.pem);
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
        is: this.#isPlainlyIssuedBy(issuer) || (this.#x509.checkIssued(issuer.#x509) && this.#wasSignedWith(issuer)),
      };
    }
    return this.#issued.is;
  }

  /** True only where OpenSSL would say so, which takes twice as long; false where it must be asked. */
  #isPlainlyIssuedBy(issuer: Certificate): boolean {
    if (!this.#fields || !issuer.isCa) return false;
    if (this.authorityKeyId !== undefined && this.authorityKeyId !== issuer.subjectKeyId) return false;
    issuer.#issuing ??= issuer.#asIssuer();
    const { subject, key } = issuer.#issuing;
    const fields = this.#fields.deref() ?? readFields(this.der);
    return key !== undefined && fields.issuer.raw.equals(subject) && wasSignedBy(fields, key);
  }

  #asIssuer(): Issuing {
    const { subject, extensions } = readFields(this.der);
    const usage = extensionsIn(extensions).find(({ id }) => id === OID.keyUsage)?.value;
    const signs = !usage || ((usage.content[1] ?? 0) & KEY_CERT_SIGN) !== 0;
    return { subject: subject.raw, key: signs ? this.publicKey : undefined };
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

/** Epoch ms of the first certificate in a PEM text: all that costs a tenth of reading it whole. Throws as that does. */
export function firstNotBefore(text: string): number {
  const block = parsePem(text).find(({ label }) => LABELS.has(label));
  if (!block) throw new PkiError('ERR_PEM_EMPTY', 'input has no certificate');
  return readTime(readFields(block.der).notBefore);
}

const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'hex');
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
