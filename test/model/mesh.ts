import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { type Flaw, flaws } from '../support/flaws.ts';
import type { KeyPool } from './pool.ts';

export const ID = 'spiffe://td/ns/emissary/sa/gateway';
const MINUTE = 60_000;

/** A workload behind the mesh: its certificate and its trust. */
export interface Upstream {
  readonly name: string;
  /** Leaf first. */
  chain: readonly Certificate[];
  /** The root that its chain ends in. */
  root: Certificate;
  trust: readonly Certificate[];
}

const PLAIN_FAULTS = [
  'wrong key',
  'other identity',
  'expired',
  'not yet valid',
  'unknown root',
  'no roots',
  'only other roots',
  'no chain',
  'no intermediate',
] as const;
/** Chains with valid signatures that upstreams or the gateway refuse. */
const FLAWS = new Map(flaws('td').map((flaw) => [flaw.title, flaw]));

export const BAD_PUSHES: readonly BadPush[] = [...PLAIN_FAULTS, ...FLAWS.keys()];
export type BadPush = (typeof PLAIN_FAULTS)[number] | Flaw['title'];

/** A mesh as the agent sees it: roots, one that signs, leaves for each replica, and upstreams. */
export class ModelMesh {
  readonly lifeMs: number;
  readonly upstreams: readonly Upstream[];
  /** By replica, oldest first; the last is what the mesh would push now. */
  readonly pushes = new Map<string, Identity[]>();
  /** When a dropped root came back, by fingerprint. */
  readonly backAt = new Map<string, number>();
  readonly #now: () => number;
  readonly #keys: KeyPool;
  #named: SandboxCa[];
  #dropped: SandboxCa[] = [];
  #signing: SandboxCa;
  #issuer: SandboxCa;
  /** Sent with each chain: the signing root under an older one. */
  #crossed: readonly Certificate[] = [];
  #made = 0;

  constructor(options: {
    now: () => number;
    keys: KeyPool;
    lifeMs: number;
    upstreams: number;
    replicas: readonly string[];
  }) {
    this.#now = options.now;
    this.#keys = options.keys;
    this.lifeMs = options.lifeMs;
    this.#signing = this.#newRoot();
    this.#named = [this.#signing];
    this.#issuer = this.#signing;
    this.upstreams = Array.from({ length: options.upstreams }, (_, at) => {
      const upstream: Upstream = { name: `up${at}`, chain: [], root: this.#signing.certificate, trust: this.named };
      this.renewUpstream(upstream);
      return upstream;
    });
    for (const replica of options.replicas) this.pushes.set(replica, []);
    this.rotateLeaves();
  }

  get named(): readonly Certificate[] {
    return this.#named.map(({ certificate }) => certificate);
  }

  latest(replica: string): Identity | undefined {
    return this.pushes.get(replica)?.at(-1);
  }

  /** One new leaf for each replica, as a node agent has it, or one for all. */
  rotateLeaves(replicas: Iterable<string> = this.pushes.keys(), roots: readonly Certificate[] = this.named): void {
    for (const replica of replicas) this.#push(replica, { ...this.#issue(), roots });
  }

  rotateIntermediate(): void {
    this.#issuer = this.#signing.intermediate({
      name: `int${this.#made++}`,
      key: this.#keys.take(),
      ...this.#period(500 * this.lifeMs),
    });
    this.rotateLeaves();
  }

  /** Names a new root; nothing is signed by it yet. */
  prepareRoot(lifeMs = 1000 * this.lifeMs): void {
    if (this.#named.length >= 4) return;
    this.#named = [...this.#named, this.#newRoot(lifeMs)];
    this.#repush();
  }

  /**
   * Signs with the newest named root, or with a new one that no message has named before. Istio shows the leaf first
   * and the root later; others show both at once.
   */
  activateRoot(how: { readonly fresh: boolean; readonly leafFirst: boolean; readonly crossed: boolean }): void {
    const before = this.#signing;
    const known = this.named;
    if (how.fresh || this.#named.length === 1) this.#named = [...this.#named, this.#newRoot()];
    const next = this.#named.at(-1);
    if (!next || next === before) return;
    this.#signing = next;
    this.#issuer = next;
    this.#crossed = how.crossed ? [before.crossSign(next, this.#period(500 * this.lifeMs))] : [];
    if (how.leafFirst && !known.includes(next.certificate)) this.rotateLeaves(this.pushes.keys(), known);
    this.#repushOrRotate(how.leafFirst);
  }

  /** The signing root's key and name for a new period, as Istio's self-signed CA renews. */
  renewRoot(): void {
    const renewed = this.#signing.renew(this.#period(1000 * this.lifeMs));
    this.#named = this.#named.map((root) => (root === this.#signing ? renewed : root));
    this.#signing = renewed;
    this.#issuer = renewed;
    this.rotateLeaves();
  }

  /**
   * Signs with an older root again; if it had been dropped, the leaf appears before the root, or the root is not named
   * at all for now.
   */
  rollBack(forgetful: boolean): void {
    const named = this.#named.find((root) => root !== this.#signing);
    const older = named ?? this.#dropped.pop();
    if (!older || older.certificate.notAfter < this.#now() + this.lifeMs) return;
    const known = this.named;
    this.#signing = older;
    this.#issuer = older;
    this.#crossed = [];
    this.rotateLeaves(this.pushes.keys(), known);
    if (named) return;
    this.backAt.set(older.certificate.fingerprint, this.#now());
    if (forgetful) return;
    this.#named = [...this.#named, older];
    this.#repush();
  }

  /** Signs with a root that remains, and forgets those that do not. */
  heal(): void {
    const lasting = this.#now() + 200 * this.lifeMs;
    if (this.#signing.certificate.notAfter < lasting) {
      this.activateRoot({ fresh: true, leafFirst: false, crossed: false });
    }
    if (!this.#named.includes(this.#signing)) this.#named = [...this.#named, this.#signing];
    this.#named = this.#named.filter(({ certificate }) => certificate.notAfter >= lasting);
    this.#repush();
  }

  dropRoots(): void {
    if (!this.#named.includes(this.#signing)) this.backAt.set(this.#signing.certificate.fingerprint, this.#now());
    this.#dropped.push(...this.#named.filter((root) => root !== this.#signing));
    this.#named = [this.#signing];
    this.#repush();
  }

  renewUpstream(upstream: Upstream): void {
    const key = this.#keys.take();
    // Upstream leaves live a little shorter than ours, so that clocks may differ by minutes.
    const lifetime = { notBefore: this.#now() - MINUTE, notAfter: this.#now() + this.lifeMs - 10 * MINUTE };
    const leaf = this.#issuer.issue(key, { uris: [`spiffe://td/${upstream.name}`], ...lifetime });
    upstream.chain = [leaf, ...this.#issuer.chain];
    upstream.root = this.#signing.certificate;
  }

  teach(upstream: Upstream): void {
    upstream.trust = this.named;
  }

  /** A fault of the mesh; the good identity is pushed again after it. */
  pushBad(how: BadPush): void {
    for (const [replica, pushes] of this.pushes) {
      const good = pushes.at(-1);
      if (!good) continue;
      pushes.push(this.#spoil(good, how));
      this.#push(replica, good);
    }
  }

  accepts(upstream: Upstream, chain: readonly Certificate[]): boolean {
    const [leaf] = chain;
    return leaf !== undefined && findPath(leaf, chain.slice(1), upstream.trust, this.#now()).ok;
  }

  /** Its chain was made to end in its root: only time can invalidate it. */
  isLive({ chain, root }: Upstream): boolean {
    const now = this.#now();
    return [...chain, root].every((link) => now >= link.notBefore && now < link.notAfter);
  }

  #spoil(good: Identity, how: BadPush): Identity {
    const issue = (options: object, by = this.#issuer) => {
      const key = this.#keys.take();
      return { key, chain: [by.issue(key, { uris: [ID], ...this.#period(this.lifeMs), ...options }), ...by.chain] };
    };
    const now = this.#now();
    switch (how) {
      case 'wrong key':
        return { ...good, chain: issue({}).chain };
      case 'other identity':
        return { ...good, ...issue({ uris: ['spiffe://td/ns/other/sa/other'] }), id: 'spiffe://td/ns/other/sa/other' };
      case 'expired':
        return { ...good, ...issue({ notBefore: now - this.lifeMs, notAfter: now - 10 * MINUTE }) };
      case 'not yet valid':
        return { ...good, ...issue({ notBefore: now + 10 * MINUTE, notAfter: now + this.lifeMs }) };
      case 'unknown root':
        return { ...good, ...issue({}, this.#newRoot()) };
      case 'no roots':
        return { ...good, roots: [] };
      case 'only other roots':
        return { ...good, roots: [this.#newRoot().certificate] };
      case 'no chain':
        return { ...good, chain: [] };
      case 'no intermediate': {
        const between = this.#signing.intermediate({ key: this.#keys.take(), ...this.#period(10 * this.lifeMs) });
        const { key, chain } = issue({}, between);
        return { ...good, key, chain: chain.slice(0, 1) };
      }
      default: {
        const flaw = FLAWS.get(how);
        if (!flaw) throw new RangeError(`no such fault: ${how}`);
        const options = { key: this.#keys.take(), ...this.#period(10 * this.lifeMs) };
        return { ...good, ...issue({}, flaw.signer(this.#signing, options)) };
      }
    }
  }

  #issue(): Omit<Identity, 'roots'> {
    const key = this.#keys.take();
    const leaf = this.#issuer.issue(key, { uris: [ID], ...this.#period(this.lifeMs) });
    return { id: ID, key, chain: [leaf, ...this.#issuer.chain, ...this.#crossed] };
  }

  #newRoot(lifeMs = 1000 * this.lifeMs): SandboxCa {
    return SandboxCa.root({ name: `root${this.#made++}`, key: this.#keys.take(), ...this.#period(lifeMs) });
  }

  #period(lifeMs: number): { notBefore: number; notAfter: number } {
    return { notBefore: this.#now() - MINUTE, notAfter: this.#now() + lifeMs };
  }

  /** The same leaves with the current roots. */
  #repush(): void {
    for (const [replica, pushes] of this.pushes) {
      const last = pushes.at(-1);
      if (last) this.#push(replica, { ...last, roots: this.named });
    }
  }

  #repushOrRotate(again: boolean): void {
    if (again) this.#repush();
    else this.rotateLeaves();
  }

  #push(replica: string, identity: Identity): void {
    this.pushes.get(replica)?.push(identity);
  }
}
