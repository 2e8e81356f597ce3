import type { Expectation } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath, orderChain, reachesRootInTime } from '../../src/pki/chain.ts';
import type { PrivateKey } from '../../src/pki/key.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';

/** A leaf with its key, without roots yet. */
export interface SdsPair {
  readonly id: string;
  readonly key: PrivateKey;
  readonly chain: readonly Certificate[];
}

/** The host that must be asked about a certificate is named first in each message: `istiod at …`. */
export function readPair(
  from: string,
  key: PrivateKey,
  certificates: readonly Certificate[],
  wish: Expectation,
  now: number,
): SdsPair {
  const [leaf] = certificates;
  if (!leaf || leaf.isCa) throw bad(`${from} sent no leaf certificate; see its logs`);
  const [id, ...others] = leaf.names.uris;
  if (id === undefined || others.length > 0 || !parseSpiffeId(id)) {
    throw bad(`${from} sent a certificate for ${leaf.names.uris.join(', ') || 'no URI'}; expected one SPIFFE ID`);
  }
  if (leaf.publicKeyFingerprint !== key.publicKeyFingerprint) {
    throw bad(`${from} sent a certificate for ${id} with another key than the one in the request; see its logs`);
  }
  checkName(from, id, wish);
  if (leaf.notAfter <= now) {
    throw bad(`${from} sent a certificate that expired at ${iso(leaf.notAfter)}; compare its clock with this one`);
  }
  return { id, key, chain: orderChain(certificates) };
}

function checkName(from: string, id: string, { id: due, trustDomain }: Expectation): void {
  const given = parseSpiffeId(id)?.trustDomain;
  if (trustDomain !== undefined && given !== trustDomain) {
    const next = `if that is the mesh's trust domain, set trustDomain: ${given}`;
    throw new MeshError('ERR_MESH_CONFIG', `${from} sent ${id}; expected trust domain ${trustDomain}; ${next}`, {
      retry: { afterMs: 60_000 },
    });
  }
  if (due !== undefined && id !== due) {
    throw bad(
      `${from} sent a certificate for ${id}; expected ${due}; check the token's ServiceAccount and spec.istio.id`,
    );
  }
}

/** Whether the pair proves itself under these roots, as far as signatures and times go; the rest is for verify. */
export function provable(pair: Pick<SdsPair, 'chain'>, roots: readonly Certificate[], now: number): boolean {
  const [leaf, ...rest] = pair.chain;
  // Meshes backdate leaves, hosts disagree about the time: a leaf of the next minute is for verify to judge.
  return leaf !== undefined && reachesRootInTime(findPath(leaf, rest, roots, Math.max(now, leaf.notBefore)));
}

export function requireProvable(from: string, pair: SdsPair, roots: readonly Certificate[], now: number): void {
  if (provable(pair, roots, now)) return;
  const issuer = pair.chain.at(-1)?.issuer ?? '';
  throw bad(
    `${from} sent a certificate for ${pair.id} whose issuer "${issuer}" is not under the roots that came with it`,
  );
}

function bad(message: string): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', message);
}

const iso = (ms: number): string => new Date(ms).toISOString();
