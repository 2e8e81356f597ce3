import type { Clock } from '../async/clock.ts';
import { linkedTo } from '../async/linked-signal.ts';
import { asError } from '../async/retrying.ts';
import { Changes } from '../async/trigger.ts';
import { retryDelay } from '../core/retry.ts';
import { codeOf } from '../mesh/error.ts';
import type { Log, Runtime } from '../mesh/log.ts';
import { type KubeObject, keyOf, type Resource, refOf } from '../objects/objects.ts';
import { endsState, type Kube, type Selection, type WatchEvent } from './api.ts';
import { KubeError } from './transport/error.ts';

export interface ReflectOptions<T extends KubeObject> extends Runtime {
  readonly signal: AbortSignal;
  /** Called each time that all objects were read. */
  readonly onState?: (() => void) | undefined;
  /** Called for each failed attempt, even if the failure is temporary. */
  readonly onError?: ((error: Error, attempt: FailedAttempt) => void) | undefined;
  /** Called when it works again after a failure. */
  readonly onRecovered?: (() => void) | undefined;
  /** Transforms an object before it is stored, so that thousands of whole Secrets need not be held. */
  readonly keep?: ((object: T) => T) | undefined;
}

export interface FailedAttempt {
  /** Milliseconds until the next attempt. */
  readonly delayMs: number;
  /** The attempt before failed for the same reason. */
  readonly isRepeated: boolean;
}

/** A selection of the cluster's objects, kept up to date. */
export interface Reflector<T extends KubeObject = KubeObject> {
  /** By `keyOf`; empty until synced. Not to be changed. */
  items(): ReadonlyMap<string, T>;
  /**
   * The keys that changed since the last iteration; first, once listed, all keys (maybe none). Ends with the signal.
   */
  changes(): AsyncIterable<ReadonlySet<string>>;
  /** `items` has every change up to this version. */
  readonly version: string | undefined;
  /** Resolves when all objects were read for the first time; rejects when the signal comes first. */
  readonly synced: Promise<void>;
  readonly isSynced: boolean;
  /** Epoch ms when the server last sent anything about this; 0 before. */
  readonly lastEventAt: number;
  /** Why it is not up to date now; undefined while there is no problem. */
  readonly problem: Error | undefined;
  /** Reads everything again, now. */
  resync(): void;
  /** Resolves when everything has ended after the signal. */
  readonly ended: Promise<void>;
}

/**
 * Watches indefinitely, from the state on. Never throws and never gives up: a refusal (403) or an absent CRD (404) may be
 * temporary.
 */
export function reflect<T extends KubeObject = KubeObject>(
  kube: Kube,
  resource: Resource,
  selection: Selection,
  options: ReflectOptions<T>,
): Reflector<T> {
  return new Loop(kube, resource, selection, options);
}

/** The server ends a watch by itself after 4 to 5 minutes, spread so that a restart's watches do not end together. */
const WATCH_SECONDS = { least: 240, spread: 60 };
/** Added to the server's own limit, for a connection that is half open. */
const GRACE_MS = 15_000;
/** kube-apiserver sends a bookmark a minute; once it has sent one, two and a half missed ones mean that it is gone. */
const BOOKMARK_SILENCE_MS = 150_000;
/**
 * A watch that ended sooner than this counts as a failure. Otherwise a server that closes at once would be hammered.
 */
const SHORTEST_WATCH_MS = 5_000;
const BACKOFF = { minMs: 250, maxMs: 30_000 };
/** Everything is read again this often, plus up to a tenth: finds a change whose event was lost. */
const RELIST_MS = 600_000;
const RESYNC = Symbol('resync');

class Loop<T extends KubeObject> implements Reflector<T> {
  readonly #kube: Kube;
  readonly #resource: Resource;
  readonly #selection: Selection;
  readonly #options: ReflectOptions<T>;
  readonly #changes = new Changes<string>();
  readonly #streak: FailureStreak;
  readonly synced: Promise<void>;
  readonly ended: Promise<void>;
  #items = new Map<string, T>();
  /** From which to watch; undefined: from the state. */
  #from: string | undefined;
  #listedAt = 0;
  #relistMs = 0;
  #failures = 0;
  /** Until then, a version that is too old counts as a failure. Afterwards, everything is read again at once. */
  #tooOldFailsUntil = Number.NEGATIVE_INFINITY;
  #settleSynced: { resolve: () => void; reject: (reason: unknown) => void } | undefined;
  #interrupt: ((reason: unknown) => void) | undefined;
  version: string | undefined;
  isSynced = false;
  lastEventAt = 0;
  problem: Error | undefined;

  constructor(kube: Kube, resource: Resource, selection: Selection, options: ReflectOptions<T>) {
    this.#kube = kube;
    this.#resource = resource;
    this.#selection = selection;
    this.#options = options;
    this.#streak = new FailureStreak(options.log, options.clock, { resource: resource.plural });
    this.synced = new Promise((resolve, reject) => {
      this.#settleSynced = { resolve, reject };
    });
    this.synced.catch(() => undefined);
    this.ended = this.#run();
  }

  items(): ReadonlyMap<string, T> {
    return this.#items;
  }

  changes(): AsyncIterable<ReadonlySet<string>> {
    return this.#changes.follow(this.#options.signal, () => (this.isSynced ? this.#items.keys() : undefined));
  }

  resync(): void {
    this.#from = undefined;
    this.#interrupt?.(RESYNC);
  }

  async #run(): Promise<void> {
    const { signal } = this.#options;
    while (!signal.aborted) {
      using step = linkedTo(signal);
      this.#interrupt = step.abort;
      try {
        await this.#watch(step.signal);
      } catch (error) {
        if (signal.aborted) break;
        if (error !== RESYNC) await this.#fail(error, step.signal);
      }
    }
    this.#settleSynced?.reject(signal.reason);
  }

  async #fail(error: unknown, signal: AbortSignal): Promise<void> {
    const problem = asError(error);
    const gone = problem instanceof KubeError && problem.code === 'ERR_KUBE_GONE';
    // Versions of a definition that was deleted say nothing of one that comes after it.
    if (gone || (problem instanceof KubeError && problem.status === 404)) this.#from = undefined;
    if (gone && this.#options.clock.monotonic() >= this.#tooOldFailsUntil) {
      this.#tooOldFailsUntil = this.#options.clock.monotonic() + SHORTEST_WATCH_MS;
      return;
    }
    this.#failures += 1;
    const isRepeated = problem.message === this.problem?.message && codeOf(problem, '') === codeOf(this.problem, '');
    this.problem = problem;
    const said = problem instanceof KubeError ? problem.retryAfterMs : undefined;
    const delayMs = Math.max(said ?? 0, retryDelay(this.#failures, this.#options.random, BACKOFF));
    this.#options.onError?.(problem, { delayMs, isRepeated });
    this.#streak.failed(problem, `could not watch ${this.#resource.plural}; trying again`);
    await this.#options.clock.sleep(delayMs, signal).catch(() => undefined);
  }

  /** Returns when the server ended the watch after its normal time; throws when it ended too soon or not at all. */
  async #watch(parent: AbortSignal): Promise<void> {
    const { clock, random } = this.#options;
    const timeoutSeconds = WATCH_SECONDS.least + Math.floor(random() * WATCH_SECONDS.spread);
    const watchdog = new IdleWatchdog(clock, timeoutSeconds * 1000 + GRACE_MS);
    const startedAt = clock.monotonic();
    using stream = linkedTo(parent);
    const silent = new KubeError(
      'ERR_KUBE_UNREACHABLE',
      `watch ${this.#resource.plural}: the server sent nothing for too long. The agent opens the watch again.`,
      { status: 0 },
    );
    watchdog.silence(stream.signal).then(
      () => stream.abort(silent),
      () => undefined,
    );
    /** What exists, until all of it was sent. */
    let state = this.#from === undefined ? new Map<string, T>() : undefined;
    try {
      const opened = () => {
        if (!state) this.#well();
      };
      const selection = { ...this.#selection, resourceVersion: this.#from, timeoutSeconds, opened };
      for await (const event of this.#kube.watch<T>(this.#resource, selection, stream.signal)) {
        // Of the events that arrived together, none counts after a resync.
        stream.signal.throwIfAborted();
        watchdog.heard(event.type === 'BOOKMARK' && !state ? BOOKMARK_SILENCE_MS : undefined);
        if (!state) this.#take(event);
        else if (endsState(event)) {
          this.#replace(state, event.object.metadata.resourceVersion);
          state = undefined;
        } else if (event.type !== 'BOOKMARK') this.#change(state, event);
      }
    } finally {
      stream.abort();
    }
    if (clock.monotonic() - this.#listedAt >= this.#relistMs) this.#from = undefined;
    const livedMs = clock.monotonic() - startedAt;
    if (state || livedMs < SHORTEST_WATCH_MS)
      throw new KubeError(
        'ERR_KUBE_SERVER',
        `watch ${this.#resource.plural}: the server ended it after ${Math.round(livedMs)} ms.`,
        { status: 0 },
      );
    this.#heard();
  }

  #replace(found: Map<string, T>, resourceVersion: string | undefined): void {
    const { clock, random } = this.#options;
    const changed = new Set([...found.keys()].filter((key) => isNewer(found.get(key), this.#items.get(key))));
    for (const key of this.#items.keys()) if (!found.has(key)) changed.add(key);
    this.#items = found;
    this.#from = resourceVersion;
    this.version = resourceVersion;
    this.#listedAt = clock.monotonic();
    this.#relistMs = RELIST_MS * (1 + random() / 10);
    this.#well();
    if (!this.isSynced || changed.size > 0) this.#changes.announce(changed);
    this.isSynced = true;
    this.#settleSynced?.resolve();
    this.#options.onState?.();
  }

  #take(event: WatchEvent<T>): void {
    const { resourceVersion } = event.object.metadata;
    this.#from = resourceVersion ?? this.#from;
    this.version = resourceVersion ?? this.version;
    this.#heard();
    if (event.type === 'BOOKMARK') return;
    this.#changes.announce([this.#change(this.#items, event)]);
  }

  /** Returns the key of the object. */
  #change(items: Map<string, T>, { type, object }: WatchEvent<T>): string {
    const { keep = (one: T) => one } = this.#options;
    const key = keyOf(refOf(object));
    if (type === 'DELETED') items.delete(key);
    else items.set(key, keep(object));
    return key;
  }

  #heard(): void {
    this.#failures = 0;
    this.#streak.over(`watching ${this.#resource.plural} again`);
    this.#well();
  }

  #well(): void {
    const hadFailed = this.problem !== undefined;
    this.problem = undefined;
    this.lastEventAt = this.#options.clock.now();
    if (hadFailed) this.#options.onRecovered?.();
  }
}

function isNewer(found: KubeObject | undefined, known: KubeObject | undefined): boolean {
  return found?.metadata.resourceVersion !== known?.metadata.resourceVersion;
}

/**
 * A lasting failure is logged again at warn this often: rarely enough to read, often enough for the last page of a log.
 */
export const REPEAT_MS = 600_000;

/**
 * Logs the failures of a repeated operation: at warn when they begin, when their code changes and every ten minutes,
 * else at debug; and at info when they end. Errors with a code are logged without a stack.
 */
export class FailureStreak {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #fields: object;
  #times = 0;
  #code = '';
  #loggedAt = 0;

  /** `fields` are added to each line. */
  constructor(log: Log, clock: Clock, fields: object) {
    this.#log = log;
    this.#clock = clock;
    this.#fields = fields;
  }

  failed(error: Error, what: string): void {
    const code = codeOf(error, '');
    const now = this.#clock.monotonic();
    const isNews = this.#times === 0 || code !== this.#code || now - this.#loggedAt >= REPEAT_MS;
    this.#times += 1;
    this.#code = code;
    if (isNews) this.#loggedAt = now;
    const fields = { ...this.#fields, ...(code === '' ? { err: error } : { code }), times: this.#times };
    this.#log[isNews ? 'warn' : 'debug'](fields, `${what}: ${error.message}`);
  }

  over(what: string): void {
    if (this.#times === 0) return;
    this.#log.info({ ...this.#fields, failures: this.#times }, what);
    this.#times = 0;
  }
}

/** Resolves when nothing was heard for the allowed time. */
export class IdleWatchdog {
  readonly #clock: Clock;
  #heardAt: number;
  #limitMs: number;
  #reconsider: (() => void) | undefined;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#heardAt = clock.monotonic();
    this.#limitMs = limitMs;
  }

  /** Restarts the wait, from now on with this limit if one is given. */
  heard(limitMs = this.#limitMs): void {
    const sooner = limitMs < this.#limitMs;
    this.#heardAt = this.#clock.monotonic();
    this.#limitMs = limitMs;
    if (sooner) this.#reconsider?.();
  }

  /** Resolves after the silence; rejects with the signal's reason. */
  async silence(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const left = this.#heardAt + this.#limitMs - this.#clock.monotonic();
      if (left <= 0) return;
      using sleep = linkedTo(signal);
      this.#reconsider = () => sleep.abort();
      await this.#clock.sleep(left, sleep.signal).catch(() => undefined);
    }
  }
}
