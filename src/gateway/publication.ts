import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { Publication } from '../core/decision/decide.ts';
import { describe, type KubeObject, refOf } from '../core/object.ts';
import { parseRootTimes, ROOT_TIMES_ANNOTATION } from '../core/trust/root-times.ts';
import type { RootTimes } from '../core/trust/trust.ts';
import { UPSTREAM_TRUST_DOMAIN_ANNOTATION } from '../core/trust/upstream-trust.ts';
import { type Certificate, parseCertificates } from '../pki/certificate.ts';
import { findPath, reachesRoot } from '../pki/chain.ts';
import { parseCrls } from '../pki/crl.ts';
import { PrivateKey } from '../pki/key.ts';
import { decodeData } from './secret-data.ts';

/** How texts become certificates and keys; a caller that reads often caches here. */
export interface Parsing {
  bundle(text: string): readonly Certificate[];
  pair(key: string, chain: string): NonNullable<Publication['identity']>;
}

const NO_PROBLEMS: Publication['problems'] = [];

const FRESH: Parsing = {
  bundle: (text) => parseCertificates(text),
  pair: (key, chain) => ({ key: PrivateKey.fromPem(key), chain: parseCertificates(chain) }),
};

/** Reads a publication back from its objects; other objects are ignored. Never throws. */
export function readPublication(
  spec: Pick<MeshCertificateSpec, 'secretName' | 'caSecretName' | 'crlSecretName'>,
  objects: Iterable<KubeObject>,
  parsing: Parsing = FRESH,
): Publication {
  const secrets = [...objects].filter(({ kind }) => kind === 'Secret');
  const problems: { object: string; message: string }[] = [];
  const read = <T>(secret: KubeObject | undefined, how: (data: Readonly<Record<string, string | undefined>>) => T) => {
    if (!secret) return undefined;
    try {
      return how(decodeData(secret));
    } catch (error) {
      problems.push({
        object: describe(refOf(secret)),
        message: error instanceof Error ? error.message : String(error),
      });
      return undefined;
    }
  };
  const named = (name: string) => secrets.find(({ metadata }) => metadata.name === name);

  const caSecret = named(spec.caSecretName);
  const found = read(caSecret, (data) => parsing.bundle(data['tls.crt'] ?? data['ca.crt'] ?? '')) ?? [];
  const pairSecret = named(spec.secretName);
  const identity = read(pairSecret, (data) => parsing.pair(data['tls.key'] ?? '', data['tls.crt'] ?? ''));
  const crlSecret = spec.crlSecretName === undefined ? undefined : named(spec.crlSecretName);
  const crls = read(crlSecret, (data) => parseCrls(data['crl.pem'] ?? ''));
  const written = secrets.map(({ metadata: { name, uid = '' } }) => ({ name, uid }));
  const rest = { identity, crls, secrets: written, problems: problems.length === 0 ? NO_PROBLEMS : problems };
  // Without the CA Secret the other one shows that roots of the identity's domain must not take its place.
  const trustDomain = upstreamTrustDomain(caSecret ?? pairSecret);
  if (trustDomain !== undefined) {
    const bundle = read(pairSecret, (data) => parsing.bundle(data['ca.crt'] ?? '')) ?? [];
    const upstream = { trustDomain, bundle: found, since: timesOf(caSecret, found) };
    return { ...rest, bundle, since: timesOf(pairSecret, bundle), upstream };
  }
  const bundle = pairSecret && !carries(found, identity?.chain ?? []) ? joined(found, beside(pairSecret)) : found;
  return { ...rest, bundle, since: timesOf(caSecret, bundle) };
}

/** The roots by which upstreams are verified. */
export const upstreamRoots = ({ bundle, upstream }: Publication): readonly Certificate[] => upstream?.bundle ?? bundle;

/** Set if upstreams are in another trust domain than the pair: the CA Secret then holds the roots of that domain. */
export const upstreamTrustDomain = (secret: KubeObject | undefined): string | undefined =>
  secret?.metadata.annotations?.[UPSTREAM_TRUST_DOMAIN_ANNOTATION];

const timesOf = (secret: KubeObject | undefined, bundle: readonly Certificate[]): RootTimes =>
  parseRootTimes(secret?.metadata.annotations?.[ROOT_TIMES_ANNOTATION], bundle);

/**
 * Whether the chain ends in this bundle, whatever the time and the path rules. False only if somebody else wrote the CA
 * Secret.
 */
function carries(bundle: readonly Certificate[], [leaf, ...links]: readonly Certificate[]): boolean {
  if (!leaf) return bundle.length > 0;
  return reachesRoot(findPath(leaf, links, bundle, leaf.notBefore, Number.POSITIVE_INFINITY));
}

/** The copy beside the pair shows which roots were trusted before. */
function beside(pairSecret: KubeObject): readonly Certificate[] {
  try {
    return parseCertificates(decodeData(pairSecret)['ca.crt'] ?? '');
  } catch {
    return [];
  }
}

function joined(bundle: readonly Certificate[], more: readonly Certificate[]): readonly Certificate[] {
  return [...new Map([...bundle, ...more].map((root) => [root.fingerprint, root])).values()];
}
