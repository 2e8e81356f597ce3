import { randomUUID } from 'node:crypto';
import { limitedTo, linkedTo } from '../async/linked-signal.ts';
import { Changes } from '../async/trigger.ts';
import type { Runtime } from '../mesh/log.ts';
import { FIELD_MANAGER, type KubeObject, type ObjectRef } from '../objects/objects.ts';
import type { Kube } from './api.ts';
import { FailureStreak, IdleWatchdog } from './reflector.ts';
import { RESOURCES } from './resources.ts';
import { KubeError } from './transport/error.ts';

interface CampaignOptions extends Runtime {
  readonly namespace: string;
  readonly name: string;
  /**
   * Name of this process, for people: the pod's name. A random part is appended, so that a restarted process counts as
   * another one.
   */
  readonly identity: string;
}

/**
 * The defaults of Kubernetes' own leader election. Followers watch the Lease: they notice a crash 15 s after the last
 * renewal, and a clean stop at once. 5 s lie between the fence and the successor.
 */
export const LEASE_DURATIONS = {
  /** Followers wait this long after they last saw a renewal. */
  leaseMs: 15_000,
  /** The holder stops this long after it last sent a renewal that succeeded; well below `leaseMs`. */
  renewDeadlineMs: 10_000,
  /** Least time between renewals, and between a follower's reads when it cannot watch; jittered up by a tenth. */
  retryMs: 2_000,
};

/** The server ends a follower's watch after this long; the Lease is then read again. */
const WATCH_SECONDS = 300;

/** Participation in the election for one Lease. */
export interface LeaseTerm {
  /**
   * Whether a write may be sent now. False once the renew deadline has passed on the monotonic or on the wall clock,
   * whatever the event loop did meanwhile: a frozen process wakes up as a follower.
   */
  isLeader(): boolean;
  /** Aborted when the present term ends; undefined while following. */
  readonly term: AbortSignal | undefined;
  /** As last read, with its random part. */
  readonly holder: string | undefined;
  /** This one, with its random part. */
  readonly identity: string;
  /** Leading or not, now and at each change. Ends with the signal. */
  changes(): AsyncIterable<boolean>;
  /** Resolves after the signal, once the Lease is released. */
  readonly ended: Promise<void>;
}

/** The requests of an election. */
export type LeaseKube = Pick<Kube, 'get' | 'create' | 'replace' | 'watch'>;

/** Takes part until the signal; then releases the Lease, so that a successor need not wait. */
export function campaign(kube: LeaseKube, options: CampaignOptions, signal: AbortSignal): LeaseTerm {
  return new Campaign(kube, options, signal);
}

interface Instant {
  readonly monotonic: number;
  readonly wall: number;
}

class Campaign implements LeaseTerm {
  readonly #kube: LeaseKube;
  readonly #options: CampaignOptions;
  readonly #signal: AbortSignal;
  readonly #changes = new Changes();
  readonly #streak: FailureStreak;
  readonly #watchStreak: FailureStreak;
  readonly #ref: ObjectRef;
  readonly identity: string;
  readonly ended: Promise<void>;
  #lease: KubeObject | undefined;
  #seen: { version: string; at: number } | undefined;
  #renewed: Instant | undefined;
  #term: AbortController | undefined;

  constructor(kube: LeaseKube, options: CampaignOptions, signal: AbortSignal) {
    this.#kube = kube;
    this.#options = options;
    this.#signal = signal;
    this.#streak = new FailureStreak(options.log, options.clock, { lease: options.name });
    this.#watchStreak = new FailureStreak(options.log, options.clock, { lease: options.name });
    this.#ref = {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      namespace: options.namespace,
      name: options.name,
    };
    this.identity = `${options.identity}_${randomUUID()}`;
    this.ended = this.#run();
  }

  isLeader(): boolean {
    if (!this.#term || !this.#renewed) return false;
    const { clock } = this.#options;
    const { renewDeadlineMs } = LEASE_DURATIONS;
    const { monotonic, wall } = this.#renewed;
    return clock.monotonic() - monotonic < renewDeadlineMs && clock.now() - wall < renewDeadlineMs;
  }

  get term(): AbortSignal | undefined {
    return this.isLeader() ? this.#term?.signal : undefined;
  }

  get holder(): string | undefined {
    return this.#lease && readLease(this.#lease).holder;
  }

  async *changes(): AsyncGenerator<boolean> {
    let last: AbortSignal | 'none yet' | undefined = 'none yet';
    for await (const _ of this.#changes.follow(this.#signal, () => [])) {
      const now = this.term;
      if (now !== last) yield now !== undefined;
      last = now;
    }
  }

  async #run(): Promise<void> {
    while (!this.#signal.aborted) {
      let raced = false;
      try {
        await this.#step();
        this.#streak.over('can read and renew the Lease again');
        if (!this.#term) {
          await this.#follow();
          continue;
        }
      } catch (error) {
        if (this.#signal.aborted) break;
        raced = isRace(error);
        if (!raced) {
          this.#streak.failed(error as Error, 'could not read or renew the Lease; trying again');
        }
      }
      this.#endLateTerm();
      if (raced && this.#term) continue;
      await this.#pause();
    }
    const led = this.isLeader();
    this.#endTerm('stopping');
    if (led) await this.#release();
  }

  /** One read and, if the Lease is free or ours, one write; both must be answered before a term would end. */
  async #step(): Promise<void> {
    const { clock } = this.#options;
    const late = () =>
      new KubeError(
        'ERR_KUBE_UNREACHABLE',
        `renew Lease ${this.#options.namespace}/${this.#options.name}: no answer in time.`,
        { status: 0 },
      );
    const limitMs = Math.min(this.#untilDeadline(), LEASE_DURATIONS.renewDeadlineMs / 2);
    using limit = limitedTo(clock, limitMs, late, this.#signal);
    try {
      if (!this.#term || !this.#lease) this.#see(await this.#kube.get(this.#ref, limit.signal));
      if (this.#mayTake()) await this.#write(limit.signal);
    } catch (error) {
      if (isRace(error)) this.#lease = undefined;
      throw error;
    }
  }

  async #pause(): Promise<void> {
    const { clock, random } = this.#options;
    const pauseMs = LEASE_DURATIONS.retryMs * (1 + random() / 10);
    await clock.sleep(Math.min(pauseMs, this.#untilDeadline()), this.#signal).catch(() => undefined);
  }

  /** Returns when the Lease may be free, or when the watch has ended. The caller reads the Lease before it takes it. */
  async #follow(): Promise<void> {
    const { clock, namespace, name } = this.#options;
    const startedAt = clock.monotonic();
    const silence = new IdleWatchdog(clock, this.#untilExpiry());
    using stream = linkedTo(this.#signal);
    silence.silence(stream.signal).then(
      () => stream.abort(),
      () => undefined,
    );
    try {
      const selection = {
        namespace,
        fieldSelector: `metadata.name=${name}`,
        resourceVersion: this.#lease?.metadata.resourceVersion ?? '',
        timeoutSeconds: WATCH_SECONDS,
        opened: () => this.#watchStreak.over('can watch the Lease again'),
      };
      for await (const { type, object } of this.#kube.watch(RESOURCES.leases, selection, stream.signal)) {
        if (type === 'BOOKMARK') continue;
        this.#see(type === 'DELETED' ? undefined : object);
        if (this.#mayTake()) return;
        silence.heard(this.#untilExpiry());
      }
    } catch (error) {
      if (stream.signal.aborted) return;
      this.#watchStreak.failed(
        error as Error,
        `could not watch the Lease; reading it every ${LEASE_DURATIONS.retryMs / 1000} s`,
      );
    } finally {
      stream.abort();
    }
    // A server that ends each watch at once must not be asked without a pause.
    if (clock.monotonic() - startedAt < LEASE_DURATIONS.retryMs) await this.#pause();
  }

  #see(lease: KubeObject | undefined): void {
    this.#lease = lease;
    const version = lease?.metadata.resourceVersion;
    if (version === undefined) this.#seen = undefined;
    else if (this.#seen?.version !== version) this.#seen = { version, at: this.#options.clock.monotonic() };
    if (this.#term && this.holder !== this.identity) this.#endTerm(`${this.holder ?? 'nobody'} holds the Lease`);
  }

  #mayTake(): boolean {
    if (!this.#lease || !this.#seen) return true;
    const { holder } = readLease(this.#lease);
    if (holder === undefined || holder === this.identity) return true;
    return this.#untilExpiry() <= 0;
  }

  /** Milliseconds until the holder's time is over, if it does not renew. */
  #untilExpiry(): number {
    if (!this.#lease || !this.#seen) return 0;
    return this.#seen.at + readLease(this.#lease).durationMs - this.#options.clock.monotonic();
  }

  async #write(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    const sent: Instant = { monotonic: clock.monotonic(), wall: clock.now() };
    const before = this.#lease && readLease(this.#lease);
    const ours = before?.holder === this.identity;
    const record: LeaseRecord = {
      holder: this.identity,
      durationMs: LEASE_DURATIONS.leaseMs,
      acquiredAt: ours ? before.acquiredAt : sent.wall,
      renewedAt: sent.wall,
      transitions: (before?.transitions ?? 0) + (before && !ours ? 1 : 0),
    };
    this.#see(await this.#put(record, signal));
    // After a suspend or a step of the clock it did not lead for a moment; whoever looked then must be notified.
    this.#endLateTerm();
    this.#renewed = sent;
    if (this.#term) return;
    this.#term = new AbortController();
    log.info({ lease: this.#options.name, identity: this.identity }, 'leading');
    this.#changes.announce();
  }

  #put(record: LeaseRecord, signal: AbortSignal): Promise<KubeObject> {
    const { namespace, name } = this.#options;
    const { apiVersion, kind } = this.#ref;
    const options = { fieldManager: FIELD_MANAGER };
    const spec = leaseSpec(record);
    if (this.#lease) return this.#kube.replace({ ...this.#lease, spec }, options, signal);
    return this.#kube.create({ apiVersion, kind, metadata: { name, namespace }, spec }, options, signal);
  }

  #untilDeadline(): number {
    const { clock } = this.#options;
    if (!this.#term || !this.#renewed) return Number.POSITIVE_INFINITY;
    return Math.max(0, this.#renewed.monotonic + LEASE_DURATIONS.renewDeadlineMs - clock.monotonic());
  }

  #endLateTerm(): void {
    if (!this.isLeader()) this.#endTerm('the Lease was not renewed in time');
  }

  #endTerm(why: string): void {
    if (!this.#term) return;
    this.#term.abort(new Error(`no longer leading: ${why}`));
    this.#term = undefined;
    this.#renewed = undefined;
    this.#options.log.info({ lease: this.#options.name, why }, 'no longer leading');
    this.#changes.announce();
  }

  async #release(): Promise<void> {
    if (!this.#lease) return;
    const { clock, log } = this.#options;
    using limit = limitedTo(clock, RELEASE_MS, () => new Error('no answer in time'));
    const record = { ...readLease(this.#lease), holder: undefined, durationMs: 1000, renewedAt: clock.now() };
    try {
      await this.#put(record, limit.signal);
    } catch (error) {
      const { name } = this.#options;
      log.warn(
        { lease: name },
        `could not release the Lease; the next holder waits until it expires: ${(error as Error).message}`,
      );
    }
  }
}

/** A stop must not hang because the API server is gone. */
const RELEASE_MS = 2_000;

/** Somebody else was faster: no error, read again. */
function isRace(error: unknown): boolean {
  return error instanceof KubeError && (error.code === 'ERR_KUBE_CONFLICT' || error.code === 'ERR_KUBE_EXISTS');
}

/** The content of a Lease. */
interface LeaseRecord {
  /** Undefined when nobody holds it. */
  readonly holder: string | undefined;
  readonly durationMs: number;
  readonly acquiredAt: number | undefined;
  readonly renewedAt: number | undefined;
  readonly transitions: number;
}

export function readLease(lease: KubeObject): LeaseRecord {
  const spec = (lease.spec ?? {}) as Record<string, unknown>;
  const time = (value: unknown) => (typeof value === 'string' ? Date.parse(value) : undefined);
  return {
    holder: typeof spec.holderIdentity === 'string' && spec.holderIdentity !== '' ? spec.holderIdentity : undefined,
    durationMs: Number(spec.leaseDurationSeconds ?? 0) * 1000,
    acquiredAt: time(spec.acquireTime),
    renewedAt: time(spec.renewTime),
    transitions: Number(spec.leaseTransitions ?? 0),
  };
}

export function leaseSpec(record: LeaseRecord): Record<string, unknown> {
  return {
    holderIdentity: record.holder ?? '',
    leaseDurationSeconds: Math.max(1, Math.ceil(record.durationMs / 1000)),
    ...(record.acquiredAt === undefined ? {} : { acquireTime: microTime(record.acquiredAt) }),
    ...(record.renewedAt === undefined ? {} : { renewTime: microTime(record.renewedAt) }),
    leaseTransitions: record.transitions,
  };
}

/** RFC 3339 with six digits: the API server answers 400 to the three that `toISOString` writes. */
export function microTime(epochMs: number): string {
  return new Date(epochMs).toISOString().replace('Z', '000Z');
}
