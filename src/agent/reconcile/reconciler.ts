import { asError } from '../../async/retrying.ts';
import { Trigger } from '../../async/trigger.ts';
import { Wake } from '../../async/wake.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { type Decision, decide, identityToContinue, type Situation } from '../../core/decision/decide.ts';
import { type KubeObject, keyOf, RENEW_ANNOTATION, refOf } from '../../core/object.ts';
import { type OriginProof, provenBy } from '../../core/plan/origin.ts';
import { type PlanStep, plan } from '../../core/plan/plan.ts';
import { codedProblem, type Problem } from '../../core/problem.ts';
import { type PublicationStatus, rotatedAt } from '../../core/status.ts';
import { tryDesiredObjects } from '../../gateway/desired.ts';
import { gatewaysOf } from '../../gateway/gateway.ts';
import { ownerLabel } from '../../gateway/owner.ts';
import { PublicationReader } from '../../gateway/publication-reader.ts';
import { type Adapter, type Issuer, isRevoking, type Source, tlsDefaults } from '../../mesh/adapter.ts';
import { type Identity, leafOf } from '../../mesh/identity.ts';
import { isTargeting, type Targeting } from '../../mesh/targeting.ts';
import { CrlStream } from '../issuance/crl-stream.ts';
import { createHost } from '../issuance/host.ts';
import { IdentityStream, opening } from '../issuance/identity-stream.ts';
import { Prober } from '../issuance/prober.ts';
import { type Fence, type PublishResult, publish } from '../publish/publisher.ts';
import type { Report } from '../report/report.ts';
import { RotationTracker } from '../report/rotation-tracker.ts';
import {
  deletionWaits,
  isDeleting,
  isDeletionJudged,
  isRetired,
  retireAll,
  settleFinalizer,
} from '../retire/finalizer.ts';
import { type Recorded, recordOf, withLeft } from '../retire/left.ts';
import { Retiring } from '../retire/orphans.ts';
import { reportOf } from '../retire/routes-report.ts';
import { type UsedGateway, usesOf } from '../retire/used-gateway.ts';
import { RouteKeeper } from '../routes/keeper.ts';
import { UpstreamWatch } from '../upstreams/upstream-watch.ts';
import type { Environment } from './environment.ts';
import { MeshFailures } from './mesh-failures.ts';
import { Preflights } from './preflights.ts';
import { PublicationView } from './publication-view.ts';
import { RenewRequests } from './renew-requests.ts';
import { WriteAttempts } from './write-attempts.ts';

/** The control loop of one MeshCertificate. Level-triggered: each reconcile observes, decides, acts and reports. */
export class Reconciler {
  /** With the gateways of which an earlier spec left something. */
  certificate: MeshCertificate;
  readonly #adapter: Adapter;
  readonly #env: Environment;
  readonly #changes = new Trigger();
  readonly #wake = new Wake();
  readonly #opened: Source | Issuer;
  readonly #stream: IdentityStream;
  readonly #gateways: readonly UsedGateway[];
  readonly #crls: CrlStream | undefined;
  readonly #prober: Prober;
  readonly #upstreams: UpstreamWatch | undefined;
  readonly #preflights: Preflights;
  readonly #writes: WriteAttempts;
  readonly #rotations = new RotationTracker();
  readonly #renewRequests: RenewRequests;
  readonly #meshFailures: MeshFailures;
  readonly #view: PublicationView;
  readonly #reader: PublicationReader;
  /** The candidate of the decision that is made and not reported yet. */
  #decidedFor: { readonly candidate: Identity | undefined } | undefined;
  /** Everything was deleted; the watch has not shown yet that the MeshCertificate is gone. */
  #isRetired = false;

  /** `before`: the gateways of the previous spec, if this agent knows it. */
  constructor(given: MeshCertificate, adapter: Adapter, env: Environment, before?: Recorded) {
    const certificate = withLeft(given, env.gateways, before);
    this.certificate = certificate;
    this.#adapter = adapter;
    this.#env = env;
    const { spec, metadata } = certificate;
    const host = createHost({
      kube: env.kube,
      clock: env.clock,
      random: env.random,
      log: env.log,
      namespace: metadata.namespace ?? '',
      share: env.share,
      sharedInformers: env.sharedInformers,
      report: this.#meshFailed,
      reportStale: this.#reportStale,
      filesBelow: env.filesBelow,
      allow: env.allow,
    });
    this.#opened = opening(adapter, spec.mesh, host);
    this.#gateways = this.#useGateways(given.spec, isTargeting(this.#opened) ? this.#opened : undefined);
    this.#stream = new IdentityStream({
      env,
      spec,
      host,
      wake: this.#wake,
      opened: this.#opened,
      published: () => identityToContinue(this.#observe()),
      publishedSince: () => rotatedAt(this.certificate.status),
      offered: this.#changed,
      changed: this.#meshRecovered,
      recovered: this.#meshRecovered,
      failed: this.#meshFailed,
    });
    const opened = this.#opened;
    if (spec.crlSecretName !== undefined && isRevoking(opened)) {
      this.#crls = new CrlStream({ env, opened, changed: this.#changed, failed: this.#trouble });
    }
    this.#prober = new Prober(env, spec.probe, this.#changed);
    if (spec.upstreams) {
      const tls = tlsDefaults(adapter, spec.mesh.config);
      this.#upstreams = new UpstreamWatch({ env, adapter, tls, spec: spec.upstreams, changed: this.#changed });
    }
    this.#preflights = new Preflights(env.preflight, env.clock);
    this.#writes = new WriteAttempts(env);
    this.#renewRequests = new RenewRequests(certificate);
    this.#meshFailures = new MeshFailures(env.clock, this.#stream);
    this.#view = new PublicationView(env.objectInformers, { changed: this.#changed, recovered: this.#reachable });
    this.#reader = new PublicationReader(env.bundles);
  }

  /** Takes a new version of the resource whose spec is the same. */
  update(certificate: MeshCertificate): void {
    const { metadata: before, refused, spec } = this.certificate;
    this.certificate = { ...certificate, spec };
    const { annotations, deletionTimestamp, finalizers, generation } = certificate.metadata;
    const asked = annotations?.[RENEW_ANNOTATION] !== before.annotations?.[RENEW_ANNOTATION];
    const fate = deletionTimestamp !== before.deletionTimestamp || finalizers?.length !== before.finalizers?.length;
    const judged = generation !== before.generation || certificate.refused !== refused;
    if (asked || fate || judged || !this.#env.reporter.agrees(certificate)) this.#changes.fire();
  }

  /** Requests a certificate now, whatever the schedule and backoff say. */
  renew(): void {
    this.#renewRequests.pending = true;
    this.#wake.renew();
  }

  /** Reconciles although nothing seems to have changed. */
  poke(): void {
    this.#wake.fire();
    this.#changes.fire();
  }

  /** Runs until `stop` is aborted, once. Aborts `stop` when it fails, so that everything it started ends too. */
  async run(stop: AbortController): Promise<void> {
    const { signal } = stop;
    const { clock } = this.#env;
    const following = [...this.#gateways.map(({ routes }) => routes.run(signal)), this.#crls?.run(signal)];
    try {
      while (!signal.aborted) {
        this.#changes.reset();
        this.#view.follow(this.certificate, usesOf(this.#gateways));
        const leads = this.#env.leadership.leads(keyOf(refOf(this.certificate)));
        await this.#followMesh(leads);
        const next = this.#view.unknown ? undefined : await this.#reconcile(leads, signal);
        if (next === undefined) await this.#changes.wait(signal);
        else await this.#changes.waitFor(next - clock.now(), clock, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      stop.abort(new Error('the reconciler stopped'));
      this.#prober.stop();
      this.#upstreams?.stop();
      await Promise.allSettled([this.#stream.stop(), ...following]);
      this.#view[Symbol.dispose]();
      for (const { retiring } of this.#gateways) retiring[Symbol.dispose]();
      await this.#opened[Symbol.asyncDispose]();
    }
  }

  /** Only the leader asks the mesh, and only after it knows what is published. */
  async #followMesh(leads: boolean): Promise<void> {
    if (leads && this.#view.synced && !this.certificate.spec.paused) {
      this.#stream.start();
      if (this.#renewRequests.notice(this.certificate)) this.#wake.renew();
    }
    if (!leads && this.#stream.running) {
      await this.#stream.stop();
      this.#meshFailures.clear();
    }
  }

  /** One reconcile. Returns when the next one is due without a change, epoch ms. */
  async #reconcile(leading: boolean, signal: AbortSignal): Promise<number | undefined> {
    const { situation, decision } = await this.#decide();
    const steps = this.#plan(decision, situation.now);
    const due = steps.some((step) => step.action !== 'none');
    const outcome = leading && this.#view.synced ? await this.#act(steps, due, decision, signal) : undefined;
    if (decision.hold?.hold) this.#prober.ask(situation.candidate, decision.upstreamTrust.bundle, signal);
    this.#report({ situation, decision, steps, due, outcome, leading }, signal);
    const { now } = situation;
    // What was due when this reconcile began is done or no longer matters: waiting for it would not be a pause.
    const times = [decision.nextLook, this.#writes.retryAt, this.#preflights.retryAfter(now)].filter(
      (time): time is number => time !== undefined && time > now,
    );
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Observes and decides, again after each handshake that the decision depends on. */
  async #decide(): Promise<{ readonly situation: Situation; readonly decision: Decision }> {
    for (;;) {
      const situation = this.#observe();
      const decision = decide(situation);
      if (!decision.unproven) {
        this.#decidedFor = { candidate: situation.candidate };
        this.#stream.judged(situation.candidate, decision.refused);
        return { situation, decision };
      }
      await this.#preflights.prove(decision.unproven);
    }
  }

  #observe(): Situation {
    const { metadata, spec } = this.certificate;
    const { candidate } = this.#stream;
    const published = this.#reader.read(spec, this.#view.objects(), this.#isProven, candidate);
    return {
      spec,
      expectation: this.#adapter.expect(spec.mesh.config, { namespace: metadata.namespace ?? '' }),
      candidate,
      probe: this.#prober.outcome(candidate),
      crls: this.#crls && (this.#crls.latest ?? published.crls ?? []),
      preflight: this.#preflights.verdict,
      published,
      desired: this.#desired,
      renewalAsked: this.#renewRequests.pending,
      now: this.#env.clock.now(),
    };
  }

  readonly #desired: Situation['desired'] = (pair) => {
    const { metadata, spec } = this.certificate;
    const { name, namespace = '', uid } = metadata;
    const uses = usesOf(this.#gateways);
    const tls = tlsDefaults(this.#adapter, spec.mesh.config);
    return tryDesiredObjects({ ...pair, meta: { name, namespace, uid }, spec, tls, uses });
  };

  get #isProven(): OriginProof {
    const { createdSecrets } = this.#env;
    const { secrets = [] } = (this.certificate.status ?? {}) as Partial<PublicationStatus>;
    for (const { uid } of secrets) createdSecrets.add(uid);
    return provenBy(createdSecrets);
  }

  #plan({ desired }: Decision, now: number): readonly PlanStep[] {
    return desired
      ? plan(desired, this.#view.observed(desired), ownerLabel(this.certificate.metadata), now, this.#isProven)
      : [];
  }

  /** Changes the cluster: deletes what is retired, or publishes, or settles routes, orphans and the finalizer. */
  async #act(
    steps: readonly PlanStep[],
    due: boolean,
    decision: Decision,
    signal: AbortSignal,
  ): Promise<PublishResult | undefined> {
    const { kube, dryRun, leadership } = this.#env;
    const { certificate } = this;
    if (certificate.spec.paused || this.#writes.blocked) return undefined;
    if (this.#isRetired || (isRetired(certificate) && this.#view.objects().length === 0)) return undefined;
    const fence = leadership.fence(keyOf(refOf(certificate)));
    try {
      if (isDeleting(certificate) && !dryRun && this.#isFree()) {
        this.#isRetired = await retireAll(certificate, this.#gateways, this.#isFree, this.#env, fence, signal);
        return undefined;
      }
      const result = due ? await this.#publish(steps, decision, fence, signal) : undefined;
      if (result?.stopped || result?.written.length) return result;
      // What is still due was refused, or is not tried yet; that concerns neither routes nor other objects.
      const open = steps.flatMap((step) =>
        step.action === 'none' ? [] : [step.action === 'refuse' ? step.ref : refOf(step.object)],
      );
      for (const { routes, retiring } of this.#gateways) {
        // A MeshCertificate that is being deleted takes no further routes.
        if (certificate.metadata.deletionTimestamp === undefined) await routes.sync(signal, fence);
        await retiring.look(routes, open, this.#env, fence, signal);
      }
      if (certificate.metadata.uid !== undefined && !dryRun) await settleFinalizer(certificate, kube, signal);
      if (!due) this.#writes.succeeded();
      return result;
    } catch (error) {
      if (signal.aborted) throw error;
      this.#writeFailed(codedProblem(asError(error)), decision);
    }
    return undefined;
  }

  async #publish(
    steps: readonly PlanStep[],
    decision: Decision,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<PublishResult> {
    const { kube, clock, batchGaps, writePriority, gateways, dryRun } = this.#env;
    const { namespace = '', uid } = this.certificate.metadata;
    const wrote = (object: KubeObject, action: 'create' | 'apply') => {
      this.#view.wrote(object);
      const created = object.metadata.uid;
      if (action === 'create' && object.kind === 'Secret' && created !== undefined) {
        this.#env.createdSecrets.add(created);
      }
    };
    using _writing = this.#view.writing();
    const result = await publish(
      steps,
      {
        kube,
        clock,
        fence,
        batchGap: batchGaps.of(namespace),
        writePriority,
        gateways,
        dryRun,
        isProven: this.#isProven,
        recordsOrigin: uid !== undefined,
        isHeld: this.#writes.isHeld,
        view: this.#view,
        wrote,
      },
      signal,
    );
    this.#tried(result, decision);
    // The watch triggers the next reconcile when it shows our writes, unless it has shown them already.
    const isWritten = result.written.length > 0 && !dryRun;
    if (isWritten && this.#view.readBack(decision.desired)) this.#changes.fire();
    return result;
  }

  #report(
    done: Pick<Report, 'situation' | 'decision' | 'steps' | 'outcome' | 'leading'> & { due: boolean },
    signal: AbortSignal,
  ): void {
    const { situation, decision, due, leading } = done;
    const { certificate } = this;
    this.#decidedFor = undefined;
    const inForce = decision.identity !== undefined && !due && this.#view.readBack(decision.desired);
    const repair = due && this.#rotations.wasReached(decision);
    const { candidateAt, planned, retryAt, breakerOpenMs } = this.#stream;
    const lagMs = candidateAt === undefined ? undefined : this.#env.clock.monotonic() - candidateAt;
    const rotation = inForce ? this.#rotations.reached(decision, lagMs) : undefined;
    if (rotation?.kind === 'leaf') this.#renewRequests.fulfilled();
    const routes = this.#gateways.flatMap((one) => one.routes.states());
    this.#upstreams?.observe({ leading, decision: inForce ? decision : undefined, routes }, signal);
    const cause = this.#meshFailures.cause(decision.problem, certificate, leading);
    this.#env.reporter.report({
      ...done,
      certificate,
      inForce,
      repair,
      rotation,
      planned,
      breakerOpenMs,
      ...reportOf(this.#gateways),
      gateways: this.inUse,
      upstreams: this.#upstreams?.state,
      failure: this.#writes.failure ?? this.#view.problem ?? this.#deletionWaits ?? cause ?? decision.crlProblem,
      nextAttemptAt: this.#meshFailures.current && retryAt,
      probeProblem: this.#prober.problem(situation.candidate),
      renewRequest: this.#renewRequests.done,
      seen: this.#view.synced,
      dryRun: this.#env.dryRun,
    });
  }

  #useGateways({ gateways: given }: MeshCertificate['spec'], targeting: Targeting | undefined): readonly UsedGateway[] {
    const { certificate } = this;
    const { kube, clock, random, log, sharedInformers, dryRun, batchGaps, gateways } = this.#env;
    const batchGap = batchGaps.of(certificate.metadata.namespace ?? '');
    const mesh = { ...this.#adapter, tls: tlsDefaults(this.#adapter, certificate.spec.mesh.config) };
    return gatewaysOf(certificate.spec, gateways).map(({ gateway, config }) => ({
      gateway,
      config,
      isLeft: given[gateway.kind] === undefined,
      routes: new RouteKeeper({
        kube,
        sharedInformers,
        clock,
        random,
        log,
        dryRun,
        certificate,
        gateway,
        targeting,
        batchGap,
        mesh,
        isPublished: (ref) => this.#view.get(ref) !== undefined,
        onChange: this.#changed,
        onError: this.#trouble,
      }),
      retiring: new Retiring(sharedInformers, gateway, certificate, () => {
        if (isDeleting(this.certificate)) this.#changes.fire();
      }),
    }));
  }

  #tried({ problems, stopped }: PublishResult, decision: Decision): void {
    const [first] = problems;
    const failed = problems.filter(({ refused }) => !refused);
    const [worst] = failed;
    if (worst) {
      this.#writes.failed(worst, this.#remainingMs(decision), stopped ? undefined : failed.map(({ ref }) => ref));
    } else if (first) this.#writes.refused(first);
    else this.#writes.succeeded();
    for (const problem of problems) this.#complain(problem);
  }

  #writeFailed(problem: Problem, decision: Decision): void {
    this.#writes.failed(problem, this.#remainingMs(decision));
    this.#complain(problem);
  }

  #complain({ code, message }: Problem): void {
    this.#trouble(Object.assign(new Error(message), { code }));
  }

  #remainingMs({ identity }: Decision): number | undefined {
    const leaf = identity && leafOf(identity);
    return leaf && Math.max(0, leaf.notAfter - this.#env.clock.now());
  }

  /** The gateways that have objects, for the status and for the reconciler of the next spec. */
  get inUse(): Recorded {
    return recordOf(this.#gateways, this.certificate.metadata.namespace ?? '');
  }

  get #deletionWaits(): Problem | undefined {
    return deletionWaits(this.certificate, this.#gateways);
  }

  readonly #isFree = (): boolean => isDeletionJudged(this.#gateways) && this.#deletionWaits === undefined;

  readonly #changed = (): void => this.#changes.fire();

  /** A fleet that could not write for an hour does not wait for the end of each backoff. */
  readonly #reachable = (): void => {
    if (this.#writes.reachable()) this.#changes.fire();
  };

  readonly #trouble = (error: Error): void => this.#env.reporter.trouble(this.certificate, error);

  readonly #meshFailed = (error: Error): void => {
    this.#meshFailures.failed(error);
    this.#trouble(error);
    this.#changes.fire();
  };

  readonly #reportStale = (source: string, error: Error | undefined): void => {
    if (!this.#meshFailures.stale(source, error)) return;
    if (error) this.#trouble(error);
    this.#changes.fire();
  };

  /** The failure remains while a retry is scheduled: then the change was something other than a new certificate. */
  readonly #meshRecovered = (): void => {
    if (this.#stream.retryAt === undefined) this.#meshFailures.clear();
    // The report that follows includes the recovery; only another identity needs another decision.
    if (!this.#decidedFor || this.#decidedFor.candidate !== this.#stream.candidate) this.#changes.fire();
  };
}
