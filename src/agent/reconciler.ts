import type { Clock } from '../async/clock.ts';
import type { Semaphore } from '../async/limits.ts';
import { asError } from '../async/retrying.ts';
import type { Share } from '../async/sharing.ts';
import { Trigger, Wake } from '../async/trigger.ts';
import type { Allowed, AllowList } from '../config/allow.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { type Decision, decide, identityToContinue, type Situation } from '../core/decide.ts';
import { type Desired, type OriginProof, type PlanStep, plan, provenBy } from '../core/plan.ts';
import { type Preflight, type PreflightVerdict, type Proof, preflightKey } from '../core/preflight.ts';
import { codedProblem, type Problem } from '../core/problem.ts';
import { retryDelay } from '../core/retry.ts';
import { type PublicationStatus, rotatedAt } from '../core/status.ts';
import { publicationRefs, tryDesiredObjects } from '../gateway/desired.ts';
import { type Gateway, type GatewayUse, gatewaysOf } from '../gateway/gateway.ts';
import { type Bundles, ownerLabel, PublicationReader } from '../gateway/publication.ts';
import type { Kube } from '../kube/api.ts';
import { type Adapter, type Issuer, isRevoking, type Source, tlsDefaults } from '../mesh/adapter.ts';
import { isTargeting, type Targeting } from '../mesh/cluster.ts';
import { type Identity, leafOf } from '../mesh/identity.ts';
import type { Runtime } from '../mesh/log.ts';
import { type KubeObject, keyOf, type ObjectRef, RENEW_ANNOTATION, refOf } from '../objects/objects.ts';
import type { Leadership } from './election.ts';
import { createHost, Prober } from './host.ts';
import { CrlStream, IdentityStream, opening } from './identities.ts';
import type { Informer, ObjectInformer, ObjectView, ObjectWatcher } from './informers.ts';
import { type Fence, type PublishResult, publish } from './publisher.ts';
import { type Report, type Reporter, RotationTracker } from './reporter.ts';
import {
  deletionWaits,
  isDeleting,
  isDeletionJudged,
  isRetired,
  type Recorded,
  Retiring,
  recordOf,
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

/** Why the mesh gives no newer certificate, across restarts and changes of the leader. */
class MeshFailures {
  readonly #clock: Clock;
  readonly #stream: Pick<IdentityStream, 'planned' | 'hasTried'>;
  /** The newest failure since the mesh last gave something usable. */
  current: Problem | undefined;
  /** Why what is followed may be out of date, by source; the newest failure is last. */
  readonly #stale = new Map<string, Problem>();

  constructor(clock: Clock, stream: Pick<IdentityStream, 'planned' | 'hasTried'>) {
    this.#clock = clock;
    this.#stream = stream;
  }

  failed(error: Error): void {
    this.current = { ...codedProblem(error), at: this.#clock.now() };
  }

  /** Returns whether this is news. */
  stale(source: string, error: Error | undefined): boolean {
    const wasStale = this.#stale.delete(source);
    if (!error) return wasStale;
    // Without a time: it lasts until the source reports its end.
    this.#stale.set(source, codedProblem(error));
    return true;
  }

  clear(): void {
    this.current = undefined;
  }

  /**
   * Why no newer certificate is published; `problem` is the decision's. The expiry of the published certificate is not
   * the cause: the reason that no newer one followed is.
   */
  cause(problem: Problem | undefined, certificate: MeshCertificate, leading: boolean): Problem | undefined {
    const failure = this.current ?? [...this.#stale.values()].at(-1) ?? this.#recorded(certificate, leading);
    return problem?.code === 'ERR_VERIFY_EXPIRED' ? (failure ?? problem) : (problem ?? failure);
  }

  /**
   * The failure that the status records. The leader repeats it until its own first attempt; a follower makes no
   * attempts.
   */
  #recorded({ status }: MeshCertificate, leading: boolean): Problem | undefined {
    const error = (status as Partial<PublicationStatus> | undefined)?.lastError;
    if (!error) return undefined;
    const { planned, hasTried } = this.#stream;
    const isDue = !planned || planned.due <= this.#clock.now();
    if (leading && (hasTried || !isDue || !/^ERR_(MESH|VERIFY)_/.test(error.code))) return undefined;
    return { code: error.code, message: error.message, at: Date.parse(error.time) };
  }
}

/** A refusal may depend on the time or on a busy process: the handshake is repeated after this. */
const REFUSED_FOR_MS = 30_000;
/**
 * Verdicts that are remembered: of the candidate and of the published pair, each with the bundles before and after a
 * change.
 */
const REMEMBERED = 4;

/** The latest verdicts of preflight handshakes for one MeshCertificate: one handshake for each pair and bundle. */
class Preflights {
  readonly #preflight: Preflight;
  readonly #clock: Clock;
  readonly #verdicts = new Map<string, { readonly verdict: PreflightVerdict; readonly until: number }>();
  readonly #running = new Map<string, Promise<void>>();

  constructor(preflight: Preflight, clock: Clock) {
    this.#preflight = preflight;
    this.#clock = clock;
  }

  /** Undefined before the handshake, and when a refused one has to be repeated. */
  readonly verdict = ({ pair, bundle, crls }: Proof): PreflightVerdict | undefined => {
    const known = this.#verdicts.get(preflightKey(pair, bundle, crls));
    return known && this.#clock.now() < known.until ? known.verdict : undefined;
  };

  /**
   * When the first refusal after `time` may be repeated, epoch ms. A refusal that was not needed again by then no
   * longer matters.
   */
  retryAfter(time: number): number | undefined {
    const times = [...this.#verdicts.values()].map(({ until }) => until).filter((until) => until > time);
    const next = Math.min(...times);
    return Number.isFinite(next) ? next : undefined;
  }

  /** Makes the handshake; afterwards `verdict` returns its outcome. */
  prove(proof: Proof): Promise<void> {
    const key = preflightKey(proof.pair, proof.bundle, proof.crls);
    const running = this.#running.get(key) ?? this.#handshake(key, proof);
    this.#running.set(key, running);
    return running;
  }

  async #handshake(key: string, { pair, bundle, crls }: Proof): Promise<void> {
    const verdict = await this.#preflight(pair, bundle, crls);
    const until = verdict.ok ? Number.POSITIVE_INFINITY : this.#clock.now() + REFUSED_FOR_MS;
    this.#running.delete(key);
    this.#verdicts.delete(key);
    this.#verdicts.set(key, { verdict, until });
    const [oldest] = this.#verdicts.keys();
    if (this.#verdicts.size > REMEMBERED && oldest !== undefined) this.#verdicts.delete(oldest);
  }
}

/** A request is a time or a word of the user's; what is beyond this is not compared, and not recorded. */
const LONGEST_REQUEST = 1024;

const requestIn = ({ metadata }: MeshCertificate): string | undefined =>
  metadata.annotations?.[RENEW_ANNOTATION]?.slice(0, LONGEST_REQUEST);

/** Requests for a new certificate, by the renew annotation of one MeshCertificate or by a call. */
class RenewRequests {
  /** The last annotation value that was noticed. */
  #noticed: string | undefined;
  /** The value whose new certificate was read back. The status records it, so that a restart does not renew again. */
  done: string | undefined;
  /** A new certificate was requested, and none has been published since. */
  pending = false;

  constructor(certificate: MeshCertificate) {
    this.done = recordedIn(certificate);
    this.#noticed = this.done;
  }

  /** Whether the annotation asks for a certificate for the first time. */
  notice(certificate: MeshCertificate): boolean {
    const value = requestIn(certificate);
    if (value === undefined || value === this.#noticed) return false;
    this.#noticed = value;
    this.pending = true;
    return true;
  }

  /** A new leaf was read back. */
  fulfilled(): void {
    this.done = this.#noticed;
    this.pending = false;
  }
}

/** A document in a file has no status: its value at the start counts as handled. */
function recordedIn(certificate: MeshCertificate): string | undefined {
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

  /**
   * The plan refused to write. No request was made, so no backoff is needed: a change of the objects triggers the next
   * attempt.
   */
  refused(problem: Problem): void {
    this.succeeded();
    this.failure = problem;
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

/** One reconciler's view of its own objects; follows the objects that routes add and remove. */
class PublicationView implements Disposable {
  readonly #observer: ObjectInformer;
  readonly #watcher: Required<ObjectWatcher>;
  #interest: ObjectView | undefined;

  constructor(observer: ObjectInformer, watcher: Required<ObjectWatcher>) {
    this.#observer = observer;
    this.#watcher = watcher;
  }

  /** Watches the objects of the publication as it is desired now. */
  follow(certificate: MeshCertificate, uses: readonly GatewayUse[]): void {
    const refs = publicationRefs(certificate, uses);
    const before = this.#interest;
    if (before?.keys.length === refs.length && refs.every((ref, at) => keyOf(ref) === before.keys[at])) return;
    this.#interest = this.#observer.observe(refs, this.#watcher);
    before?.[Symbol.dispose]();
  }

  get synced(): boolean {
    return this.#interest?.synced === true;
  }

  /** Nothing is known yet and nothing is wrong, so there is nothing to report. */
  get unknown(): boolean {
    return !this.synced && this.#interest?.problem === undefined;
  }

  /** Why nothing is known. */
  get problem(): Problem | undefined {
    const problem = this.synced ? undefined : this.#interest?.problem;
    return problem && codedProblem(problem);
  }

  get(ref: ObjectRef): KubeObject | undefined {
    return this.#interest?.get(ref);
  }

  objects(): readonly KubeObject[] {
    return this.#interest?.objects() ?? [];
  }

  /** The observed state of the desired objects, by `keyOf`. */
  observed(desired: readonly Desired[] | undefined): ReadonlyMap<string, KubeObject> {
    const refs = (desired ?? []).map(({ object }) => refOf(object));
    return new Map(refs.flatMap((ref) => [this.get(ref)].flatMap((found) => (found ? [[keyOf(ref), found]] : []))));
  }

  /** Whether the watch has shown our last write of each of these. */
  readBack(desired: readonly Desired[] | undefined): boolean {
    return desired?.every(({ object }) => this.#interest?.readBack(refOf(object)) === true) === true;
  }

  wrote(object: KubeObject): void {
    this.#interest?.wrote(object);
  }

  /** To be held during writes: our own are no changes. */
  writing(): Disposable | undefined {
    return this.#interest?.writing();
  }

  [Symbol.dispose](): void {
    this.#interest?.[Symbol.dispose]();
    this.#interest = undefined;
  }
}
