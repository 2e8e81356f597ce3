import type { Certificate } from '../../src/pki/certificate.ts';
import type { ConsulConfig } from './config.ts';
import { wrongName } from './name.ts';
import type { Trust } from './protocol/trust.ts';

/**
 * Why a chain should be replaced before its time, or undefined. The active root's id alone is not enough: a renewed
 * local signing certificate changes the signing key under the same root.
 */
export function staleReason(
  config: ConsulConfig,
  chain: readonly Certificate[],
  trust: Trust,
  now: number,
): string | undefined {
  const [leaf, ...links] = chain;
  if (!leaf) return 'the chain is empty';
  const wrong = wrongName(config, leaf, trust.trustDomain);
  if (wrong) return wrong;
  if (leaf.authorityKeyId !== trust.signingKeyId) {
    return `the leaf was signed by key ${leaf.authorityKeyId ?? 'unknown'}, the active root signs with ${trust.signingKeyId}`;
  }
  const expired = links.find((link) => link.notAfter <= now);
  return expired && `the intermediate ${expired.subject || expired.fingerprint} expired`;
}
