import { createCsr } from '../../src/pki/csr.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import type { ConnectCa } from './connect-ca.ts';
import { ConsulRefusal } from './refusal.ts';
import type { ConsulState } from './state.ts';

/** Consul's own numbers: a random point of life to renew at, and the spread after a change of the CA. */
const SOFT_EXPIRY = { from: 0.6, to: 0.9 };
const SPREAD_MS = 30_000;
/** A leaf with a shorter life is renewed at every request. */
const SHORT_LIFE_MS = 10 * 60_000;

export interface CachedLeaf extends ReturnType<ConnectCa['sign']> {
  readonly key: PrivateKey;
  readonly service: string;
  readonly index: number;
  readonly softExpiry: number;
}

interface LeafEntry {
  leaf: CachedLeaf;
  /** Drawn when a change of the CA was noticed. */
  spreadAt: number | undefined;
  /** No attempt before this time, after signing was rate-limited. */
  notBefore: number;
}

export interface LeafQuery {
  readonly service: string;
  readonly datacenter: string;
  readonly token: string | undefined;
  /** 0: answer at once. */
  readonly index: number;
  readonly waitMs: number;
}

/**
 * The leaf manager of an agent: makes keys, caches leaves by service for all clients, renews them by its own window.
 */
export class LeafCache {
  readonly #state: ConsulState;
  readonly #entries = new Map<string, LeafEntry>();
  #generation = 0;

  constructor(state: ConsulState) {
    this.#state = state;
  }

  async get(query: LeafQuery, signal: AbortSignal): Promise<CachedLeaf> {
    const { clock, changed } = this.#state;
    const deadline = clock.now() + query.waitMs;
    for (let first = true; ; first = false) {
      const entry = this.#entry(query);
      const now = clock.now();
      const fresh = query.index > 0 && entry.leaf.index > query.index;
      const due = this.#dueAt(entry, query.index === 0 && first);
      if (!fresh && now >= due && this.#renew(query, entry)) return entry.leaf;
      if (fresh || query.index === 0 || now >= deadline || signal.aborted) return entry.leaf;
      const next = Math.max(this.#dueAt(entry, false), now + 1);
      await changed.wait(Math.max(0, Math.min(next, deadline) - now), clock, signal);
    }
  }

  /** Every cached leaf is past its renewal point from now on. */
  expire(): void {
    for (const entry of this.#entries.values()) entry.leaf = { ...entry.leaf, softExpiry: this.#state.clock.now() };
    this.#state.changed.fire();
  }

  #entry(query: LeafQuery): LeafEntry {
    if (this.#generation !== this.#state.generation) {
      this.#entries.clear();
      this.#generation = this.#state.generation;
    }
    const key = `${query.datacenter}/${query.service}`;
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = { leaf: this.#make(query), spreadAt: undefined, notBefore: 0 };
      this.#entries.set(key, entry);
    }
    return entry;
  }

  /** Without an index a change of the CA takes effect at once; otherwise at a random moment of the spread. */
  #dueAt(entry: LeafEntry, atOnce: boolean): number {
    const { clock, random, ca } = this.#state;
    const signing = ca.roots()[0]?.signingKeyId.replaceAll(':', '');
    const outdated = entry.leaf.leaf.authorityKeyId !== signing;
    if (outdated) entry.spreadAt ??= clock.now() + random() * SPREAD_MS;
    const wanted =
      outdated && atOnce ? clock.now() : Math.min(entry.spreadAt ?? entry.leaf.softExpiry, entry.leaf.softExpiry);
    return Math.max(wanted, entry.notBefore);
  }

  /** False when the rate limit on signing keeps the old leaf for one more window. */
  #renew(query: LeafQuery, entry: LeafEntry): boolean {
    try {
      entry.leaf = this.#make(query);
      entry.spreadAt = undefined;
      return true;
    } catch (error) {
      if (!(error instanceof ConsulRefusal) || error.http !== 429) throw error;
      const { clock, random } = this.#state;
      entry.notBefore = clock.now() + SPREAD_MS * (1 + random());
      return false;
    }
  }

  #make({ service, datacenter, token }: LeafQuery): CachedLeaf {
    const { clock, random, ca } = this.#state;
    const key = PrivateKey.generate();
    const uri = `spiffe://${ca.trustDomain}/ns/default/dc/${datacenter}/svc/${service}`;
    const signed = this.#state.sign(formatPem('CERTIFICATE REQUEST', createCsr(key, { uris: [uri] })), token);
    const { notBefore, notAfter } = signed.leaf;
    const life = notAfter - notBefore;
    const share = SOFT_EXPIRY.from + random() * (SOFT_EXPIRY.to - SOFT_EXPIRY.from);
    const softExpiry = life < SHORT_LIFE_MS ? clock.now() : notBefore + life * share;
    return { ...signed, key, service, index: this.#state.nextIndex(), softExpiry };
  }
}
