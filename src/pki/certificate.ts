import { hash, type KeyObject, X509Certificate } from 'node:crypto';
import {
  derIn,
  fieldDefect,
  formatPem,
  hasCommonSignature,
  loadDefect,
  PEM_LIMITS,
  type PemLimits,
  PkiError,
  parsePem,
  readFields,
  readTime,
  readTlv,
  TAG,
  versionDefect,
  versionOf,
} from './der.ts';
import { type AuthorityKeyId, extensionsIn, OID, readExtensions } from './extensions.ts';
import { commonKeyTypeIn, type KeyType, keyTypeOf } from './key-type.ts';
import { attributesIn, type Constrained, type NameConstraints, type Names } from './names.ts';

const LABELS = new Set(['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE']);

/** One X.509 certificate and the facts about it. Immutable; equality is by `fingerprint`. */
export class Certificate {
  /** OpenSSL's object takes 20 KB outside the heap, so it is only referenced weakly. */
  #openssl: WeakRef<X509Certificate> | undefined;
  /**
   * One block with lines of 64 columns: the only copy of the bytes, since it is the form that is written and compared.
   */
  readonly pem: string;
  /** DER, one character for each byte. */
  readonly #subjectName: string;
  readonly #issuerName: string;
  readonly #serialBytes: string;
  readonly #authority: AuthorityKeyId;
  readonly #keyUsage: number | undefined;
  /** 1 or 3; others are not loaded by Envoy. */
  readonly version: number;
  /** SHA-256 of the DER, hex. */
  readonly fingerprint: string;
  /** Hex as OpenSSL prints it. */
  readonly serial: string;
  /** `CN=a, O=b` in the order of the certificate, to be read only: cut at 1,024 characters; empty when it names none. */
  readonly subject: string;
  readonly issuer: string;
  /** Epoch ms. */
  readonly notBefore: number;
  /** Epoch ms. */
  readonly notAfter: number;
  readonly names: Names;
  /** Hex without colons. */
  readonly subjectKeyId: string | undefined;
  /** OIDs; empty when the extension is absent. */
  readonly extendedKeyUsage: readonly string[];
  /** Whether its basic constraints make it a CA. */
  readonly isCa: boolean;
  /** Maximum number of CAs between this one and a leaf; undefined: any number. */
  readonly pathLength: number | undefined;
  readonly nameConstraints: NameConstraints | undefined;
  /** OIDs of critical extensions that this project does not process, so that it must not use the certificate. */
  readonly unsupported: readonly string[];
  readonly keyType: KeyType;
  /** SHA-256 of the SubjectPublicKeyInfo, hex. */
  readonly publicKeyFingerprint: string;
  /** Whether OpenSSL, BoringSSL and Go all verify signatures of the algorithm it is signed with. */
  readonly hasCommonSignature: boolean;
  /** Why Envoy does not load it, because of its version or for another reason; undefined when it does. */
  readonly versionDefect: string | undefined;
  readonly loadDefect: string | undefined;
  /** Why some implementation refuses to use it in a path; undefined when none does. */
  readonly defect: string | undefined;
  #selfSigned: boolean | undefined;
  /** Set for certificates that issue: they are few, and each verifies all its leaves. */
  #issuingKey: KeyObject | undefined;
  /** By fingerprint, for issuers whose names match: whether the signature verifies. Each reconcile asks again. */
  readonly #signedBy = new Map<string, boolean>();

  private constructor(der: Buffer) {
    const x509 = new X509Certificate(der);
    const fields = readFields(der);
    const extensions = readExtensions(extensionsIn(fields.extensions));
    this.#openssl = new WeakRef(x509);

    this.pem = formatPem('CERTIFICATE', der);
    this.#subjectName = fields.subject.raw.toString('latin1');
    this.#issuerName = fields.issuer.raw.toString('latin1');
    this.#serialBytes = fields.serial.content.toString('latin1');
    this.#authority = extensions.authority;
    this.#keyUsage = extensions.keyUsage;
    this.version = versionOf(fields);
    this.fingerprint = sha256(der);
    this.serial = x509.serialNumber;
    this.subject = oneLine(x509.subject);
    this.issuer = oneLine(x509.issuer);
    this.notBefore = readTime(fields.notBefore);
    this.notAfter = readTime(fields.notAfter);
    this.names = extensions.names;
    this.subjectKeyId = extensions.subjectKeyId;
    this.extendedKeyUsage = extensions.extendedKeyUsage;
    this.isCa = extensions.isCa;
    this.pathLength = extensions.pathLength;
    this.nameConstraints = extensions.nameConstraints;
    this.unsupported = extensions.unsupported;
    const common = commonKeyTypeIn(fields.publicKey);
    // Decoding the key costs OpenSSL as much as everything else here, and is unnecessary for the common encodings.
    const key = common ? undefined : keyIn(x509);
    this.keyType = common ?? key?.keyType ?? UNREADABLE;
    this.publicKeyFingerprint = sha256(key?.spki ?? fields.publicKey.raw);
    this.hasCommonSignature = hasCommonSignature(fields);
    this.versionDefect = versionDefect(fields);
    this.loadDefect = loadDefect(fields);
    const keyDefect = common ? undefined : 'its public key has an encoding that some readers refuse';
    this.defect = extensions.defect ?? fieldDefect(fields) ?? keyDefect;
  }

  static fromDer(der: Uint8Array): Certificate {
    if (der.length > LARGEST) {
      const message = `a certificate of ${der.length} bytes is over the limit of ${LARGEST}`;
      throw new PkiError('ERR_PEM_TOO_LARGE', message);
    }
    const bytes = Buffer.from(der);
    try {
      if (readTlv(bytes).tag !== TAG.sequence || readTlv(bytes).raw.length !== bytes.length) {
        throw new PkiError('ERR_DER_SYNTAX', 'extra bytes follow the certificate');
      }
      return new Certificate(bytes);
    } catch (cause) {
      const why = cause instanceof PkiError ? `: ${cause.message}` : '';
      throw new PkiError('ERR_CERT_SYNTAX', `not a certificate that can be read${why}`, { cause });
    }
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

  /** Whether subject and issuer are one name. */
  get isSelfIssued(): boolean {
    return this.#subjectName === this.#issuerName;
  }

  get selfSigned(): boolean {
    this.#selfSigned ??= this.isSelfIssued && this.#wasSignedWith(this);
    return this.#selfSigned;
  }

  get publicKey(): KeyObject {
    return this.#x509.publicKey;
  }

  /** False for an EC key that is not a point of its curve. */
  get hasUsableKey(): boolean {
    try {
      this.publicKey.export({ type: 'spki', format: 'der' });
      return true;
    } catch {
      return false;
    }
  }

  /** Hex without colons. */
  get authorityKeyId(): string | undefined {
    return this.#authority.keyId;
  }

  /** Whether its key usage, if present, has this bit of the first byte. */
  allows(usage: number): boolean {
    return this.#keyUsage === undefined || (this.#keyUsage & usage) !== 0;
  }

  /** The names that name constraints above it apply to; common names only if `isLeaf`. */
  constrained(isLeaf: boolean): Constrained {
    const { subject } = readFields(this.der);
    const { names } = this;
    const emails = [...names.emails, ...attributesIn(subject, OID.emailAddress)];
    const commonNames = isLeaf ? attributesIn(subject, OID.commonName).filter((name) => HOST_NAME.test(name)) : [];
    return { ...names, emails, commonNames };
  }

  /**
   * Names and key identifiers match, and the signature is the issuer's. Neither the issuer's right to sign nor times
   * are checked. Names are compared by their bytes, as Go does.
   */
  isIssuedBy(issuer: Certificate): boolean {
    if (!this.#names(issuer)) return false;
    const is = this.#signedBy.get(issuer.fingerprint) ?? this.#wasSignedWith(issuer);
    this.#signedBy.set(issuer.fingerprint, is);
    return is;
  }

  #names(issuer: Certificate): boolean {
    return this.#issuerName === issuer.#subjectName && issuer.fits(this.#authority);
  }

  /** Whether an authority key identifier may mean this certificate. */
  fits({ keyId, issuer, serial }: AuthorityKeyId): boolean {
    if (keyId !== undefined && this.subjectKeyId !== undefined && keyId !== this.subjectKeyId) return false;
    if (issuer && issuer.toString('latin1') !== this.#issuerName) return false;
    return !serial || serial.toString('latin1') === this.#serialBytes;
  }

  #wasSignedWith(issuer: Certificate): boolean {
    try {
      issuer.#issuingKey ??= issuer.publicKey;
      return this.#x509.verify(issuer.#issuingKey);
    } catch {
      // A key that is not a point of its curve has signed nothing.
      return false;
    }
  }

  /** Name, DER. */
  get subjectDer(): Buffer {
    return Buffer.from(this.#subjectName, 'latin1');
  }

  toJSON(): object {
    const { subject, issuer, serial, fingerprint, names } = this;
    const [notBefore, notAfter] = [this.notBefore, this.notAfter].map((ms) => new Date(ms).toISOString());
    return { subject, issuer, serial, fingerprint, notBefore, notAfter, names };
  }
}

/**
 * Epoch ms of the first certificate in a PEM text, at a tenth of the cost of reading it whole. Throws like
 * `parseCertificates`.
 */
export function firstNotBefore(text: string): number {
  const block = parsePem(text).find(({ label }) => LABELS.has(label));
  if (!block) throw new PkiError('ERR_PEM_EMPTY', 'input has no certificate');
  return readTime(readFields(block.der).notBefore);
}

/** What OpenSSL accepts as a DNS name in a common name. */
const HOST_NAME = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$/;
const UNREADABLE: KeyType = { type: 'other', name: 'of a kind that cannot be read' };

/** In OpenSSL's encoding; undefined for a key that it cannot use. */
function keyIn(x509: X509Certificate): { keyType: KeyType; spki: Buffer } | undefined {
  try {
    const { publicKey } = x509;
    return { keyType: keyTypeOf(publicKey), spki: publicKey.export({ type: 'spki', format: 'der' }) };
  } catch {
    return undefined;
  }
}

const sha256 = (bytes: Uint8Array): string => hash('sha256', bytes, 'hex');
const LONGEST_NAME = 1024;

const oneLine = (name: string | undefined): string =>
  (name ?? '')
    .slice(0, LONGEST_NAME + 1)
    .split('\n')
    .join(', ')
    .slice(0, LONGEST_NAME);

/** A chain of more is not published; ordinary certificates have 1 to 2 KB. */
const LARGEST = 64 * 1024;

export interface CertificateParsing {
  readonly limits?: PemLimits;
  /** Certificates that are reused instead of parsed again: most roots in a mesh's answers repeat. */
  readonly known?: readonly Certificate[] | undefined;
}

/** All certificates in their order, without duplicates and other blocks; at least one, or ERR_PEM_EMPTY. */
export function parseCertificates(text: string | Uint8Array, options: CertificateParsing = {}): Certificate[] {
  const found = new Map<string, Certificate>();
  for (const { label, der } of parsePem(text, options.limits ?? PEM_LIMITS)) {
    if (!LABELS.has(label)) continue;
    const fingerprint = sha256(der);
    if (found.has(fingerprint)) continue;
    const known = options.known?.find((one) => one.fingerprint === fingerprint);
    found.set(fingerprint, known ?? Certificate.fromDer(der));
  }
  if (found.size === 0) throw new PkiError('ERR_PEM_EMPTY', 'input has no certificate');
  return [...found.values()];
}

/** Of concatenated DER, as `parseCertificates` of PEM. */
export function certificatesFromDer(
  bytes: Buffer,
  { limits = PEM_LIMITS, known = [] }: Pick<CertificateParsing, 'limits' | 'known'> = {},
): Certificate[] {
  if (bytes.length > limits.bytes) {
    throw new PkiError('ERR_PEM_TOO_LARGE', `DER input of ${bytes.length} bytes is over the limit of ${limits.bytes}`);
  }
  const found = new Map<string, Certificate>();
  for (let offset = 0, count = 0; offset < bytes.length; count++) {
    if (count >= limits.blocks) {
      throw new PkiError('ERR_PEM_TOO_MANY', `DER input has more than ${limits.blocks} certificates`);
    }
    const { raw } = readTlv(bytes, offset);
    offset += raw.length;
    const fingerprint = sha256(raw);
    if (found.has(fingerprint)) continue;
    found.set(
      fingerprint,
      known.find((one) => one.fingerprint === fingerprint) ?? Certificate.fromDer(Buffer.from(raw)),
    );
  }
  if (found.size === 0) throw new PkiError('ERR_PEM_EMPTY', 'input has no certificate');
  return [...found.values()];
}

export const formatCertificates = (certificates: readonly Certificate[]): string =>
  certificates.map(({ pem }) => pem).join('');
