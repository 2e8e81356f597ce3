import { createHash } from 'node:crypto';
import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { Publication } from '../core/decide.ts';
import type { OriginProof } from '../core/plan.ts';
import { parseRootTimes, ROOT_TIMES_ANNOTATION, type RootTimes } from '../core/trust.ts';

import { UPSTREAM_TRUST_DOMAIN_ANNOTATION } from '../core/upstream-trust.ts';
import {
  describe,
  fields,
  type KubeObject,
  MANAGED_BY_LABEL,
  type ObjectMeta,
  OWNER_LABEL,
  refOf,
  text,
} from '../objects/objects.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../pki/certificate.ts';
import { findPath, reachesRoot } from '../pki/chain.ts';
import { parseCrls } from '../pki/crl.ts';
import { PrivateKey } from '../pki/key.ts';

/** How texts become certificates and keys; a caller that reads often caches here. */
interface Parsing {
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
const upstreamTrustDomain = (secret: KubeObject | undefined): string | undefined =>
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

type PublishedPair = NonNullable<Publication['identity']>;

/** A mesh has one bundle, or two while its roots overlap; an agent follows a few meshes. */
const BUNDLES = 32;

/** Trust bundles by their text: a thousand publications of one mesh share one copy. */
export class Bundles {
  readonly #known = new Map<string, readonly Certificate[]>();

  parse(text: string): readonly Certificate[] {
    const known = this.#known.get(text) ?? parseCertificates(text);
    this.#known.delete(text);
    this.#known.set(text, known);
    const [oldest] = this.#known.keys();
    if (this.#known.size > BUNDLES && oldest !== undefined) this.#known.delete(oldest);
    return known;
  }
}

/**
 * Reads one publication repeatedly. Content that is read at each change, and mostly unchanged, is parsed once; bytes
 * equal to those of a pair in memory give that pair. A Secret that does not prove its origin is ignored: neither its
 * roots nor its pair are trusted.
 */
export class PublicationReader {
  readonly #bundles: Bundles;
  #seen: readonly KubeObject[] = [];
  #result: Publication | undefined;
  #pair: PublishedPair | undefined;

  constructor(bundles: Bundles) {
    this.#bundles = bundles;
  }

  read(
    spec: Pick<MeshCertificateSpec, 'secretName' | 'caSecretName' | 'crlSecretName'>,
    objects: readonly KubeObject[],
    isProven: OriginProof,
    atHand: PublishedPair | undefined,
  ): Publication {
    const seen = objects.filter((object) => object.kind === 'Secret' && isProven(object));
    const same = seen.length === this.#seen.length && seen.every((object, at) => object === this.#seen[at]);
    if (same && this.#result) return this.#result;
    const parsing: Parsing = {
      bundle: (text) => this.#bundles.parse(text),
      pair: (key, chain) => this.#parse(key, chain, atHand),
    };
    // A copy has no spare capacity, of which `filter` leaves 16 slots.
    this.#seen = [...seen];
    this.#result = readPublication(spec, seen, parsing);
    return this.#result;
  }

  #parse(key: string, chain: string, atHand: PublishedPair | undefined): PublishedPair {
    const known = [atHand, this.#pair].find((pair) => pair && isWritten(pair, key, chain));
    this.#pair = known ?? { key: PrivateKey.fromPem(key), chain: parseCertificates(chain) };
    return this.#pair;
  }
}

function isWritten(pair: PublishedPair, key: string, chain: string): boolean {
  return pair.key.toPem() === key && formatCertificates(pair.chain) === chain;
}

type Parsed<T> = { readonly value: T } | { readonly problem: string } | undefined;

/** The decoded content of a context's Secrets; undefined if there is none. */
export interface SecretPair {
  readonly chain: Parsed<readonly Certificate[]>;
  readonly key: Parsed<PrivateKey>;
  readonly keyPem: string | undefined;
  /** By which the gateway verifies upstreams. */
  readonly roots: Parsed<readonly Certificate[]>;
  /** Under which the chain must be: the same, unless the upstreams are in another trust domain. */
  readonly issuers: Parsed<readonly Certificate[]>;
}

export function readPair(identity: KubeObject | undefined, ca: KubeObject | undefined): SecretPair | undefined {
  if (!identity && !ca) return undefined;
  const data = identity ? decodeData(identity) : {};
  const bundle = ca ? decodeData(ca)['tls.crt'] : data['root-cert.pem'];
  const keyPem = data['tls.key'] ?? data['key.pem'];
  const chain = parsed(data['tls.crt'] ?? data['cert-chain.pem'], parseCertificates);
  const roots = parsed(bundle, parseCertificates);
  const issuers = upstreamTrustDomain(ca) === undefined ? roots : parsed(data['ca.crt'], parseCertificates);
  return { chain, key: parsed(keyPem, PrivateKey.fromPem), keyPem, roots, issuers };
}

function parsed<T>(pem: string | undefined, read: (pem: string) => T): Parsed<T> {
  if (pem === undefined) return undefined;
  try {
    return { value: read(pem) };
  } catch (error) {
    return { problem: error instanceof Error ? error.message : String(error) };
  }
}

export const parsedValue = <T>(part: Parsed<T>): T | undefined => (part && 'value' in part ? part.value : undefined);

/** The longest value that Kubernetes accepts in a label. */
const LONGEST = 63;

/** `<namespace>.<name>`; a long one is cut and ends in a digest of the whole, so that two never look alike. */
export function ownerLabel({ namespace = '', name }: Pick<ObjectMeta, 'name' | 'namespace'>): string {
  const whole = `${namespace}.${name}`;
  if (whole.length <= LONGEST) return whole;
  const digest = createHash('sha256').update(whole).digest('hex').slice(0, 12);
  return `${whole.slice(0, LONGEST - digest.length - 1).replace(/(?<![^A-Za-z0-9])[^A-Za-z0-9]+$/, '')}-${digest}`;
}

/** Labels of each object that we write. The two that name its owner override the user's. */
export function ownLabels(
  owner: Pick<ObjectMeta, 'name' | 'namespace'>,
  extra: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  return { ...extra, [MANAGED_BY_LABEL]: 'meshcert', [OWNER_LABEL]: ownerLabel(owner) };
}

/** The texts of a Secret by their key. Values that are not base64 of UTF-8, and empty ones, count as absent. */
export function decodeData(secret: KubeObject): Readonly<Record<string, string | undefined>> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  const decoded: Record<string, string> = {};
  for (const [key, value] of Object.entries(fields(secret.data))) {
    try {
      const plain = decoder.decode(Buffer.from(String(value), 'base64'));
      if (plain !== '') decoded[key] = plain;
    } catch {}
  }
  for (const [key, value] of Object.entries(fields(secret.stringData))) if (text(value)) decoded[key] = String(value);
  return decoded;
}
