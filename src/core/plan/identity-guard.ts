import { type Certificate, firstNotBefore, parseCertificates } from '../../pki/certificate.ts';
import { PrivateKey } from '../../pki/key.ts';
import type { KubeObject } from '../object.ts';
import { emergencyAt, lifetimeOf } from '../schedule.ts';
import { idsOf } from '../verify/checks.ts';
import { verify } from '../verify/verify.ts';

/**
 * Whether the existing Secret holds a newer pair than the wanted one, whose leaf is `next`, valid for the same names
 * under the bundle that would be written, and not yet in its last tenth. A writer that was paused or that reads an old
 * cache must not put an older certificate back.
 */
export function isNewerPublished(next: Certificate, wanted: KubeObject, observed: KubeObject, now: number): boolean {
  const start = readable(() => firstNotBefore(text(observed, 'tls.crt')));
  // The usual case at each rotation.
  if (start !== undefined && start <= next.notBefore) return false;
  const chain = chainOf(observed);
  const [leaf] = chain;
  if (!leaf || leaf.notBefore <= next.notBefore) return false;
  const form = leaf.names.uris.length > 0 ? 'spiffe' : 'dns';
  const [id] = idsOf(next, form);
  const verdict = verify({ key: keyOf(observed), chain }, bundleOf(wanted), { form, id }, now);
  return verdict.ok && now < emergencyAt(lifetimeOf(verdict.path));
}

const chainOf = (secret: KubeObject): readonly Certificate[] =>
  readable(() => parseCertificates(text(secret, 'tls.crt'))) ?? [];
const bundleOf = (secret: KubeObject): readonly Certificate[] =>
  readable(() => parseCertificates(text(secret, 'ca.crt'))) ?? [];
const keyOf = (secret: KubeObject): PrivateKey | undefined =>
  readable(() => PrivateKey.fromPem(text(secret, 'tls.key')));

function text(secret: KubeObject, field: string): string {
  const data = (secret.data ?? {}) as Readonly<Record<string, unknown>>;
  return Buffer.from(String(data[field] ?? ''), 'base64').toString('latin1');
}

/** Somebody else may have written anything: unreadable content counts as absent. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
