import type { Semaphore } from '../async/limits.ts';
import { asError, followed } from '../async/retrying.ts';
import type { Share } from '../async/sharing.ts';
import { Trigger, Wake } from '../async/trigger.ts';
import type { Allowed, AllowList } from '../config/allow.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { type Decision, decide, identityToContinue, type Situation } from '../core/decide.ts';
import { type OriginProof, type PlanStep, plan, provenBy } from '../core/plan.ts';
import { type Preflight, type PreflightVerdict, type Proof, preflightKey } from '../core/preflight.ts';
import { codedProblem, type Problem } from '../core/problem.ts';
import { retryDelay } from '../core/retry.ts';
import { type PublicationStatus, rotatedAt } from '../core/status.ts';
import { publicationRefs, tryDesiredObjects } from '../gateway/desired.ts';
import { type Gateway, gatewaysOf } from '../gateway/gateway.ts';
import { type Bundles, ownerLabel, PublicationReader } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import {
  type Adapter,
  type Issuer,
  isRevoking,
  type Revoking,
  type Source,
  type TlsDefaults,
  tlsDefaults,
} from '../mesh/adapter.ts';
import { isTargeting, type Targeting } from '../mesh/cluster.ts';
import { MeshError } from '../mesh/error.ts';
import { type Identity, leafOf } from '../mesh/identity.ts';
import type { Runtime } from '../mesh/log.ts';
import { type KubeObject, keyOf, type ObjectRef, RENEW_ANNOTATION, refOf } from '../objects/objects.ts';
import type { Crl } from '../pki/crl.ts';
import type { Leadership } from './election.ts';
import { createHost, Prober } from './host.ts';
import { IdentityStream, opening } from './identities.ts';
import type { Informer, ObjectInformer, ObjectView } from './informers.ts';
import { type Fence, type PublishResult, publish } from './publisher.ts';
import { type Report, type Reporter, RotationTracker } from './reporter.ts';
import {
  deletionWaits,
  type GatewaysInUse,
  gatewaysInUse,
  isDeleting,
  isDeletionJudged,
  isRetired,
  Retiring,
  reportOf,
  retireAll,
  settleFinalizer,
  type UsedGateway,
  usesOf,
  withLeft,
} from './retire.ts';
import { RouteKeeper } from './routes.ts';
import { UpstreamWatch } from './upstreams.ts';
import type { BatchGaps, WritePriority } from './write-order.ts';

/**
 * The control loop of one MeshCertificate. Level-triggered: each reconcile obtains, observes, decides, plans, writes and
 * reports.
 */
export class Reconciler {
  /** With the gateways of which an earlier spec left something. */
  certificate: MeshCertificate;
  readonly #adapter: Adapter;
  readonly #env: Environment;
  readonly #tls: TlsDefaults;
  readonly #changes = new Trigger();
  readonly #wake = new Wake();
  readonly #opened: Source | Issuer;
  readonly #stream: IdentityStream;
  readonly #gateways: readonly UsedGateway[];
  /** Absent: CRLs are not asked for. */
  readonly #revoking: Revoking | undefined;
  /** What was read last counts until something else is read: each CRL says when it ends. */
  #crls: readonly Crl[] | undefined;
  readonly #prober: Prober;
  readonly #upstreams: UpstreamWatch | undefined;
  readonly #writes: WriteAttempts;
  readonly #rotations = new RotationTracker();
  readonly #reader: PublicationReader;
  /** The objects of the publication, as far as the newest spec and routes name them. */
  #view = UNOBSERVED;
  /** The latest verdicts of preflight handshakes: one handshake for each pair and bundle. A refusal ends at `until`. */
  readonly #verdicts = new Map<string, { readonly verdict: PreflightVerdict; readonly until: number }>();
  /** The newest failure since the mesh last gave something usable. */
  #meshFailure: Problem | undefined;
  /** Why what is followed may be out of date, by source; the newest failure is last. */
  readonly #stale = new Map<string, Problem>();
  /**
   * Requests for a new certificate. `noticed`: the last value of the annotation; `done`: the value whose new certificate
   * was read back, which the status records, so that a restart does not renew again; `isPending`: a new certificate was
   * requested, by the annotation or by a call, and none has been published since.
   */
  readonly #renewal: { noticed: string | undefined; done: string | undefined; isPending: boolean };
  /** The candidate of the decision that is made and not reported yet. */
  #decidedFor: { readonly candidate: Identity | undefined } | undefined;
  /** Everything was deleted; the watch has not shown yet that the MeshCertificate is gone. */
  #isRetired = false;

  /** `before`: the gateways of the previous spec, if this agent knows it. */
  constructor(given: MeshCertificate, adapter: Adapter, env: Environment, before?: GatewaysInUse) {
    const certificate = withLeft(given, env.gateways, before);
    this.certificate = certificate;
    this.#adapter = adapter;
    this.#env = env;
    const { spec, metadata } = certificate;
    this.#tls = tlsDefaults(adapter, spec.mesh.config);
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
    const opened = opening(adapter, spec.mesh, host);
    this.#opened = opened;
    this.#gateways = this.#useGateways(given.spec, isTargeting(opened) ? opened : undefined);
    this.#stream = new IdentityStream({
      env,
      spec,
      host,
      wake: this.#wake,
      opened,
      published: () => identityToContinue(this.#observe()),
      publishedSince: () => rotatedAt(this.certificate.status),
      offered: this.#changed,
      changed: this.#meshRecovered,
      failed: this.#meshFailed,
    });
    if (spec.crlSecretName !== undefined && isRevoking(opened)) this.#revoking = opened;
    this.#prober = new Prober(env, spec.probe, this.#changed);
    if (spec.upstreams) {
      this.#upstreams = new UpstreamWatch({
        env,
        adapter,
        tls: this.#tls,
        spec: spec.upstreams,
        changed: this.#changed,
      });
    }
    this.#writes = new WriteAttempts(env);
    const done = requestDone(certificate);
    this.#renewal = { noticed: done, done, isPending: false };
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
    this.#renewal.isPending = true;
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
    const following = [...this.#gateways.map(({ routes }) => routes.run(signal)), this.#followCrls(signal)];
    try {
      while (!signal.aborted) {
        this.#changes.reset();
        const next = await this.#reconcile(signal);
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

  async #followCrls(signal: AbortSignal): Promise<void> {
    const revoking = this.#revoking;
    if (!revoking) return;
    const { clock, random } = this.#env;
    const stream = {
      open: () => revoking.crls(signal),
      each: (crls: readonly Crl[]) => {
        this.#crls = crls;
        this.#changes.fire();
      },
      ended: () => new MeshError('ERR_MESH_UNAVAILABLE', 'the stream of CRLs ended; it is opened again'),
    };
    const delay = (failures: number) => retryDelay(failures, random);
    await followed(stream, { clock, delay, failed: this.#failed }, signal);
  }

  /** One reconcile. Returns when the next one is due without a change, epoch ms. */
  async #reconcile(signal: AbortSignal): Promise<number | undefined> {
    this.#watch();
    const leading = this.#env.leadership.leads(keyOf(refOf(this.certificate)));
    await this.#obtain(leading);
    // Nothing is known yet and nothing is wrong, so there is nothing to report.
    if (!this.#view.synced && this.#view.problem === undefined) return undefined;
    const { situation, decision } = await this.#decide();
    const steps = this.#plan(decision, situation.now);
    const due = steps.some((step) => step.action !== 'none');
    const outcome = leading && this.#view.synced ? await this.#write(steps, due, decision, signal) : undefined;
    if (decision.hold?.hold) this.#prober.ask(situation.candidate, decision.upstreamTrust.bundle, signal);
    this.#report({ situation, decision, steps, due, outcome, leading }, signal);
    return this.#next(decision, situation.now);
  }

  /** Watches the objects of the publication as it is desired now. */
  #watch(): void {
    const refs = publicationRefs(this.certificate, usesOf(this.#gateways));
    const before = this.#view;
    if (before.keys.length === refs.length && refs.every((ref, at) => keyOf(ref) === before.keys[at])) return;
    this.#view = this.#env.objectInformers.observe(refs, { changed: this.#changed, recovered: this.#reachable });
    before[Symbol.dispose]();
  }

  /** Asks the mesh. Only the leader does, and only after it knows what is published. */
  async #obtain(leading: boolean): Promise<void> {
    const { spec } = this.certificate;
    if (leading && this.#view.synced && !spec.paused) {
      this.#stream.start();
      const request = requestIn(this.certificate);
      if (request !== undefined && request !== this.#renewal.noticed) {
        this.#renewal.noticed = request;
        this.renew();
      }
    }
    if (!leading && this.#stream.running) {
      await this.#stream.stop();
      this.#meshFailure = undefined;
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
      crls: this.#revoking && (this.#crls ?? published.crls ?? []),
      preflight: this.#verdict,
      published,
      desired: this.#desired,
      renewalAsked: this.#renewal.isPending,
      now: this.#env.clock.now(),
    };
  }

  readonly #desired: Situation['desired'] = (pair) => {
    const { metadata, spec } = this.certificate;
    const { name, namespace = '', uid } = metadata;
    const uses = usesOf(this.#gateways);
    return tryDesiredObjects({ ...pair, meta: { name, namespace, uid }, spec, tls: this.#tls, uses });
  };

  /** Undefined before the handshake, and when a refused one has to be repeated. */
  readonly #verdict: Situation['preflight'] = ({ pair, bundle, crls }) => {
    const known = this.#verdicts.get(preflightKey(pair, bundle, crls));
    return known && this.#env.clock.now() < known.until ? known.verdict : undefined;
  };

  get #isProven(): OriginProof {
    const { createdSecrets } = this.#env;
    const { secrets = [] } = (this.certificate.status ?? {}) as Partial<PublicationStatus>;
    for (const { uid } of secrets) createdSecrets.add(uid);
    return provenBy(createdSecrets);
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
      await this.#prove(decision.unproven);
    }
  }

  /** Makes the handshake; afterwards `#verdict` returns its outcome. */
  async #prove({ pair, bundle, crls }: Proof): Promise<void> {
    const { preflight, clock } = this.#env;
    const key = preflightKey(pair, bundle, crls);
    const verdict = await preflight(pair, bundle, crls);
    const until = verdict.ok ? Number.POSITIVE_INFINITY : clock.now() + REFUSED_FOR_MS;
    this.#verdicts.delete(key);
    this.#verdicts.set(key, { verdict, until });
    const [oldest] = this.#verdicts.keys();
    if (this.#verdicts.size > REMEMBERED && oldest !== undefined) this.#verdicts.delete(oldest);
  }

  #plan({ desired }: Decision, now: number): readonly PlanStep[] {
    if (!desired) return [];
    const refs = desired.map(({ object }) => refOf(object));
    const found = refs.map((ref) => this.#view.get(ref)).filter((object) => object !== undefined);
    const observed = new Map(found.map((object) => [keyOf(refOf(object)), object]));
    return plan(desired, observed, ownerLabel(this.certificate.metadata), now, this.#isProven);
  }

  /** Changes the cluster: deletes what is retired, or publishes, or settles routes, orphans and the finalizer. */
  async #write(
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
      const open = steps.filter(({ action }) => action !== 'none').map(refOfStep);
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
      const problem = codedProblem(asError(error));
      this.#writes.failed(problem, this.#remainingMs(decision));
      this.#failed(problem);
    }
    return undefined;
  }

  async #publish(
    steps: readonly PlanStep[],
    decision: Decision,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<PublishResult> {
    const { kube, clock, batchGaps, writePriority, gateways, dryRun, createdSecrets } = this.#env;
    const { namespace = '', uid } = this.certificate.metadata;
    const wrote = (object: KubeObject, action: 'create' | 'apply') => {
      this.#view.wrote(object);
      const created = object.metadata.uid;
      if (action === 'create' && object.kind === 'Secret' && created !== undefined) createdSecrets.add(created);
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
    this.#writes.tried(result, this.#remainingMs(decision));
    for (const problem of result.problems) this.#failed(problem);
    // The watch triggers the next reconcile when it shows our writes, unless it has shown them already.
    if (result.written.length > 0 && !dryRun && this.#isReadBack(decision)) this.#changes.fire();
    return result;
  }

  #report(
    done: Pick<Report, 'situation' | 'decision' | 'steps' | 'outcome' | 'leading'> & { due: boolean },
    signal: AbortSignal,
  ): void {
    const { situation, decision, due, leading } = done;
    const { certificate } = this;
    const { clock, reporter, dryRun } = this.#env;
    this.#decidedFor = undefined;
    const refusedElsewhere = this.#refusedElsewhere(done);
    const inForce = decision.identity !== undefined && this.#isInForce(done, refusedElsewhere);
    const repair = due && this.#rotations.wasReached(decision);
    const { candidateAt } = this.#stream;
    const { planned, retryAt, breakerOpenMs } = this.#stream.policy;
    const lagMs = candidateAt === undefined ? undefined : clock.monotonic() - candidateAt;
    const rotation = inForce ? this.#rotations.reached(decision, lagMs) : undefined;
    if (rotation?.kind === 'leaf') {
      this.#renewal.done = this.#renewal.noticed;
      this.#renewal.isPending = false;
    }
    const routes = this.#gateways.flatMap((one) => one.routes.states());
    this.#upstreams?.observe({ leading, decision: inForce ? decision : undefined, routes }, signal);
    reporter.report({
      ...done,
      certificate,
      inForce,
      refusedElsewhere,
      repair,
      rotation,
      planned,
      breakerOpenMs,
      ...reportOf(this.#gateways),
      gateways: this.inUse,
      upstreams: this.#upstreams?.state,
      failure: this.#failure(decision, leading),
      nextAttemptAt: this.#meshFailure && retryAt,
      probeProblem: this.#prober.problem(situation.candidate),
      renewRequest: this.#renewal.done,
      seen: this.#view.synced,
      dryRun,
    });
  }

  /**
   * When to reconcile again without a change, epoch ms: for the decision, for a write, or for a refused handshake. What
   * was due at `since`, when this reconcile began, is done or no longer matters: waiting for it would not be a pause.
   */
  #next({ nextLook }: Decision, since: number): number | undefined {
    const refusals = [...this.#verdicts.values()].map(({ until }) => until);
    const times = [nextLook, this.#writes.retryAt, ...refusals].filter((time) => time !== undefined);
    const next = Math.min(...times.filter((time) => time > since));
    return Number.isFinite(next) ? next : undefined;
  }

  /** The objects of gateways in other namespaces that were refused, or refer to one that was. */
  #refusedElsewhere({ steps, outcome }: Pick<Report, 'steps' | 'outcome'>): readonly ObjectRef[] {
    const planned = steps.flatMap((step) => (step.action === 'refuse' && step.gateway !== undefined ? [step.ref] : []));
    const tried = outcome && !outcome.stopped ? [...outcome.problems.map(({ ref }) => ref), ...outcome.skipped] : [];
    const found = new Map([...planned, ...tried].map((ref) => [keyOf(ref), ref]));
    return [...found.values()].filter(({ namespace }) => namespace !== this.certificate.metadata.namespace);
  }

  /** Whether everything is as desired, except what somebody prevents in another namespace. */
  #isInForce({ steps, decision }: Pick<Report, 'steps' | 'decision'>, refused: readonly ObjectRef[]): boolean {
    const excepted = new Set(refused.map(keyOf));
    const isOpen = (step: PlanStep) => step.action !== 'none' && !excepted.has(keyOf(refOfStep(step)));
    return !steps.some(isOpen) && this.#isReadBack(decision, excepted);
  }

  /** Whether the watch has shown our last write of each desired object. */
  #isReadBack({ desired }: Decision, excepted?: ReadonlySet<string>): boolean {
    const refs = desired?.map(({ object }) => refOf(object));
    return refs?.every((ref) => excepted?.has(keyOf(ref)) || this.#view.readBack(ref)) === true;
  }

  #remainingMs({ identity }: Decision): number | undefined {
    const leaf = identity && leafOf(identity);
    return leaf && Math.max(0, leaf.notAfter - this.#env.clock.now());
  }

  /** What the status names as the reason that all is not well. */
  #failure({ problem, crlProblem }: Decision, leading: boolean): Problem | undefined {
    const unseen = this.#view.synced ? undefined : this.#view.problem;
    const first = this.#writes.failure ?? (unseen && codedProblem(unseen)) ?? this.#deletionWaits;
    if (first) return first;
    const mesh = this.#meshFailure ?? [...this.#stale.values()].at(-1) ?? this.#recordedFailure(leading);
    // That the published certificate has expired is not the cause: the reason that no newer one followed is.
    const cause = problem?.code === 'ERR_VERIFY_EXPIRED' ? (mesh ?? problem) : (problem ?? mesh);
    return cause ?? crlProblem;
  }

  /**
   * The failure that the status records, across restarts and changes of the leader. The leader repeats it until its own
   * first attempt; a follower makes no attempts.
   */
  #recordedFailure(leading: boolean): Problem | undefined {
    const error = (this.certificate.status as Partial<PublicationStatus> | undefined)?.lastError;
    if (!error) return undefined;
    const { planned, hasTried } = this.#stream.policy;
    const isDue = !planned || planned.due <= this.#env.clock.now();
    if (leading && (hasTried || !isDue || !/^ERR_(MESH|VERIFY)_/.test(error.code))) return undefined;
    return { code: error.code, message: error.message, at: Date.parse(error.time) };
  }

  #useGateways({ gateways: given }: MeshCertificate['spec'], targeting: Targeting | undefined): readonly UsedGateway[] {
    const { certificate } = this;
    const { kube, clock, random, log, sharedInformers, dryRun, batchGaps, gateways } = this.#env;
    const batchGap = batchGaps.of(certificate.metadata.namespace ?? '');
    const mesh = { ...this.#adapter, tls: this.#tls };
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
        onError: this.#failed,
      }),
      retiring: new Retiring(sharedInformers, gateway, certificate, () => {
        if (isDeleting(this.certificate)) this.#changes.fire();
      }),
    }));
  }

  /** The gateways that have objects, for the status and for the reconciler of the next spec. */
  get inUse(): GatewaysInUse {
    return gatewaysInUse(this.#gateways, this.certificate.metadata.namespace ?? '');
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

  /** Each failure is reported when it occurs, however it is shown later. */
  readonly #failed = (error: Error | Problem): void => this.#env.reporter.failed(this.certificate, error);

  readonly #meshFailed = (error: Error): void => {
    this.#meshFailure = { ...codedProblem(error), at: this.#env.clock.now() };
    this.#failed(error);
    this.#changes.fire();
  };

  readonly #reportStale = (source: string, error: Error | undefined): void => {
    const wasStale = this.#stale.delete(source);
    if (error) {
      // Without a time: it lasts until the source reports its end.
      this.#stale.set(source, codedProblem(error));
      this.#failed(error);
    }
    if (error || wasStale) this.#changes.fire();
  };

  /** The failure remains while a retry is scheduled: then the change was something other than a new certificate. */
  readonly #meshRecovered = (): void => {
    if (this.#stream.policy.retryAt === undefined) this.#meshFailure = undefined;
    // The report that follows includes the recovery; only another identity needs another decision.
    if (!this.#decidedFor || this.#decidedFor.candidate !== this.#stream.candidate) this.#changes.fire();
  };
}

const refOfStep = (step: PlanStep): ObjectRef => (step.action === 'refuse' ? step.ref : refOf(step.object));

/** What the reconcilers of one agent share. */
export interface Environment extends Runtime {
  readonly kube: Kube;
  readonly preflight: Preflight;
  readonly objectInformers: ObjectInformer;
  readonly sharedInformers: Informer;
  readonly share: Share;
  readonly bundles: Bundles;
  readonly batchGaps: BatchGaps;
  /** The uids of Secrets that the agent created, also when their MeshCertificate is gone and comes back. */
  readonly createdSecrets: Set<string>;
  readonly gateways: readonly Gateway[];
  readonly writePriority: WritePriority;
  readonly leadership: Leadership;
  readonly reporter: Reporter;
  /** Directories below which a MeshCertificate may name files. */
  readonly filesBelow: Allowed;
  /** What MeshCertificates may make the agent do. */
  readonly allow: AllowList;
  /** For handshakes with upstreams that are only checked: a few at a time. */
  readonly handshakes: Semaphore;
  /** How many MeshCertificates there are, whichever replica leads them. */
  readonly fleet: () => number;
  /** The API server validates each write and stores none. */
  readonly dryRun: boolean;
}

/** Before the first reconcile. */
const UNOBSERVED: ObjectView = {
  synced: false,
  problem: undefined,
  keys: [],
  objects: () => [],
  get: () => undefined,
  readBack: () => false,
  wrote() {},
  writing: () => UNOBSERVED,
  [Symbol.dispose]() {},
};

/** A refusal may depend on the time or on a busy process: the handshake is repeated after this. */
const REFUSED_FOR_MS = 30_000;
/**
 * Verdicts that are remembered: of the candidate and of the published pair, each with the bundles before and after a
 * change.
 */
const REMEMBERED = 4;

/** A request is a time or a word of the user's; what is beyond this is not compared, and not recorded. */
const LONGEST_REQUEST = 1024;

const requestIn = ({ metadata }: MeshCertificate): string | undefined =>
  metadata.annotations?.[RENEW_ANNOTATION]?.slice(0, LONGEST_REQUEST);

/** The request that was handled before. A document in a file has no status: its value at the start counts as handled. */
function requestDone(certificate: MeshCertificate): string | undefined {
  if (certificate.metadata.uid === undefined) return requestIn(certificate);
  return (certificate.status as Partial<PublicationStatus> | undefined)?.renewRequest;
}

/** Backs off after writes that failed: of some objects, or of all. Times on the monotonic clock. */
class WriteAttempts {
  readonly #env: Pick<Environment, 'clock' | 'random'>;
  #failures = 0;
  #retryAt: number | undefined;
  /** The objects that are not tried before; undefined: none is. */
  #held: ReadonlySet<string> | undefined;
  failure: Problem | undefined;

  constructor(env: Pick<Environment, 'clock' | 'random'>) {
    this.#env = env;
  }

  get #waiting(): boolean {
    return this.#retryAt !== undefined && this.#env.clock.monotonic() < this.#retryAt;
  }

  /** Nothing may be written yet. */
  get blocked(): boolean {
    return this.#waiting && this.#held === undefined;
  }

  /** This object may not be written yet. */
  readonly isHeld = (ref: ObjectRef): boolean => this.#waiting && this.#held?.has(keyOf(ref)) !== false;

  /** Epoch ms of the next attempt. */
  get retryAt(): number | undefined {
    const { clock } = this.#env;
    return this.#retryAt === undefined ? undefined : clock.now() + this.#retryAt - clock.monotonic();
  }

  /** Whatever was tried: what is held has still failed. */
  succeeded(): void {
    if (this.#waiting) return;
    this.#failures = 0;
    this.#retryAt = undefined;
    this.failure = undefined;
  }

  /** Takes the result of writing some objects. */
  tried({ problems, stopped }: PublishResult, remainingMs: number | undefined): void {
    const failed = problems.filter(({ refused }) => !refused);
    const [worst] = failed;
    if (worst) this.failed(worst, remainingMs, stopped ? undefined : failed.map(({ ref }) => ref));
    else this.succeeded();
    // What the plan refused made no request and needs no backoff: a change of the objects triggers the next attempt.
    if (!worst && problems[0]) this.failure = problems[0];
  }

  /** The API server answers again. True: the next attempt need not wait. */
  reachable(): boolean {
    if (this.failure?.code !== 'ERR_KUBE_UNREACHABLE') return false;
    this.#retryAt = undefined;
    return true;
  }

  /** `remainingMs`: remaining life of the certificate that a success would replace. `held`: what failed; absent: all. */
  failed(problem: Problem, remainingMs: number | undefined, held?: readonly ObjectRef[]): void {
    const earlier = this.#waiting ? this.#held : undefined;
    this.#held = held && new Set([...(earlier ?? []), ...held.map(keyOf)]);
    this.#failures += 1;
    this.failure = problem;
    const { clock, random } = this.#env;
    this.#retryAt = clock.monotonic() + retryDelay(this.#failures, random, { remainingMs });
  }
}
