import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath, orderChain } from '../../src/pki/chain.ts';
import type { ConsulConfig } from './config.ts';
import { wrongName } from './name.ts';
import type { Trust } from './protocol/trust.ts';

/**
 * The chain to present. Consul sends every intermediate that it stores: unordered, duplicated, sometimes expired,
 * sometimes incomplete. Those that are valid now and continue the chain are used; missing ones are taken from the roots
 * answer.
 */
export function presentable(received: readonly Certificate[], trust: Trust, now: number): Certificate[] {
  const [leaf, ...rest] = received;
  if (!leaf) return [];
  const chain = linked([leaf, ...rest.filter((link) => valid(link, now))]);
  if (findPath(leaf, chain.slice(1), trust.roots, now).ok) return chain;
  return linked([leaf, ...[...rest, ...trust.intermediates].filter((link) => valid(link, now))]);
}

function linked(certificates: readonly Certificate[]): Certificate[] {
  const ordered = orderChain(certificates);
  const gap = ordered.findIndex((link, at) => at > 0 && !ordered[at - 1]?.isIssuedBy(link));
  return gap < 0 ? ordered : ordered.slice(0, gap);
}

function valid(certificate: Certificate, now: number): boolean {
  return certificate.notBefore <= now && now < certificate.notAfter;
}

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
