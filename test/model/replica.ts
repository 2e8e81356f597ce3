import { type PublishResult, publish } from '../../src/agent/publisher.ts';
import { BatchGap, WritePriority } from '../../src/agent/write-order.ts';
import type { Clock } from '../../src/async/clock.ts';
import type { MeshCertificateSpec } from '../../src/config/schema/mesh-certificate.ts';
import { type Decision, decide, type Publication } from '../../src/core/decide.ts';
import type { ProbeOutcome } from '../../src/core/hold.ts';
import { type PlanStep, plan, provesOrigin } from '../../src/core/plan.ts';
import { namedRoots } from '../../src/core/trust.ts';
import { publicationRefs, tryDesiredObjects } from '../../src/gateway/desired.ts';
import { gatewaysOf } from '../../src/gateway/gateway.ts';
import { ownerLabel, readPublication } from '../../src/gateway/publication.ts';
import { gateways } from '../../src/gateways.ts';
import type { Kube } from '../../src/kube/api.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { type KubeObject, keyOf, refOf } from '../../src/objects/objects.ts';

export const META = { name: 'istio', namespace: 'emissary', uid: '1' } as const;
export const OWNER = ownerLabel(META);

export interface ReplicaOptions {
  readonly name: string;
  readonly spec: MeshCertificateSpec;
  readonly id: string | undefined;
  readonly kube: Kube;
  readonly clock: Clock;
  readonly live: (ref: ReturnType<typeof refOf>) => KubeObject | undefined;
}

export interface Look {
  readonly decision: Decision;
  readonly steps: readonly PlanStep[];
  readonly outcome: PublishResult | undefined;
}

/** One agent process reduced to its decisions: what it received, what it saw last, and the real code between. */
export class Replica {
  readonly name: string;
  readonly clock: Clock;
  leads = false;
  candidate: Identity | undefined;
  readonly #options: ReplicaOptions;
  #seen = new Map<string, KubeObject>();
  #spacing: BatchGap;
  #probed: { readonly fingerprint: string; readonly outcome: ProbeOutcome } | undefined;
  #life = new AbortController();
  #read: { readonly objects: readonly KubeObject[]; readonly publication: Publication } | undefined;

  constructor(options: ReplicaOptions) {
    this.#options = options;
    this.name = options.name;
    this.clock = options.clock;
    this.#spacing = new BatchGap(options.clock, gateways);
  }

  /** What its watches currently show. */
  refresh(): void {
    this.#seen = new Map();
    for (const ref of this.#refs()) {
      const object = this.#options.live(ref);
      if (!object) continue;
      this.#seen.set(keyOf(ref), object);
      this.#spacing.saw(object);
    }
  }

  /** The process ends; its memory is lost. */
  crash(): void {
    this.#life.abort(new Error('killed'));
    this.#life = new AbortController();
    this.#spacing = new BatchGap(this.clock, gateways);
    this.#seen = new Map();
    this.candidate = undefined;
    this.leads = false;
  }

  /** Starts from the published state, as a reconciler does: without a request to the mesh. */
  lead(): void {
    this.leads = true;
    this.#probed = undefined;
    this.refresh();
    const situation = this.#situation();
    const current = decide({ ...situation, candidate: undefined }).identity;
    const { bundle, since } = situation.published;
    this.candidate = current && { ...current, roots: namedRoots(bundle, since) };
  }

  resign(): void {
    this.leads = false;
    this.candidate = undefined;
  }

  get held(): Identity | undefined {
    const { hold } = this.#decide();
    return hold?.hold ? this.candidate : undefined;
  }

  probed(identity: Identity, outcome: ProbeOutcome): void {
    this.#probed = { fingerprint: leafOf(identity).fingerprint, outcome };
  }

  probeOf(identity: Identity): ProbeOutcome {
    return this.#probed?.fingerprint === leafOf(identity).fingerprint ? this.#probed.outcome : 'unknown';
  }

  /** One reconcile: decide, plan, and write if it leads. */
  async look(): Promise<Look> {
    const decision = this.#decide();
    const steps = decision.desired ? plan(decision.desired, this.#seen, OWNER, this.clock.now()) : [];
    const due = steps.some(({ action }) => action !== 'none');
    if (!this.leads || !due) return { decision, steps, outcome: undefined };
    const { kube } = this.#options;
    const fence = {
      check: () => {
        if (!this.leads) throw Object.assign(new Error('the Lease is lost'), { code: 'ERR_LEASE_LOST' });
      },
    };
    const { signal } = this.#life;
    const view = { get: (ref: Parameters<typeof keyOf>[0]) => this.#seen.get(keyOf(ref)) };
    const writePriority = new WritePriority(this.clock);
    const { clock } = this;
    const wrote = (object: KubeObject) => {
      if (!signal.aborted) this.#seen.set(keyOf(refOf(object)), object);
    };
    const from = { kube, clock, fence, batchGap: this.#spacing, writePriority, gateways, view, wrote };
    // As for documents in a file, which have no status: each Secret proves its origin by itself.
    const options = { ...from, dryRun: false, isHeld: () => false, isProven: provesOrigin, recordsOrigin: false };
    const outcome = await publish(steps, options, signal).catch((error: unknown) => {
      if (signal.aborted) return undefined;
      throw error;
    });
    return { decision, steps, outcome };
  }

  #decide(): Decision {
    return decide(this.#situation());
  }

  #situation(): Parameters<typeof decide>[0] {
    const { spec, id } = this.#options;
    return {
      spec,
      expectation: { form: 'spiffe' as const, trustDomain: 'td', id },
      candidate: this.candidate,
      probe: this.candidate && this.candidate.chain.length > 0 ? this.probeOf(this.candidate) : 'unknown',
      preflight: () => ({ ok: true }),
      published: this.#publication(),
      desired: (pair) =>
        tryDesiredObjects({
          ...pair,
          meta: META,
          spec,
          tls: { alpnProtocols: 'istio' },
          uses: gatewaysOf(spec, gateways),
        }),
      now: this.clock.now(),
    };
  }

  /** Reading is most of the work; equal objects give equal results. */
  #publication(): Publication {
    const objects = [...this.#seen.values()];
    const read = this.#read;
    if (read?.objects.length === objects.length && objects.every((object, at) => object === read.objects[at])) {
      return read.publication;
    }
    const publication = readPublication(this.#options.spec, objects.filter(provesOrigin));
    this.#read = { objects, publication };
    return publication;
  }

  #refs() {
    return publicationRefs({ metadata: META, spec: this.#options.spec }, gatewaysOf(this.#options.spec, gateways));
  }
}
