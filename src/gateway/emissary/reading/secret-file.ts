import { createHash } from 'node:crypto';
import type { KubeObject } from '../../../core/object.ts';
import { text } from '../../../mesh/kube-object.ts';
import { parseCertificates } from '../../../pki/certificate.ts';
import { PrivateKey } from '../../../pki/key.ts';
import { decodeData } from '../../secret-data.ts';

/** One Secret as Emissary decodes it; all texts are PEM. */
export interface SecretFiles {
  readonly namespace: string;
  readonly name: string;
  /** The stem of every file of this Secret: SHA-1 over certificate, key and user key, upper-case hex. */
  readonly stem: string;
  readonly certificate: string | undefined;
  readonly key: string | undefined;
  readonly user: string | undefined;
  readonly root: string | undefined;
}

/** Any other type is ignored silently and reads as missing. */
export const SECRET_TYPES = ['kubernetes.io/tls', 'Opaque', 'istio.io/key-and-cert'];

/** What Emissary reads from a Secret, or undefined when it treats the Secret as missing. */
export function readSecretFiles(secret: KubeObject): SecretFiles | undefined {
  if (!SECRET_TYPES.includes(text(secret.type) ?? 'Opaque')) return undefined;
  const data = decodeData(secret);
  const certificate = data['tls.crt'] ?? data['cert-chain.pem'];
  const user = data['user.key'] ?? data['crl.pem'];
  if (certificate === undefined && user === undefined) return undefined;
  const key = data['tls.key'] ?? data['key.pem'];
  return {
    namespace: secret.metadata.namespace ?? '',
    name: secret.metadata.name,
    stem: stemOf(certificate, key, user),
    certificate,
    key,
    user,
    root: data['root-cert.pem'],
  };
}

/**
 * AMBASSADOR_FORCE_SECRET_VALIDATION: the first PEM block of certificate and key must parse; the rest is not checked.
 */
export function passesValidation({ certificate, key }: SecretFiles): boolean {
  try {
    if (certificate !== undefined) parseCertificates(firstBlock(certificate));
    if (key !== undefined) PrivateKey.fromPem(firstBlock(key));
    return true;
  } catch {
    return false;
  }
}

/** From the first begin that has an end: what is before it is no block. */
function firstBlock(pem: string): string {
  for (const { 0: begin, 1: label, index } of pem.matchAll(/-----BEGIN ([^-]+)-----/g)) {
    const end = `-----END ${label}-----`;
    const at = pem.indexOf(end, index + begin.length);
    if (at !== -1) return pem.slice(index, at + end.length);
  }
  return '';
}

/**
 * The file name, without directory and extension, under which Emissary stores this pair: it changes with the pair, but
 * not with `root-cert.pem`. `data` is a Secret's, base64.
 */
export function secretFileName(data: Readonly<Record<string, string>>): string {
  const decoded = decodeData({ apiVersion: 'v1', kind: 'Secret', metadata: { name: '' }, data });
  return stemOf(
    decoded['tls.crt'] ?? decoded['cert-chain.pem'],
    decoded['tls.key'] ?? decoded['key.pem'],
    decoded['user.key'] ?? decoded['crl.pem'],
  );
}

function stemOf(...parts: (string | undefined)[]): string {
  const hash = createHash('sha1');
  for (const part of parts) hash.update(part ?? '');
  return hash.digest('hex').toUpperCase();
}
