import type { Clock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { SandboxCa } from '../tls/ca.ts';

export interface SpireAuthorityOptions {
  readonly clock: Clock;
  readonly trustDomain: string;
  readonly leafLifetimeMs: number;
  readonly caLifetimeMs: number;
}

/** SPIRE backdates leaves by this. */
const BACKDATED_MS = 10_000;

/** The X.509 authorities of a SPIRE server: self-signed, and rotated in the steps of `localauthority x509`. */
export class SpireAuthority {
  leafLifetimeMs: number;
  readonly trustDomain: string;
  readonly #options: SpireAuthorityOptions;
  #active: SandboxCa;
  #prepared: SandboxCa | undefined;
  #old: SandboxCa | undefined;

  constructor(options: SpireAuthorityOptions) {
    this.#options = options;
    this.trustDomain = options.trustDomain;
    this.leafLifetimeMs = options.leafLifetimeMs;
    this.#active = this.#newCa();
  }

  /** The bundle of the trust domain: every authority that is not revoked. */
  get roots(): readonly Certificate[] {
    return [this.#old, this.#active, this.#prepared].flatMap((ca) => (ca ? [ca.certificate] : []));
  }

  /** The next authority is in the bundle, and signs nothing yet. */
  prepare(): void {
    this.#prepared = this.#newCa();
  }

  /** It signs from now on. */
  activate(): void {
    if (!this.#prepared) throw new TypeError('prepare comes before activate');
    this.#old = this.#active;
    this.#active = this.#prepared;
    this.#prepared = undefined;
  }

  /** The one before leaves the bundle. */
  revoke(): void {
    this.#old = undefined;
  }

  idOf(path: string): string {
    return `spiffe://${this.trustDomain}${path}`;
  }

  issue(id: string): Identity {
    const lifetimeMs = this.leafLifetimeMs;
    const notBeforeSkewMs = Math.min(BACKDATED_MS, lifetimeMs / 10);
    return { ...this.#active.identity({ uris: [id], lifetimeMs, notBeforeSkewMs }), roots: this.roots };
  }

  #newCa(): SandboxCa {
    const { clock, trustDomain, caLifetimeMs } = this.#options;
    const uris = [`spiffe://${trustDomain}`];
    return SandboxCa.root({ clock, uris, name: 'SPIRE', organization: trustDomain, lifetimeMs: caLifetimeMs });
  }
}
