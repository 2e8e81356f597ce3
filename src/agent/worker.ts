import type { MeshCertificate } from '../config/mesh-certificate.ts';
import { retryDelay } from '../core/backoff.ts';
import { AttemptBudget } from '../core/breaker.ts';
import { type KubeObject, keyOf, type ObjectRef, refOf } from '../core/object.ts';
import { plan, type Step } from '../core/plan.ts';
import { namedRoots } from '../core/trust.ts';
import { publicationRefs } from '../gateway/emissary.ts';
import { ownerLabel } from '../gateway/owner.ts';
import { readPublication } from '../gateway/publication.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { type Identity, leafOf, sameLeaf } from '../mesh/identity.ts';
import { asError } from '../mesh/renewing.ts';
import { isTargeting } from '../mesh/targeting.ts';
import { Trigger } from '../mesh/trigger.ts';
import { type Decision, decide, type Problem, refusal, type Situation } from './decide.ts';
import type { View } from './discovery.ts';
import type { Environment } from './environment.ts';
import { createHost } from './host.ts';
import { identities } from './identities.ts';
import { keepMappings, type MappingKeeping } from './mappings.ts';
import type { Interest } from './observer.ts';
import { renewalPolicy } from './policy.ts';
import { Prober } from './prober.ts';
import { type Outcome, publish } from './publisher.ts';
import { retireContexts } from './retire.ts';

/** What a worker tells after each pass; the reporter turns it into status, metrics, events and log lines. */
export interface Report {
  readonly certificate: MeshCertificate;
  readonly situation: Situation;
  readonly decision: Decision;
  readonly steps: readonly Step[];
  readonly outcome: Outcome | undefined;
  /** The newest failure of mesh, cluster or plan since things last went well. */
  readonly failure: Problem | undefined;
  /** Read back from the watch and verified: what stands is what should stand. */
  readonly inForce: boolean;
  readonly leading: boolean;
  /** What this pass put in force, and how long after the mesh handed it out. */
  readonly rotation: { readonly kind: 'leaf' | 'bundle'; readonly lagMs: number | undefined } | undefined;
  /** The writes of this pass undo what somebody else did. */
  readonly repair: boolean;
  readonly mappings: ReturnType<MappingKeeping['states']>;
  readonly breakerOpenMs: number;
  /** Nothing is stored. */
  readonly dryRun: boolean;
}

/** Keeps one MeshCertificate's publication: looks, decides, writes the difference, tells. Level-triggered. */
export class Worker {
  certificate: MeshCertificate;
  readonly #adapter: Adapter;
  readonly #env: Environment;
  readonly #dirty = new Trigger();
  readonly #renew = new Trigger();
  readonly #recheck = new Trigger();
  readonly #budget = new AttemptBudget();
  readonly #prober: Prober;
  #interest: Interest | undefined;
  #interestKey = '';
  #contexts: View | undefined;
  #mappings: MappingKeeping | undefined;
  #candidate: Identity | undefined;
  #breakerOpenMs = 0;
  #candidateAt: number | undefined;
  #force: InForce | undefined;
  #meshFailure: Problem | undefined;
  #writeFailure: Problem | undefined;
  #writeFailures = 0;
  #retryAt: number | undefined;

  constructor(certificate: MeshCertificate, adapter: Adapter, env: Environment) {
    this.certificate = certificate;
    this.#adapter = adapter;
    this.#env = env;
    this.#prober = new Prober(env, certificate.spec.probe, () => this.#dirty.fire());
  }

  /** The same wish under a new resourceVersion or generation. */
  update(certificate: MeshCertificate): void {
    this.certificate = certificate;
  }

  /** Asks for a new certificate now, past schedule and backoff. */
  renew(): void {
    this.#renew.fire();
  }

  /** Looks again although nothing was seen to change. */
  poke(): void {
    this.#recheck.fire();
    this.#dirty.fire();
  }

  async run(signal: AbortSignal): Promise<void> {
    const stop = new AbortController();
    const inner = AbortSignal.any([signal, stop.signal]);
    const { clock } = this.#env;
    const { namespace = '' } = this.certificate.metadata;
    const host = createHost({
      ...this.#env,
      namespace,
      report: (error) => this.#meshFailed(error),
    });
    const opened = this.#adapter.open(this.certificate.spec.mesh.config, host);
    this.#mappings = keepMappings({
      ...this.#env,
      meta: { name: this.certificate.metadata.name, namespace },
      spec: this.certificate.spec,
      targeting: isTargeting(opened) ? opened : undefined,
      spacing: this.#env.spacings.of(namespace),
      onChange: () => this.#dirty.fire(),
      onError: (error) => this.#env.reporter.trouble(this.certificate, error),
    });
    const parts: Promise<void>[] = [this.#mappings.run(inner)];
    this.#contexts = this.#env.discovery.view(RESOURCES.tlsContexts, namespace, {
      changed: () => {},
      failed: () => {},
    });
    try {
      this.#observe();
      let stream: Promise<void> | undefined;
      let leading = new AbortController();
      while (!inner.aborted) {
        const isLeader = this.#env.leadership.leads(keyOf(refOf(this.certificate)));
        if (isLeader && !stream && this.#interest?.synced && !this.certificate.spec.paused) {
          leading = new AbortController();
          stream = this.#follow(opened, host, AbortSignal.any([inner, leading.signal]));
        } else if (!isLeader && stream) {
          leading.abort(new Error('no longer the leader'));
          await stream;
          stream = undefined;
          this.#candidate = undefined;
        }
        const nextLook = await this.#pass(isLeader && this.#interest?.synced === true, inner);
        await this.#wait(nextLook === undefined ? undefined : Math.max(0, nextLook - clock.now()), inner);
      }
      await stream;
    } catch (error) {
      if (!inner.aborted) throw error;
    } finally {
      stop.abort(new Error('worker stopped'));
      this.#interest?.[Symbol.dispose]();
      this.#contexts[Symbol.dispose]();
      this.#prober.stop();
      await Promise.allSettled(parts);
      await opened[Symbol.asyncDispose]();
    }
  }

  async #follow(
    opened: ReturnType<Adapter['open']>,
    host: Parameters<typeof identities>[1],
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, random } = this.#env;
    const policy = renewalPolicy({
      spec: this.certificate.spec,
      clock,
      random,
      budget: this.#budget,
      admitted: (waitMs) => {
        this.#breakerOpenMs = waitMs;
        if (waitMs > 0) this.#dirty.fire();
      },
      refuse: (identity) => {
        const problem = refusal(this.#situation(), identity);
        return problem && Object.assign(new Error(problem.message), { code: problem.code });
      },
      current: () => this.#candidate && leafOf(this.#candidate),
    });
    const situation = this.#situation();
    const standing = decide(situation).identity;
    const named = namedRoots(situation.published.bundle, situation.published.since);
    for (let failures = 0; !signal.aborted; ) {
      const current = this.#candidate ?? (standing && { ...standing, roots: named });
      const options = { policy, renew: this.#renew, recheck: this.#recheck, current };
      try {
        for await (const identity of identities(opened, host, options, signal)) {
          if (!sameLeaf(identity, this.#candidate)) this.#candidateAt = clock.monotonic();
          this.#candidate = identity;
          this.#meshFailure = undefined;
          failures = 0;
          this.#dirty.fire();
        }
      } catch (error) {
        // Streams report what they know; this one is a bug in an adapter, which must not end the rotation.
        if (signal.aborted) return;
        failures += 1;
        this.#meshFailed(asError(error));
        await clock.sleep(retryDelay(failures, random), signal).catch(() => {});
      }
    }
  }

  #meshFailed(error: Error): void {
    const code = (error as { code?: unknown }).code;
    this.#meshFailure = { code: typeof code === 'string' ? code : 'ERR_MESH_BAD_RESPONSE', message: error.message };
    this.#env.reporter.trouble(this.certificate, error);
    this.#dirty.fire();
  }

  #observe(): void {
    const refs = publicationRefs(this.certificate, this.#mappings?.targets());
    const key = refs.map(keyOf).join(' ');
    if (key === this.#interestKey) return;
    const before = this.#interest;
    this.#interest = this.#env.observer.observe(refs, () => this.#dirty.fire());
    this.#interestKey = key;
    before?.[Symbol.dispose]();
  }

  #situation(): Situation {
    const { certificate } = this;
    const { name, namespace = '', uid } = certificate.metadata;
    const refs = publicationRefs(certificate, this.#mappings?.targets());
    const objects = refs.map((ref) => this.#interest?.get(ref)).filter((object) => object !== undefined);
    return {
      meta: { name, namespace, uid },
      spec: certificate.spec,
      tls: this.#adapter.tls,
      expectation: this.#adapter.expect(certificate.spec.mesh.config, { namespace }),
      candidate: this.#candidate,
      probe: this.#prober.outcome(this.#candidate),
      published: readPublication(certificate.spec, objects),
      targets: this.#mappings?.targets(),
      now: this.#env.clock.now(),
    };
  }

  async #pass(leading: boolean, signal: AbortSignal): Promise<number | undefined> {
    this.#observe();
    const { clock, kube, dryRun } = this.#env;
    const situation = this.#situation();
    const decision = decide(situation);
    const steps = decision.desired
      ? plan(decision.desired, this.#observed(decision), ownerLabel(this.certificate.metadata), situation.now)
      : [];
    const due = steps.some((step) => step.action !== 'none');
    const blocked = this.#retryAt !== undefined && clock.monotonic() < this.#retryAt;
    let outcome: Outcome | undefined;
    if (leading && !this.certificate.spec.paused && due && !blocked) {
      const spacing = this.#env.spacings.of(situation.meta.namespace);
      const fence = this.#env.leadership.fence(keyOf(refOf(this.certificate)));
      outcome = await publish(steps, { kube, fence, spacing, dryRun, observed: this.#get }, signal);
      for (const { object } of outcome.written) if (!dryRun) this.#interest?.wrote(object);
      this.#settle(outcome.problem, situation.now);
    }
    if (leading && !due) {
      this.#writeFailure = undefined;
      this.#writeFailures = 0;
      this.#retryAt = undefined;
      await this.#mappings?.sync(signal);
      await this.#retire(signal);
    }
    if (decision.hold?.hold) this.#prober.ask(situation.candidate, decision.trust.bundle, signal);
    const readBack = decision.desired?.every(({ object }) => this.#interest?.readBack(refOf(object)) === true);
    const inForce = decision.identity !== undefined && !due && readBack === true;
    const rotation = inForce ? this.#inForce(decision) : undefined;
    this.#env.reporter.report({
      certificate: this.certificate,
      situation,
      decision,
      steps,
      outcome,
      failure: this.#writeFailure ?? this.#watchFailure() ?? decision.problem ?? this.#meshFailure,
      inForce,
      rotation,
      repair: due && this.#force !== undefined && this.#force.wish === wishOf(decision),
      leading,
      mappings: this.#mappings?.states() ?? [],
      breakerOpenMs: this.#breakerOpenMs,
      dryRun,
    });
    const retry = this.#retryAt === undefined ? undefined : clock.now() + this.#retryAt - clock.monotonic();
    const times = [decision.nextLook, due ? retry : undefined].filter((time) => time !== undefined);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  #watchFailure(): Problem | undefined {
    const problem = this.#interest?.synced ? undefined : this.#interest?.problem;
    if (!problem) return undefined;
    const { code } = problem as { code?: unknown };
    return { code: typeof code === 'string' ? code : 'ERR_KUBE_SERVER', message: problem.message };
  }

  async #retire(signal: AbortSignal): Promise<void> {
    if (!this.#mappings?.complete || !this.#contexts?.synced) return;
    const targets = this.certificate.spec.tlsContext.enabled ? this.#mappings.targets() : [];
    await retireContexts(this.certificate, this.#contexts.items(), targets, this.#env, signal);
  }

  #inForce(decision: Decision): Report['rotation'] {
    const before = this.#force;
    const wish = wishOf(decision);
    const leaf = decision.identity && leafOf(decision.identity).fingerprint;
    this.#force = { wish, leaf };
    if (before === undefined || before.wish === wish) return undefined;
    if (before.leaf === leaf) return { kind: 'bundle', lagMs: undefined };
    const lagMs = this.#candidateAt === undefined ? undefined : this.#env.clock.monotonic() - this.#candidateAt;
    return { kind: 'leaf', lagMs };
  }

  #settle(problem: Outcome['problem'], now: number): void {
    if (!problem) {
      this.#writeFailures = 0;
      this.#retryAt = undefined;
      this.#writeFailure = undefined;
      return;
    }
    this.#writeFailures += 1;
    this.#writeFailure = { code: problem.code, message: problem.message };
    const leaf = this.#candidate && leafOf(this.#candidate);
    const remaining = leaf ? { remainingMs: Math.max(0, leaf.notAfter - now) } : {};
    const delay = retryDelay(this.#writeFailures, this.#env.random, remaining);
    this.#retryAt = this.#env.clock.monotonic() + delay;
    this.#env.reporter.trouble(this.certificate, Object.assign(new Error(problem.message), { code: problem.code }));
  }

  #observed(decision: Decision): ReadonlyMap<string, KubeObject> {
    const objects = new Map<string, KubeObject>();
    for (const { object } of decision.desired ?? []) {
      const ref = refOf(object);
      const found = this.#get(ref);
      if (found) objects.set(keyOf(ref), found);
    }
    return objects;
  }

  readonly #get = (ref: ObjectRef): KubeObject | undefined => this.#interest?.get(ref);

  async #wait(ms: number | undefined, signal: AbortSignal): Promise<void> {
    const woken = new AbortController();
    const either = AbortSignal.any([signal, woken.signal]);
    const waits = [this.#dirty.wait(either)];
    if (ms !== undefined) waits.push(this.#env.clock.sleep(ms, either));
    try {
      await Promise.race(waits);
    } finally {
      woken.abort(new Error('woken'));
      await Promise.allSettled(waits);
    }
  }
}

interface InForce {
  readonly wish: string;
  readonly leaf: string | undefined;
}

/** Two decisions with the same text want the same leaf and bundle to stand. */
function wishOf({ identity, trust }: Decision): string {
  const leaf = identity ? leafOf(identity).fingerprint : '';
  return [leaf, ...trust.bundle.map((root) => root.fingerprint)].join(' ');
}
