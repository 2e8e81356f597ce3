import type { Clock } from '../../src/async/clock.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import type { PrivateKey } from '../../src/pki/key.ts';

/**
 * Linkerd backdates leaves by 20 s. A clock that is slightly further behind waits until the leaf is valid; one that is
 * a minute or more behind would wait at each renewal and misjudge every expiry, so it is an error.
 */
const LONGEST_WAIT_MS = 60_000;

/** Refuses a leaf that does not match the request; Linkerd's proxies check the same for theirs. */
export function checkLeaf(chain: readonly Certificate[], identity: string, key: PrivateKey, now: number): Certificate {
  const [leaf] = chain;
  const wrong = (what: string) =>
    new MeshError('ERR_MESH_BAD_RESPONSE', `Linkerd's certificate for ${identity} ${what}`);
  if (!leaf) throw wrong('is missing');
  if (leaf.publicKeyFingerprint !== key.publicKeyFingerprint) throw wrong('is for another key; meshcert discards it');
  if (!leaf.names.dns.includes(identity)) {
    throw wrong(`names ${leaf.names.dns.join(', ') || 'no DNS name'} instead; meshcert discards it`);
  }
  if (leaf.notAfter <= now) {
    throw wrong(
      `ended at ${new Date(leaf.notAfter).toISOString()}, and this machine's clock says ${new Date(now).toISOString()}; correct the clock, or renew Linkerd's issuer if it ends at that time`,
    );
  }
  if (leaf.notBefore - now > LONGEST_WAIT_MS) throw wrong(clockAdvice(leaf, now));
  return leaf;
}

/** Waits for a leaf that is not valid yet, and reports why. */
export async function untilValid(
  leaf: Certificate,
  clock: Clock,
  report: (error: Error) => void,
  signal: AbortSignal,
): Promise<void> {
  const wait = leaf.notBefore - clock.now();
  if (wait <= 0) return;
  report(new MeshError('ERR_MESH_BAD_RESPONSE', `Linkerd's certificate ${clockAdvice(leaf, clock.now())}`));
  await clock.sleep(wait, signal);
}

function clockAdvice(leaf: Certificate, now: number): string {
  const seconds = Math.ceil((leaf.notBefore - now) / 1000);
  return `is valid only in ${seconds} s: this machine's clock is at least that far behind the control plane's; set it (NTP)`;
}
