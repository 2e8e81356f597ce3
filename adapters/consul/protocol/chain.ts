import type { Certificate } from '../../../src/pki/certificate.ts';
import { findPath, orderChain } from '../../../src/pki/chain.ts';
import type { Trust } from './trust.ts';

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
