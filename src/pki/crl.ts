import { createHash } from 'node:crypto';
import type { Certificate } from './certificate.ts';
import { children, readTime, readTlv, TAG, type Tlv } from './der/der.ts';
import { PkiError } from './der/error.ts';
import { formatPem, PEM_LIMITS, parsePem } from './der/pem.ts';

/** A certificate revocation list (RFC 5280 §5), as far as it tells whose it is and when it counts. */
export class Crl {
  /** One block with lines of 64 columns. */
  readonly pem: string;
  /** SHA-256 of the DER, hex. */
  readonly fingerprint: string;
  /** Epoch ms. */
  readonly thisUpdate: number;
  /** Epoch ms; undefined: it never says when the next one comes. */
  readonly nextUpdate: number | undefined;
  readonly #issuer: Buffer;

  private constructor(der: Buffer) {
    const { issuer, thisUpdate, nextUpdate } = readList(der);
    this.pem = formatPem('X509 CRL', der);
    this.fingerprint = createHash('sha256').update(der).digest('hex');
    this.thisUpdate = readTime(thisUpdate);
    this.nextUpdate = nextUpdate && readTime(nextUpdate);
    this.#issuer = Buffer.from(issuer.raw);
  }

  static fromDer(der: Buffer): Crl {
    return new Crl(der);
  }

  /** By name; whether the signature is that of the authority is for OpenSSL to judge. */
  isNamedAfter(authority: Certificate): boolean {
    return this.#issuer.equals(authority.subjectDer);
  }

  isCurrent(now: number): boolean {
    return this.thisUpdate <= now && (this.nextUpdate === undefined || now < this.nextUpdate);
  }
}

function readList(der: Buffer): { issuer: Tlv; thisUpdate: Tlv; nextUpdate: Tlv | undefined } {
  const whole = readTlv(der);
  const [signed] = children(whole);
  if (whole.raw.length !== der.length || !signed) throw new PkiError('ERR_DER_SYNTAX', 'a CRL without content');
  const parts = children(signed);
  const [, issuer, thisUpdate, nextUpdate] = parts[0]?.tag === TAG.integer ? parts.slice(1) : parts;
  if (!issuer || !thisUpdate) throw new PkiError('ERR_DER_SYNTAX', 'a CRL lacks fields');
  const isTime = nextUpdate?.tag === TAG.utcTime || nextUpdate?.tag === TAG.generalizedTime;
  return { issuer, thisUpdate, nextUpdate: isTime ? nextUpdate : undefined };
}

/** All CRLs of a PEM text, in their order, without duplicates; other blocks are ignored. */
export function parseCrls(pem: string): Crl[] {
  const blocks = pem.trim() === '' ? [] : parsePem(pem, PEM_LIMITS);
  const crls = blocks.filter(({ label }) => label === 'X509 CRL').map(({ der }) => Crl.fromDer(der));
  return [...new Map(crls.map((crl) => [crl.fingerprint, crl])).values()];
}

export const formatCrls = (crls: readonly Crl[]): string => crls.map(({ pem }) => pem).join('');
