import { hash } from 'node:crypto';
import type { Certificate } from './certificate.ts';
import { readFields } from './der/fields.ts';
import { extensionsIn } from './extensions.ts';

/** Extensions of a trust anchor that decide which chains verify under it (RFC 5280 §6.1, §4.2.1). */
const DECISIVE = new Set([
  '2.5.29.14', // subject key identifier
  '2.5.29.15', // key usage
  '2.5.29.19', // basic constraints
  '2.5.29.30', // name constraints
  '2.5.29.32', // certificate policies
  '2.5.29.33', // policy mappings
  '2.5.29.36', // policy constraints
  '2.5.29.37', // extended key usage
  '2.5.29.54', // inhibit any policy
]);

const known = new WeakMap<Certificate, string>();

/**
 * The trust anchor that a root certificate represents, as a SHA-256 in hex: subject, issuer, public key and every
 * extension that decides which chains verify. Two roots with equal anchors verify the same chains; only their dates
 * differ.
 */
export function anchorOf(certificate: Certificate): string {
  let anchor = known.get(certificate);
  if (anchor === undefined) {
    const { subject, issuer, publicKey, extensions } = readFields(certificate.der);
    const decisive = extensionsIn(extensions)
      .filter(({ id, critical }) => critical || DECISIVE.has(id))
      .map(({ id, critical, value }) => `${id}/${critical}/${value.toString('hex')}`)
      .sort();
    const fields = [subject, issuer, publicKey].map(({ raw }) => raw.toString('hex'));
    anchor = hash('sha256', [...fields, ...decisive].join(' '), 'hex');
    known.set(certificate, anchor);
  }
  return anchor;
}

/** True if both lists represent the same trust anchors, whatever the dates of their certificates. */
export function sameAnchors(a: readonly Certificate[], b: readonly Certificate[]): boolean {
  const anchors = new Set(a.map(anchorOf));
  return anchors.size === new Set(b.map(anchorOf)).size && b.every((root) => anchors.has(anchorOf(root)));
}

/** One subject with one key. Subjects are compared as OpenSSL compares them: without case. */
export const authorityOf = ({ subject, publicKeyFingerprint }: Certificate): string =>
  `${publicKeyFingerprint} ${subject.toLowerCase()}`;

/** Envoy sorts larger bundles with an unstable algorithm, which loses the order of certificates of one authority. */
export const MOST_IN_ORDER = 16;
