import { z } from 'zod';
import type { LeafOptions, SandboxCa } from '../../sandbox/tls/ca.ts';
import { Trigger } from '../../src/async/trigger.ts';
import type { Adapter, ConfigMapRef, Host, Issuer, Revoking } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import type { Crl } from '../../src/pki/crl.ts';

export const TOY_ID = 'spiffe://toy/ns/emissary/sa/emissary';

/** A mesh without a network: an issuer over a SandboxCa, with controls. */
export class ToyMesh {
  ca: SandboxCa;
  issued = 0;
  /** Requests, whatever their outcome. */
  asked = 0;
  outage = false;
  /** The error that opening it throws. */
  broken: Error | undefined;
  lifetimeMs = 3_600_000;
  roots: readonly Certificate[];
  crls: readonly Crl[] = [];
  /** Followed besides, as Istio's roots are. */
  configMap: ConfigMapRef | undefined;
  /** The name of a ClusterTrustBundle that is followed instead. */
  trustBundle: string | undefined;
  /** What the next answers are instead of good ones. */
  answer: ((good: Identity) => Identity) | undefined;
  readonly #changed = new Set<Trigger>();

  constructor(ca: SandboxCa) {
    this.ca = ca;
    this.roots = [ca.root];
  }

  /** Names other roots, and from now on signs with `ca`. */
  rotate(ca: SandboxCa, roots: readonly Certificate[]): void {
    this.ca = ca;
    this.roots = roots;
    for (const trigger of this.#changed) trigger.fire();
  }

  revoke(crls: readonly Crl[]): void {
    this.crls = crls;
    for (const trigger of this.#changed) trigger.fire();
  }

  issue(options: LeafOptions = {}): Identity {
    const good = {
      ...this.ca.identity({ uris: [TOY_ID], lifetimeMs: this.lifetimeMs, notBeforeSkewMs: 0, ...options }),
      roots: this.roots,
    };
    return this.answer?.(good) ?? good;
  }

  /** Named `istio`, since a MeshCertificate must name a mesh that there is. */
  get adapter(): Adapter {
    return {
      mesh: 'istio',
      title: 'Toy',
      config: z.unknown(),
      tls: { alpnProtocols: 'istio' },
      expect: () => ({ id: TOY_ID, form: 'spiffe' }),
      needs: () => [],
      revokes: true,
      peer: ({ namespace, serviceAccount }) => ({ path: `/ns/${namespace}/sa/${serviceAccount}` }),
      takesPoliciesOf: (controllerName) => controllerName.startsWith('toy.test/'),
      open: (_config, host): Issuer => {
        if (this.broken) throw this.broken;
        return this.#issuer(host);
      },
    };
  }

  #issuer(host: Host): Issuer & Revoking {
    return {
      issue: async () => {
        this.asked += 1;
        if (this.outage) throw new MeshError('ERR_MESH_UNREACHABLE', 'the toy CA does not answer; end the outage');
        this.issued += 1;
        return this.issue();
      },
      roots: (signal) => {
        if (this.configMap) return this.#follow(host.configMap(this.configMap, signal));
        if (this.trustBundle) return this.#follow(host.clusterTrustBundle(this.trustBundle, signal));
        return this.#watch(() => this.roots, signal);
      },
      crls: (signal) => this.#watch(() => this.crls, signal),
      [Symbol.asyncDispose]: async () => {},
    };
  }

  async *#follow(source: AsyncIterable<unknown>): AsyncGenerator<readonly Certificate[]> {
    for await (const _ of source) yield this.roots;
  }

  async *#watch<T>(read: () => T, signal: AbortSignal): AsyncGenerator<T> {
    const trigger = new Trigger();
    this.#changed.add(trigger);
    try {
      for (;;) {
        yield read();
        await trigger.wait(signal);
      }
    } finally {
      this.#changed.delete(trigger);
    }
  }
}
