import { createHash, type KeyObject } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { SandboxCa } from '../tls/ca.ts';

export interface ConnectRoot {
  /** SHA-1 of the certificate, Consul's ID of a root. */
  readonly id: string;
  readonly name: string;
  readonly certificate: Certificate;
  readonly active: boolean;
  /** ID of the certificate that signs leaves under this root. */
  readonly signingKeyId: string;
  readonly intermediates: readonly Certificate[];
}

interface RootEntry {
  readonly ca: SandboxCa;
  readonly crossSigned: readonly Certificate[];
  signing: SandboxCa;
}

export interface ConnectCaOptions {
  readonly clock: Clock;
  readonly trustDomain: string;
  readonly leafLifetimeMs: number;
  readonly rootLifetimeMs: number;
}

const CROSS_SIGNED_MS = 7 * 86_400_000;
const MINUTE = 60_000;

/** The built-in Connect CA: one active root, and retired ones that peers still trust. */
export class ConnectCa {
  readonly trustDomain: string;
  leafLifetimeMs: number;
  readonly #options: ConnectCaOptions;
  #entries: RootEntry[] = [];
  #made = 0;

  constructor(options: ConnectCaOptions) {
    this.#options = options;
    this.trustDomain = options.trustDomain;
    this.leafLifetimeMs = options.leafLifetimeMs;
    this.rotateRoot({ crossSign: false });
  }

  /** The active one first. */
  roots(): ConnectRoot[] {
    return this.#entries.map(({ ca, crossSigned, signing }, at) => ({
      id: colons(createHash('sha1').update(ca.certificate.der).digest('hex')),
      name: `Consul CA Root Cert ${ca.certificate.subject}`,
      certificate: ca.certificate,
      active: at === 0,
      signingKeyId: colons(signing.certificate.subjectKeyId ?? ''),
      intermediates: [...crossSigned, ...signing.chain],
    }));
  }

  rotateRoot({ crossSign }: { crossSign: boolean }): void {
    const { clock, rootLifetimeMs } = this.#options;
    this.#made += 1;
    const ca = SandboxCa.root({
      name: `pri-${this.#made}.consul.ca.${this.trustDomain}`,
      uris: [`spiffe://${this.trustDomain}`],
      keyId: 'sha256',
      clock,
      lifetimeMs: rootLifetimeMs,
    });
    const old = this.#entries[0];
    const crossSigned =
      old && crossSign
        ? [old.ca.crossSign(ca, { notBefore: clock.now() - MINUTE, notAfter: clock.now() + CROSS_SIGNED_MS })]
        : [];
    this.#entries = [{ ca, crossSigned, signing: ca }, ...this.#entries];
  }

  /** Like a secondary datacenter or Vault: another signing certificate under the same root. */
  rotateIntermediate(): void {
    const [active] = this.#entries;
    if (active) active.signing = active.ca.intermediate({ name: `sec-${++this.#made}.consul.ca.${this.trustDomain}` });
  }

  /** From now on signs with the result of `signer` below the active root, like an external CA provider. */
  plugIn(signer: (root: SandboxCa) => SandboxCa): void {
    const [active] = this.#entries;
    if (active) active.signing = signer(active.ca);
  }

  /** Drops retired roots, as Consul does hourly once they are two leaf lifetimes old. */
  prune(): void {
    this.#entries = this.#entries.slice(0, 1);
  }

  /** Leaf, then every intermediate of the active root in stored order. */
  sign(publicKey: KeyObject, names: { uris: readonly string[]; dns?: readonly string[]; ips?: readonly string[] }) {
    const [active] = this.#entries;
    if (!active) throw new TypeError('there is always an active root');
    // Consul's minute; a tenth of lives so short that a minute would end them before they began.
    const notBefore = this.#options.clock.now() - Math.min(MINUTE, this.leafLifetimeMs / 10);
    const leaf = active.signing.issue(publicKey, { ...names, notBefore, notAfter: notBefore + this.leafLifetimeMs });
    const chain = [leaf, ...active.crossSigned, ...active.signing.chain];
    return { leaf, chain, pem: formatCertificates(chain) };
  }
}

export function colons(hex: string): string {
  return hex.replace(/..(?=.)/g, '$&:');
}
