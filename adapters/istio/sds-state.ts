import type { Expectation } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Identity, sameIdentity } from '../../src/mesh/identity.ts';
import { provingRoots, type ReceivedPair, readPair } from '../../src/mesh/input/pair.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { SdsConfig } from './config.ts';
import { type BundleSecret, type ReadFile, readSecret } from './sds-secret.ts';
import type { Push } from './sds-stream.ts';

interface SdsContext {
  readonly now: () => number;
  readonly readFile: ReadFile;
}

/**
 * What a subscription has received so far. Pushes are partial and may repeat; a leaf may come before the root that it
 * needs, and is then held back until that root arrives.
 */
export class SdsState {
  readonly #from: string;
  readonly #expectation: Expectation;
  readonly #names: Pick<SdsConfig, 'certificateName' | 'bundleName'>;
  readonly #around: SdsContext;
  #pair: ReceivedPair | undefined;
  #bundle: BundleSecret | undefined;
  #reported: Identity | undefined;

  constructor(
    from: string,
    expectation: Expectation,
    names: Pick<SdsConfig, 'certificateName' | 'bundleName'>,
    around: SdsContext,
  ) {
    this.#from = from;
    this.#expectation = expectation;
    this.#names = names;
    this.#around = around;
  }

  /** There is a leaf that does not verify under the received roots. */
  get waitsForRoots(): boolean {
    return this.#pair !== undefined && this.#bundle !== undefined && this.#rootsFor(this.#pair) === undefined;
  }

  /** The identity, if this push made a new one or changed its roots. Throws for content that can never be used. */
  async take(push: Push): Promise<Identity | undefined> {
    const { now, readFile } = this.#around;
    this.#refuseMadeUpNames(push.version);
    for (const resource of push.resources) {
      const secret = await readSecret(resource, readFile, this.#reported?.roots ?? []);
      if (secret?.kind === 'certificate' && secret.name === this.#names.certificateName) {
        this.#pair = readPair(this.#from, secret.key, secret.certificates, this.#expectation, now());
      } else if (secret?.kind === 'bundle' && secret.name === this.#names.bundleName) {
        this.#bundle = secret;
      }
    }
    const pair = this.#pair;
    const roots = pair && this.#rootsFor(pair);
    if (!roots) return undefined;
    const identity = { ...pair, roots };
    if (sameIdentity(this.#reported, identity)) return undefined;
    this.#reported = identity;
    return identity;
  }

  #rootsFor(pair: ReceivedPair): readonly Certificate[] | undefined {
    const named = this.#bundle?.rootsFor(parseSpiffeId(pair.id)?.trustDomain ?? '') ?? [];
    return provingRoots(pair, named, this.#reported?.roots ?? [], this.#around.now());
  }

  /** pilot-agent answers an unknown name with its certificate, and never pushes the next one under it. */
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
