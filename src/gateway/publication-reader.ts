import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { Publication } from '../core/decision/decide.ts';
import type { KubeObject } from '../core/object.ts';
import type { OriginProof } from '../core/plan/origin.ts';
import { type Certificate, formatCertificates, parseCertificates } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { type Parsing, readPublication } from './publication.ts';

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
