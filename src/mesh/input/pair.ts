import type { Certificate } from '../../pki/certificate.ts';
import { findPath, orderChain, reachesRootInTime } from '../../pki/chain.ts';
import type { PrivateKey } from '../../pki/key.ts';
import { parseSpiffeId } from '../../pki/spiffe.ts';
import type { Expectation } from '../adapter.ts';
import { MeshError } from '../error.ts';

/** A leaf with its key, without roots yet. */
export interface ReceivedPair {
  readonly id: string;
  readonly key: PrivateKey;
  readonly chain: readonly Certificate[];
}

/** `from` is what has to be looked at when the pair is wrong: `CA … at …`, `the files …`. */
export function readPair(
  from: string,
  key: PrivateKey,
  certificates: readonly Certificate[],
  expectation: Expectation,
  now: number,
): ReceivedPair {
  const [leaf] = certificates;
  if (!leaf || leaf.isCa) throw bad(`${from}: there is no leaf certificate; see its logs`);
  const id = idOf(from, leaf, expectation);
  if (leaf.publicKeyFingerprint !== key.publicKeyFingerprint) {
    throw bad(`${from}: the certificate for ${id} comes with another key, which it was not made for; see its logs`);
  }
  checkName(from, id, expectation);
  if (leaf.notAfter <= now) {
    const at = new Date(leaf.notAfter).toISOString();
    throw bad(`${from}: the certificate for ${id} expired at ${at}; is it still renewed, and do the clocks agree?`);
  }
  return { id, key, chain: orderChain(certificates) };
}

function idOf(from: string, { names }: Certificate, { form }: Expectation): string {
  const given = form === 'spiffe' ? names.uris : names.dns;
  const [id, ...others] = given;
  if (id !== undefined && others.length === 0 && (form === 'dns' || parseSpiffeId(id))) return id;
  const what = given.join(', ') || (form === 'spiffe' ? 'no URI' : 'no DNS name');
  throw bad(`${from}: the certificate is for ${what}; expected one ${form === 'spiffe' ? 'SPIFFE ID' : 'DNS name'}`);
}

function checkName(from: string, id: string, { id: due, trustDomain }: Expectation): void {
  const given = parseSpiffeId(id)?.trustDomain;
  if (trustDomain !== undefined && given !== trustDomain) {
    const next = `if that is the mesh's trust domain, set trustDomain: ${given}`;
    throw new MeshError('ERR_MESH_CONFIG', `${from}: ${id} is not in the trust domain ${trustDomain}; ${next}`, {
      retry: { afterMs: 60_000 },
    });
  }
  if (due !== undefined && id !== due) {
    throw bad(`${from}: the certificate is for ${id}; expected ${due}; compare id and the account with the mesh`);
  }
}

/** Whether the pair proves itself under these roots, as far as signatures and times go; the rest is for verify. */
export function provable(pair: Pick<ReceivedPair, 'chain'>, roots: readonly Certificate[], now: number): boolean {
  const [leaf, ...rest] = pair.chain;
  // Meshes backdate leaves, hosts disagree about the time: a leaf of the next minute is for verify to judge.
  return leaf !== undefined && reachesRootInTime(findPath(leaf, rest, roots, Math.max(now, leaf.notBefore)));
}

/**
 * Roots under which the pair proves itself, if it can: those named now; and those before, while the leaf still needs
 * them, since a root may come before its first leaf.
 */
export function provingRoots(
  pair: Pick<ReceivedPair, 'chain'>,
  named: readonly Certificate[],
  before: readonly Certificate[],
  now: number,
): readonly Certificate[] | undefined {
  if (named.length === 0) return undefined;
  if (provable(pair, named, now)) return named;
  if (!provable(pair, before, now)) return undefined;
  const known = new Set(named.map(({ fingerprint }) => fingerprint));
  return [...named, ...before.filter(({ fingerprint }) => !known.has(fingerprint))];
}

export function requireProvable(from: string, pair: ReceivedPair, roots: readonly Certificate[], now: number): void {
  if (!provable(pair, roots, now)) throw unprovable(from, pair);
}

export function unprovable(from: string, { id, chain }: ReceivedPair): MeshError {
  const issuer = chain.at(-1)?.issuer ?? '';
  return bad(
    `${from}: the certificate for ${id} has the issuer "${issuer}", which is not under the roots that came with it`,
  );
}

function bad(message: string): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', message);
}
