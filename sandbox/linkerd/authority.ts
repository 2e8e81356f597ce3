import type { KeyObject } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import type { PrivateKey } from '../../src/pki/key.ts';
import { SandboxCa } from '../tls/ca.ts';

export interface LinkerdAuthorityOptions {
  readonly clock: Clock;
  readonly trustDomain: string;
  readonly leafLifetimeMs: number;
  /** At both ends of a leaf's validity; the chart sets 20 s, Go's default is 10 s. */
  readonly skewMs: number;
  readonly rootLifetimeMs?: number | undefined;
}

const YEAR = 365 * 86_400_000;

/** Trust anchors and the issuer below one of them: what an operator manages outside of Linkerd. */
export class LinkerdAuthority {
  leafLifetimeMs: number;
  skewMs: number;
  /** An operator may have added the root to the issuer's file; then it is sent too. */
  rootInIssuerFile = false;
  /** The issuer came from `plugIn`. */
  isPluggedIn = false;
  /** The content of the ConfigMap. */
  bundle: readonly Certificate[];
  readonly #options: LinkerdAuthorityOptions;
  #root: SandboxCa;
  #issuer: SandboxCa | undefined;
  #serial = 0n;

  constructor(options: LinkerdAuthorityOptions) {
    this.#options = options;
    this.leafLifetimeMs = options.leafLifetimeMs;
    this.skewMs = options.skewMs;
    this.#root = this.#newRoot();
    this.bundle = [this.#root.certificate];
    this.#issuer = this.#newIssuer({});
  }

  /** The issuer's certificate and the certificates above it in its file. */
  get issuerChain(): readonly Certificate[] | undefined {
    return this.#issuer?.chain;
  }

  /** The newest root; the issuer moves below it when it is replaced. */
  get root(): Certificate {
    return this.#root.certificate;
  }

  addRoot(): void {
    this.#root = this.#newRoot();
    this.bundle = [...this.bundle, this.#root.certificate];
  }

  dropOldRoots(): void {
    this.bundle = [this.#root.certificate];
  }

  /** A new issuer below the newest root. Its serial numbers start at 1 again. */
  replaceIssuer(options: { readonly lifetimeMs?: number | undefined } = {}): void {
    this.#issuer = this.#newIssuer(options);
    this.#serial = 0n;
  }

  /** From now on issues with the result of `issuer` below the newest root, without the controller's check. */
  plugIn(issuer: (root: SandboxCa) => SandboxCa): void {
    this.#issuer = issuer(this.#root);
    this.isPluggedIn = true;
    this.#serial = 0n;
  }

  unloadIssuer(): void {
    this.#issuer = undefined;
  }

  /** Why the issuer may not sign: the answer of the identity controller. */
  issuerProblem(anchors: readonly Certificate[]): string | undefined {
    const [issuer, ...above] = this.issuerChain ?? [];
    if (!issuer) return 'no issuer';
    const found = findPath(issuer, above, anchors, this.#options.clock.now());
    if (found.ok || this.isPluggedIn) return undefined;
    return found.reason === 'expired_link'
      ? 'x509: certificate has expired or is not yet valid'
      : 'x509: certificate signed by unknown authority';
  }

  /** The leaf and the issuer's chain. A leaf never outlives its issuers. */
  issue(publicKey: KeyObject | PrivateKey, dns: string, commonName?: string): Certificate[] {
    const issuer = this.#issuer;
    if (!issuer) throw new TypeError('no issuer is loaded');
    const now = this.#options.clock.now();
    const wanted = now + this.leafLifetimeMs + this.skewMs;
    const leaf = issuer.issue(publicKey, {
      dns: [dns],
      ...(commonName && { commonName }),
      serial: ++this.#serial,
      notBefore: now - this.skewMs,
      notAfter: Math.min(wanted, ...issuer.chain.map((link) => link.notAfter)),
      bare: true,
    });
    return [leaf, ...issuer.chain, ...(this.rootInIssuerFile ? [issuer.root] : [])];
  }

  #newRoot(): SandboxCa {
    const { clock, trustDomain, rootLifetimeMs } = this.#options;
    return SandboxCa.root({ name: `root.linkerd.${trustDomain}`, clock, lifetimeMs: rootLifetimeMs ?? 10 * YEAR });
  }

  #newIssuer({ lifetimeMs = YEAR }: { readonly lifetimeMs?: number | undefined }): SandboxCa {
    const now = this.#options.clock.now();
    const notAfter = Math.min(now + lifetimeMs, this.#root.certificate.notAfter);
    return this.#root.intermediate({ name: `identity.linkerd.${this.#options.trustDomain}`, notAfter });
  }
}
