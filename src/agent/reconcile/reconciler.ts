import { Trigger } from '../../async/trigger.ts';
import { Wake } from '../../async/wake.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { type Decision, decide, type Situation } from '../../core/decision/decide.ts';
import { keyOf, RENEW_ANNOTATION, refOf } from '../../core/object.ts';
import { type PlanStep, plan } from '../../core/plan/plan.ts';
import { codedProblem, type Problem } from '../../core/problem.ts';
import { namedRoots } from '../../core/trust/trust.ts';
import { tryDesiredObjects } from '../../gateway/desired.ts';
import { gatewaysOf } from '../../gateway/gateway.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import { PublicationReader } from '../../gateway/publication-reader.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { type Identity, leafOf } from '../../mesh/identity.ts';
import { asError } from '../../mesh/renewing.ts';
import { isTargeting, type Targeting } from '../../mesh/targeting.ts';
import { createHost } from '../issuance/host.ts';
import { IdentityStream, opening } from '../issuance/identity-stream.ts';
import { Prober } from '../issuance/prober.ts';
import { type PublishResult, publish } from '../publish/publisher.ts';
import { RotationTracker } from '../report/rotation-tracker.ts';
import {
  deletionWaits,
  isDeleting,
  isDeletionJudged,
  isRetired,
  retireAll,
  settleFinalizer,
} from '../retire/finalizer.ts';
import { Retiring } from '../retire/orphans.ts';
import { reportOf, type UsedGateway, usesOf } from '../retire/used-gateway.ts';
import { keepRoutes } from '../routes/mappings.ts';
import type { Environment } from './environment.ts';
import { Preflights } from './preflights.ts';
import { PublicationView } from './publication-view.ts';
import { failureOf, renewRequestOf, rotatedAt } from './remembered.ts';
import { WriteAttempts } from './write-attempts.ts';

/** Keeps one MeshCertificate's publication: looks, decides, writes the difference, tells. Level-triggered. */
export class Reconciler {
  certificate: MeshCertificate;
  readonly #adapter: Adapter;
  readonly #env: Environment;
  readonly #dirty = new Trigger();
  readonly #wake = new Wake();
  readonly #prober: Prober;
  readonly #preflights: Preflights;
  readonly #attempts: WriteAttempts;
  readonly #rotations = new RotationTracker();
  readonly #view: PublicationView;
  readonly #reader: PublicationReader;
  #used: readonly UsedGateway[] | undefined;
  #stream: IdentityStream | undefined;
  #meshFailure: Problem | undefined;
  /** All was taken away: only the watch does not show yet that the MeshCertificate is gone. */
  #retired = false;
  /** The renewal that was asked for last, and the last that has led to another leaf. */
  #renewAsked: string | undefined;
  #renewDone: string | undefined;
  /** Somebody asked for another leaf since the last one was put in force. */
  #renewalAsked = false;

  constructor(certificate: MeshCertificate, adapter: Adapter, env: Environment) {
    this.certificate = certificate;
    this.#adapter = adapter;
    this.#env = env;
    this.#renewDone = renewRequestOf(certificate);
    this.#renewAsked = this.#renewDone;
    this.#prober = new Prober(env, certificate.spec.probe, this.#changed);
    this.#preflights = new Preflights(env.preflight, env.clock);
    this.#attempts = new WriteAttempts(env);
    this.#view = new PublicationView(env.objectInformers, this.#changed);
    this.#reader = new PublicationReader(env.bundles);
  }

  /** The same wish under a new version or generation. */
  update(certificate: MeshCertificate): void {
    const before = this.certificate.metadata;
    this.certificate = certificate;
    const { annotations, deletionTimestamp, finalizers } = certificate.metadata;
    const asked = annotations?.[RENEW_ANNOTATION] !== before.annotations?.[RENEW_ANNOTATION];
    const fate = deletionTimestamp !== before.deletionTimestamp || finalizers?.length !== before.finalizers?.length;
    if (asked || fate || !this.#env.reporter.agrees(certificate)) this.#dirty.fire();
  }

  /** Asks for a certificate now, past schedule and backoff. */
  renew(): void {
    this.#renewalAsked = true;
    this.#wake.renew();
  }

  /** Looks again, though nothing seems changed. */
  poke(): void {
    this.#wake.fire();
    this.#dirty.fire();
  }

  /** Ends when `stop` is aborted; aborts it, so that all that was started ends too, when it fails. */
  async run(stop: AbortController): Promise<void> {
    const { signal } = stop;
    const { clock, leadership } = this.#env;
    const { opened, used, stream } = this.#open();
    const following = used.map(({ routes }) => routes.run(signal));
    try {
      while (!signal.aborted) {
        this.#view.follow(this.certificate, usesOf(used));
        const { synced } = this.#view;
        const leads = leadership.leads(keyOf(refOf(this.certificate)));
        if (leads && synced && !this.certificate.spec.paused) {
          stream.start();
          this.#noticeRenewRequest();
        }
        if (!leads && stream.running) {
          await stream.stop();
          this.#meshFailure = undefined;
        }
        const nextLook = this.#view.unknown ? undefined : await this.#reconcile(leads, synced, signal);
        if (nextLook === undefined) await this.#dirty.wait(signal);
        else await this.#dirty.waitFor(nextLook - clock.now(), clock, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      stop.abort(new Error('worker stopped'));
      this.#prober.stop();
      await Promise.allSettled([stream.stop(), ...following]);
      this.#view[Symbol.dispose]();
      for (const { retiring } of used) retiring[Symbol.dispose]();
      await opened[Symbol.asyncDispose]();
    }
  }

  #open() {
    const { certificate } = this;
    const { namespace = '' } = certificate.metadata;
    const { spec } = certificate;
    const host = createHost({ ...this.#env, namespace, report: this.#meshFailed });
    const opened = opening(this.#adapter, spec.mesh, host);
    const used = this.#use(isTargeting(opened) ? opened : undefined);
    const stream = new IdentityStream({
      env: this.#env,
      spec,
      opened,
      host,
      wake: this.#wake,
      published: () => this.#publishedIdentity(),
      publishedSince: () => rotatedAt(this.certificate),
      offered: this.#changed,
      changed: this.#meshRecovered,
      recovered: this.#meshRecovered,
      failed: this.#meshFailed,
    });
    this.#used = used;
    this.#stream = stream;
    return { opened, used, stream };
  }

  #use(targeting: Targeting | undefined): readonly UsedGateway[] {
    const { certificate } = this;
    const { kube, clock, random, log, sharedInformers: discovery, dryRun, batchGaps: spacings, gateways } = this.#env;
    const spacing = spacings.of(certificate.metadata.namespace ?? '');
    return gatewaysOf(certificate.spec, gateways).map(({ gateway, config }) => ({
      gateway,
      config,
      routes: keepRoutes({
        ...{ kube, discovery, clock, random, log, dryRun, certificate, gateway, targeting, spacing },
        onChange: this.#changed,
        onError: this.#trouble,
      }),
      retiring: new Retiring(discovery, gateway, certificate, () => {
        if (isDeleting(this.certificate)) this.#dirty.fire();
      }),
    }));
  }

  #noticeRenewRequest(): void {
    const asked = this.certificate.metadata.annotations?.[RENEW_ANNOTATION];
    if (asked === undefined || asked === this.#renewAsked) return;
    this.#renewAsked = asked;
    this.renew();
  }

  async #reconcile(leading: boolean, seen: boolean, signal: AbortSignal): Promise<number | undefined> {
    const { situation, decision } = await this.#decide();
    const owner = ownerLabel(this.certificate.metadata);
    const standing = this.#view.observed(decision.desired);
    const steps = decision.desired ? plan(decision.desired, standing, owner, situation.now) : [];
    const due = steps.some((step) => step.action !== 'none');
    const outcome = leading && seen ? await this.#act(steps, due, decision, signal) : undefined;
    if (decision.hold?.hold) this.#prober.ask(situation.candidate, decision.trust.bundle, signal);
    const inForce = decision.identity !== undefined && !due && this.#view.readBack(decision.desired);
    const repair = due && this.#rotations.wasReached(decision);
    const came = this.#stream?.candidateAt;
    const lagMs = came === undefined ? undefined : this.#env.clock.monotonic() - came;
    const rotation = inForce ? this.#rotations.reached(decision, lagMs) : undefined;
    if (rotation?.kind === 'leaf') {
      this.#renewDone = this.#renewAsked;
      this.#renewalAsked = false;
    }
    this.#env.reporter.report({
      certificate: this.certificate,
      situation,
      decision,
      steps,
      outcome,
      failure: this.#attempts.failure ?? this.#view.problem ?? this.#waits ?? this.#issueProblem(decision, leading),
      nextAttemptAt: this.#meshFailure && this.#stream?.retryAt,
      inForce,
      probeProblem: this.#prober.problem(situation.candidate),
      planned: this.#stream?.planned,
      renewRequest: this.#renewDone,
      rotation,
      repair,
      leading,
      seen,
      ...reportOf(this.#used ?? []),
      breakerOpenMs: this.#stream?.breakerOpenMs ?? 0,
      dryRun: this.#env.dryRun,
    });
    const { now } = situation;
    // What was due when this pass began has been done, or does not matter: waiting for it would not be a pause.
    const times = [decision.nextLook, this.#attempts.retryAt, this.#preflights.retryAfter(now)].filter(
      (time): time is number => time !== undefined && time > now,
    );
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Once every handshake has been made that the decision depends on. */
  async #decide(): Promise<{ readonly situation: Situation; readonly decision: Decision }> {
    for (;;) {
      const situation = this.#observe();
      const decision = decide(situation);
      if (!decision.unproven) {
        this.#stream?.judged(situation.candidate, decision.refused);
        return { situation, decision };
      }
      await this.#preflights.prove(decision.unproven);
    }
  }

  /** All that one pass does to the cluster. */
  async #act(
    steps: readonly PlanStep[],
    due: boolean,
    decision: Decision,
    signal: AbortSignal,
  ): Promise<PublishResult | undefined> {
    const { kube, dryRun, leadership, batchGaps: spacings } = this.#env;
    const { certificate } = this;
    if (certificate.spec.paused || this.#attempts.blocked) return undefined;
    const fence = leadership.fence(keyOf(refOf(certificate)));
    let outcome: PublishResult | undefined;
    try {
      if (this.#retired || (isRetired(certificate) && this.#view.objects().length === 0)) return undefined;
      if (isDeleting(certificate) && !dryRun && this.#isFree()) {
        this.#retired = await retireAll(certificate, this.#used ?? [], this.#isFree, this.#env, fence, signal);
        return undefined;
      }
      if (due) {
        const spacing = spacings.of(certificate.metadata.namespace ?? '');
        outcome = await publish(steps, { ...this.#env, fence, batchGap: spacing, view: this.#view }, signal);
        if (!dryRun) for (const { object } of outcome.written) this.#view.wrote(object);
        if (outcome.problem?.refused) this.#writeRefused(outcome.problem);
        else if (outcome.problem) this.#writeFailed(outcome.problem, decision);
        else this.#attempts.succeeded();
        // The watch asks for the next look when it shows our writes, unless it has done so already.
        if (outcome.written.length > 0 && this.#view.readBack(decision.desired)) this.#dirty.fire();
        return outcome;
      }
      for (const { routes, retiring } of this.#used ?? []) {
        // Who is being deleted wins no more routes.
        if (certificate.metadata.deletionTimestamp === undefined) await routes.sync(signal, fence);
        await retiring.look(routes, this.#env, fence, signal);
      }
      if (certificate.metadata.uid !== undefined && !dryRun) await settleFinalizer(certificate, kube, signal);
      this.#attempts.succeeded();
    } catch (error) {
      if (signal.aborted) throw error;
      this.#writeFailed(codedProblem(asError(error)), decision);
    }
    return outcome;
  }

  #writeRefused(problem: Problem): void {
    this.#attempts.refused(problem);
    this.#trouble(Object.assign(new Error(problem.message), { code: problem.code }));
  }

  #writeFailed(problem: Problem, { identity }: Decision): void {
    const leaf = identity && leafOf(identity);
    this.#attempts.failed(problem, leaf && Math.max(0, leaf.notAfter - this.#env.clock.now()));
    this.#trouble(Object.assign(new Error(problem.message), { code: problem.code }));
  }

  get #waits(): Problem | undefined {
    return deletionWaits(this.certificate, this.#used);
  }

  readonly #isFree = (): boolean => isDeletionJudged(this.#used) && this.#waits === undefined;

  /** Why no newer certificate is published. That the last one has expired is no reason: why none came after it is. */
  #issueProblem({ problem }: Decision, leading: boolean): Problem | undefined {
    const failure = this.#meshFailure ?? this.#remembered(leading);
    return problem?.code === 'ERR_VERIFY_EXPIRED' ? (failure ?? problem) : (problem ?? failure);
  }

  /** What the status says of the mesh, until this process has asked the mesh itself; who follows never asks. */
  #remembered(leading: boolean): Problem | undefined {
    const stream = this.#stream;
    const isDue = !stream?.planned || stream.planned.due <= this.#env.clock.now();
    if (leading && (stream?.hasTried || !isDue)) return undefined;
    const failure = failureOf(this.certificate);
    return leading && !/^ERR_(MESH|VERIFY)_/.test(failure?.code ?? '') ? undefined : failure;
  }

  /** Unless an attempt is waiting: then something else came than a new certificate. */
  readonly #meshRecovered = (): void => {
    if (this.#stream?.retryAt === undefined) this.#meshFailure = undefined;
    this.#dirty.fire();
  };

  readonly #changed = (): void => this.#dirty.fire();

  readonly #trouble = (error: Error): void => this.#env.reporter.trouble(this.certificate, error);

  readonly #meshFailed = (error: Error): void => {
    this.#meshFailure = { ...codedProblem(error), at: this.#env.clock.now() };
    this.#trouble(error);
    this.#dirty.fire();
  };

  #observe(): Situation {
    const { certificate } = this;
    const { namespace = '' } = certificate.metadata;
    return {
      spec: certificate.spec,
      expectation: this.#adapter.expect(certificate.spec.mesh.config, { namespace }),
      candidate: this.#stream?.candidate,
      probe: this.#prober.outcome(this.#stream?.candidate),
      preflight: this.#preflights.verdict,
      published: this.#reader.read(certificate.spec, this.#view.objects(), this.#stream?.candidate),
      desired: this.#desired,
      renewalAsked: this.#renewalAsked,
      now: this.#env.clock.now(),
    };
  }

  readonly #desired: Situation['desired'] = (pair) => {
    const { certificate } = this;
    const { name, namespace = '', uid } = certificate.metadata;
    const uses = usesOf(this.#used ?? []);
    return tryDesiredObjects({
      ...pair,
      meta: { name, namespace, uid },
      spec: certificate.spec,
      tls: this.#adapter.tls,
      uses,
    });
  };

  /** What stands, with the roots that the mesh named when it was written: a restart goes on from there. */
  #publishedIdentity(): Identity | undefined {
    const situation = this.#observe();
    const { bundle, since } = situation.published;
    const { publishedIdentity: standing } = decide({ ...situation, candidate: undefined });
    return standing && { ...standing, roots: namedRoots(bundle, since) };
  }
}
