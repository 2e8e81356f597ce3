import { MeshError } from '../../../src/mesh/error.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../../../src/pki/certificate.ts';

/** Consul's answer about its CA, over either protocol. */
export interface Trust {
  /** `<uuid>.consul`. */
  readonly trustDomain: string;
  /** Authority key identifier of leaves that are signed now; hex without colons. */
  readonly signingKeyId: string;
  /** The active root first, then those still trusted. */
  readonly roots: readonly Certificate[];
  /** Of the active root: cross-signed copies and local signing certificates. */
  readonly intermediates: readonly Certificate[];
}

export interface RawRoot {
  readonly active: boolean;
  readonly signingKeyId: string;
  readonly rootCert: string;
  readonly intermediateCerts: readonly string[];
}

/** Throws ERR_MESH_BAD_RESPONSE for an invalid answer, such as no root or two active ones. */
export function readTrust(what: string, trustDomain: string, raw: readonly RawRoot[]): Trust {
  const bad = (why: string, cause?: unknown) =>
    new MeshError('ERR_MESH_BAD_RESPONSE', `${what}: ${why}; look at the CA with "consul connect ca get-config"`, {
      ...(cause === undefined ? {} : { cause }),
    });
  const active = raw.filter((root) => root.active);
  const [first] = active;
  if (!first || active.length > 1) throw bad(`expected one active root, found ${active.length} among ${raw.length}`);
  if (trustDomain === '') throw bad('no trust domain');
  try {
    return {
      trustDomain: trustDomain.toLowerCase(),
      signingKeyId: keyId(first.signingKeyId),
      roots: unique(
        [first, ...raw.filter((root) => root !== first)].flatMap((root) => parseCertificates(root.rootCert)),
      ),
      intermediates: first.intermediateCerts.flatMap((pem) => parseCertificates(pem)),
    };
  } catch (cause) {
    throw bad('a root that cannot be read', cause);
  }
}

/** `aa:bb:CC` → `aabbcc`. */
export function keyId(text: string): string {
  return text.replaceAll(':', '').toLowerCase();
}

/** Whether two answers are equal in all parts that we use. */
export function sameTrust(a: Trust, b: Trust): boolean {
  return a === b || fingerprintOf(a) === fingerprintOf(b);
}

function fingerprintOf(trust: Trust): string {
  return [trust.trustDomain, trust.signingKeyId, formatCertificates([...trust.roots, ...trust.intermediates])].join(
    '\n',
  );
}

function unique(certificates: readonly Certificate[]): Certificate[] {
  return [...new Map(certificates.map((certificate) => [certificate.fingerprint, certificate])).values()];
}
