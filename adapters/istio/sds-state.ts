import type { Expectation } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Identity, sameRoots } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { SdsConfig } from './config.ts';
import { provable, readPair, type SdsPair } from './pair.ts';
import { type BundleSecret, type ReadFile, readSecret } from './sds-secret.ts';
import type { Push } from './sds-stream.ts';

interface SdsContext {
  readonly now: () => number;
  readonly readFile: ReadFile;
}

/**
 * What a subscription has brought so far. Pushes are partial and may repeat; a leaf may come before the root that it
 * needs, and is then held back until that root is there.
 */
export class SdsState {
  readonly #from: string;
  readonly #wish: Expectation;
  readonly #names: Pick<SdsConfig, 'certificateName' | 'bundleName'>;
  readonly #around: SdsContext;
  #pair: SdsPair | undefined;
  #bundle: BundleSecret | undefined;
  #told: Identity | undefined;

  constructor(
    from: string,
    wish: Expectation,
    names: Pick<SdsConfig, 'certificateName' | 'bundleName'>,
    around: SdsContext,
  ) {
    this.#from = from;
    this.#wish = wish;
    this.#names = names;
    this.#around = around;
  }

  /** A leaf is here that cannot prove itself under the roots that are here. */
  get waitsForRoots(): boolean {
    return this.#pair !== undefined && this.#bundle !== undefined && this.#rootsFor(this.#pair) === undefined;
  }

  /** The identity, if this push made a new one or changed its roots. Throws on what can never be used. */
  async take(push: Push): Promise<Identity | undefined> {
    const { now, readFile } = this.#around;
    this.#refuseMadeUpNames(push.version);
    for (const resource of push.resources) {
      const secret = await readSecret(resource, readFile, this.#told?.roots ?? []);
      if (secret?.kind === 'certificate' && secret.name === this.#names.certificateName) {
        this.#pair = readPair(this.#from, secret.key, secret.certificates, this.#wish, now());
      } else if (secret?.kind === 'bundle' && secret.name === this.#names.bundleName) {
        this.#bundle = secret;
      }
    }
    const pair = this.#pair;
    const roots = pair && this.#rootsFor(pair);
    if (!roots) return undefined;
    const identity = { ...pair, roots };
    if (same(this.#told, identity)) return undefined;
    this.#told = identity;
    return identity;
  }

  /**
   * Roots under which the pair proves itself, if it can: those named now; and those before, while the leaf still needs
   * them, since a root may come before its first leaf.
   */
  #rootsFor(pair: SdsPair): readonly Certificate[] | undefined {
    const named = this.#bundle?.rootsFor(parseSpiffeId(pair.id)?.trustDomain ?? '') ?? [];
    const before = this.#told?.roots ?? [];
    const now = this.#around.now();
    if (named.length === 0) return undefined;
    if (provable(pair, named, now)) return named;
    if (!provable(pair, before, now)) return undefined;
    const known = new Set(named.map(({ fingerprint }) => fingerprint));
    return [...named, ...before.filter(({ fingerprint }) => !known.has(fingerprint))];
  }

  /** pilot-agent answers a name it does not know with its certificate, and never pushes the next one under it. */
  #refuseMadeUpNames(version: string): void {
    const { certificateName } = this.#names;
    const fromPilotAgent = /^\d{4}-\d{2}-\d{2}T.*\/\d+$/.test(version);
    if (!fromPilotAgent || certificateName === 'default' || certificateName.startsWith('file-cert:')) return;
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `${this.#from}: pilot-agent has no certificate named "${certificateName}"; set certificateName: default`,
      { retry: { afterMs: 60_000 } },
    );
  }
}

function same(a: Identity | undefined, b: Identity): boolean {
  if (!a || a.chain.length !== b.chain.length || !sameRoots(a.roots, b.roots)) return false;
  return a.chain.every(({ fingerprint }, index) => fingerprint === b.chain[index]?.fingerprint);
}
