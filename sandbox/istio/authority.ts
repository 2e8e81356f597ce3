import type { KeyObject } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { SandboxCa } from '../tls/ca.ts';

/** The signer: istiod's own root, a plug-in intermediate, or that with the root also among the intermediates. */
export type Layout = 'self-signed' | 'plug-in' | 'plug-in-with-root';

export interface IstioAuthorityOptions {
  readonly clock: Clock;
  readonly layout: Layout;
  readonly leafLifetimeMs: number;
  readonly rootLifetimeMs: number;
}

/** istiod backdates leaves by this. */
const BACKDATED_MS = 120_000;

/** Istio's certificate authority: its signer, and the roots that it names. */
export class IstioAuthority {
  leafLifetimeMs: number;
  readonly #options: IstioAuthorityOptions;
  #root: SandboxCa;
  #signer: SandboxCa;
  #named: readonly Certificate[];
  #next: SandboxCa | undefined;

  constructor(options: IstioAuthorityOptions) {
    this.#options = options;
    this.leafLifetimeMs = options.leafLifetimeMs;
    this.#root = this.#newRoot();
    this.#signer = this.#signerUnder(this.#root);
    this.#named = [this.#root.certificate];
  }

  /** The bundle: usually one root, two while they overlap. */
  get roots(): readonly Certificate[] {
    return this.#named;
  }

  get rootPem(): string {
    return formatCertificates(this.#named);
  }

  get signer(): SandboxCa {
    return this.#signer;
  }

  /** A root with the same key and subject for a new period, as istiod renews its own; or with a new key, at once. */
  rotateRoot(key: 'same' | 'new'): void {
    const { rootLifetimeMs } = this.#options;
    const root = key === 'same' ? this.#root.renew({ lifetimeMs: rootLifetimeMs }) : this.#newRoot();
    this.#use(root, [root.certificate]);
  }

  /** The three safe steps, one for each call: also trust the new root; sign with it; trust only it. */
  overlapRoot(): 'trusted' | 'signing' | 'alone' {
    const next = this.#next;
    if (!next) {
      this.#next = this.#newRoot();
      this.#named = [this.#root.certificate, this.#next.certificate];
      return 'trusted';
    }
    if (this.#root !== next) {
      this.#use(next, this.#named);
      return 'signing';
    }
    this.#named = [next.certificate];
    this.#next = undefined;
    return 'alone';
  }

  /** A new intermediate under the same root; no change when the root itself signs. */
  rotateIntermediate(): void {
    this.#signer = this.#signerUnder(this.#root);
  }

  /** From now on signs with the result of `signer` below the root, as an operator may plug in any CA. */
  plugIn(signer: (root: SandboxCa) => SandboxCa): void {
    this.#signer = signer(this.#root);
  }

  sign(publicKey: KeyObject | PrivateKey, id: string, lifetimeMs = this.leafLifetimeMs): Certificate {
    // A leaf shorter than istiod would issue is backdated by a share of its life, or it would already be due for
    // renewal.
    const notBeforeSkewMs = Math.min(BACKDATED_MS, lifetimeMs / 10);
    return this.#signer.issue(publicKey, { uris: [id], lifetimeMs, notBeforeSkewMs });
  }

  /** The answer of CreateCertificate: leaf, intermediates one by one, and last all roots in one element. */
  answer(leaf: Certificate): string[] {
    const root = this.#options.layout === 'plug-in-with-root' ? [this.#root.certificate] : [];
    const lower = [leaf, ...this.#signer.chain, ...root];
    return [...lower.map(({ pem }) => pem), this.rootPem];
  }

  /** A workload's own identity. */
  identity(id: string): Identity {
    const key = PrivateKey.generate();
    return { id, key, chain: [this.sign(key, id), ...this.#signer.chain], roots: this.#named };
  }

  #use(root: SandboxCa, named: readonly Certificate[]): void {
    this.#root = root;
    this.#signer = this.#signerUnder(root);
    this.#named = named;
  }

  #newRoot(): SandboxCa {
    const { clock, rootLifetimeMs } = this.#options;
    return SandboxCa.root({ clock, lifetimeMs: rootLifetimeMs, organization: 'cluster.local', name: 'Root CA' });
  }

  #signerUnder(root: SandboxCa): SandboxCa {
    if (this.#options.layout === 'self-signed') return root;
    return root.intermediate({ name: 'Intermediate CA', lifetimeMs: this.#options.rootLifetimeMs });
  }
}
