import { type Certificate, parseCertificates } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import type { KubeObject } from './object.ts';
import { emergencyAt, lifetimeOf } from './schedule.ts';
import { verify } from './verify.ts';

/**
 * Whether the Secret that stands holds a newer pair than the one that would replace it, good for the same names
 * under the bundle that would be written, and not yet in its last tenth. A writer that was paused or that reads an
 * old cache must not put an older certificate back.
 */
export function standsNewer(wanted: KubeObject, observed: KubeObject, now: number): boolean {
  const [next, standing] = [read(wanted), read(observed)];
  const [nextLeaf] = next?.chain ?? [];
  const [standingLeaf] = standing?.chain ?? [];
  if (!next || !standing || !nextLeaf || !standingLeaf) return false;
  if (standingLeaf.notBefore <= nextLeaf.notBefore) return false;
  const form = standingLeaf.names.uris.length > 0 ? 'spiffe' : 'dns';
  const sameNames = nextLeaf.names[form === 'spiffe' ? 'uris' : 'dns'];
  const verdict = verify(standing, next.bundle, { form, id: sameNames[0] }, now);
  return verdict.ok && now < emergencyAt(lifetimeOf(verdict.path));
}

/** The parts of an identity Secret; undefined when it does not hold a readable pair. */
function read(
  secret: KubeObject,
): { key: PrivateKey; chain: readonly Certificate[]; bundle: readonly Certificate[] } | undefined {
  const data = (secret.data ?? {}) as Readonly<Record<string, unknown>>;
  const part = (name: string) => Buffer.from(String(data[name] ?? ''), 'base64').toString('latin1');
  try {
    return {
      key: PrivateKey.fromPem(part('tls.key')),
      chain: parseCertificates(part('tls.crt')),
      bundle: parseCertificates(part('ca.crt')),
    };
  } catch {
    return undefined;
  }
}
