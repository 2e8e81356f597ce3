import { createHash } from 'node:crypto';
import type { Clock } from '../async/clock.ts';
import { TokenBucket } from '../async/limits.ts';
import { Trigger } from '../async/trigger.ts';
import type { Log } from '../mesh/log.ts';
import { safeMessage } from '../mesh/secrets.ts';
import { describe, FIELD_MANAGER, type KubeObject, keyOf, type ObjectRef } from '../objects/objects.ts';
import type { Kube } from './api.ts';
import { KubeError } from './transport/error.ts';

export interface RecorderOptions {
  /** `meshcert`: what `kubectl describe` shows under From. */
  readonly component: string;
  /** The pod's name. */
  readonly instance: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Ends the recorder; Events that are queued then are dropped. */
  readonly signal: AbortSignal;
}

/** What an event is about; `uid` lets `kubectl describe` find it. */
export interface EventSubject extends ObjectRef {
  readonly uid?: string | undefined;
}

export interface Recorder {
  /**
   * Records an Event. Never waits and never fails: Events are for people, and the log has the same information.
   * `reason` is one of a stable set, in CamelCase; equal Events within ten minutes are counted, not repeated.
   */
  event(about: EventSubject, type: 'Normal' | 'Warning', reason: string, message: string): void;
  /** Resolves once every recorded Event was sent or dropped. */
  flush(): Promise<void>;
  readonly dropped: number;
}

export function recorder(kube: Kube, options: RecorderOptions): Recorder {
  return new EventRecorder(kube, options);
}

interface EventSeries {
  readonly about: EventSubject;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  readonly message: string;
  readonly first: number;
  last: number;
  count: number;
  /** The Event's name once it was created. */
  name: string | undefined;
}

/** As in client-go: equal Events are joined for ten minutes. */
const WINDOW_MS = 600_000;
/** Limit for one object: ten at once, then one each half minute. */
const BURST = 10;
const REFILL_MS = 30_000;
/**
 * Limit for all objects: the log and each status have the same information, and a rotation of a whole fleet does not
 * need thousands of Events.
 */
const BURST_OF_ALL = 50;
const REFILL_OF_ALL_MS = 1_000;
/** Beyond this number of objects, the oldest are forgotten. */
const REMEMBERED = 1_000;
/** The API server refuses longer messages. */
const LONGEST = 1_024;

class EventRecorder implements Recorder {
  readonly #kube: Kube;
  readonly #options: RecorderOptions;
  readonly #series = new Map<string, EventSeries>();
  readonly #buckets = new Map<string, TokenBucket>();
  readonly #all: TokenBucket;
  readonly #due = new Set<EventSeries>();
  readonly #work = new Trigger();
  #idle: (() => void)[] = [];
  #sending = false;
  dropped = 0;

  constructor(kube: Kube, options: RecorderOptions) {
    this.#kube = kube;
    this.#options = options;
    this.#all = new TokenBucket({ clock: options.clock, burst: BURST_OF_ALL, refillMs: REFILL_OF_ALL_MS });
    void this.#run()
      .catch(() => undefined)
      .finally(() => this.#settle());
  }

  event(about: EventSubject, type: 'Normal' | 'Warning', reason: string, text: string): void {
    const message = safeMessage(text);
    const now = this.#options.clock.now();
    if (!this.#mayAdd(about)) {
      this.dropped += 1;
      return;
    }
    const key = [keyOf(about), about.uid, type, reason, message].join('|');
    const known = this.#series.get(key);
    const joins = known !== undefined && now - known.last < WINDOW_MS;
    const series = joins ? known : { about, type, reason, message, first: now, last: now, count: 0, name: undefined };
    series.last = now;
    series.count += 1;
    this.#series.delete(key);
    this.#series.set(key, series);
    forgetOldest(this.#series);
    this.#due.add(series);
    this.#work.fire();
  }

  flush(): Promise<void> {
    if (this.#options.signal.aborted || (this.#due.size === 0 && !this.#sending)) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #mayAdd(about: EventSubject): boolean {
    const key = keyOf(about);
    const bucket =
      this.#buckets.get(key) ?? new TokenBucket({ clock: this.#options.clock, burst: BURST, refillMs: REFILL_MS });
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    forgetOldest(this.#buckets);
    return bucket.tryTake() && this.#all.tryTake();
  }

  async #run(): Promise<void> {
    const { signal } = this.#options;
    for (;;) {
      await this.#work.wait(signal);
      for (const series of this.#due) {
        this.#due.delete(series);
        this.#sending = true;
        await this.#send(series);
        this.#sending = false;
      }
      this.#settle();
    }
  }

  #settle(): void {
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  async #send(series: EventSeries): Promise<void> {
    const { log, signal } = this.#options;
    try {
      if (series.name !== undefined && (await this.#count(series))) return;
      const event = this.#eventOf(series);
      await this.#kube.create(event, { fieldManager: FIELD_MANAGER }, signal);
      series.name = event.metadata.name;
    } catch (error) {
      this.dropped += 1;
      log.debug({ about: describe(series.about), reason: series.reason, err: error }, 'could not record an Event');
    }
  }

  /** False when the Event has expired in the meantime: an hour, by default. */
  async #count(series: EventSeries): Promise<boolean> {
    const ref = { apiVersion: 'v1', kind: 'Event', namespace: namespaceOf(series.about), name: series.name ?? '' };
    const patch = { count: series.count, lastTimestamp: seconds(series.last) };
    try {
      await this.#kube.merge(ref, patch, { fieldManager: FIELD_MANAGER }, this.#options.signal);
      return true;
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return false;
      throw error;
    }
  }

  #eventOf(series: EventSeries): KubeObject {
    const { component, instance } = this.#options;
    const { about, type, reason, first, last, count } = series;
    const { apiVersion, kind, name, uid } = about;
    const namespace = namespaceOf(about);
    const unique = createHash('sha256')
      .update([keyOf(about), reason, series.message, first, instance].join('|'))
      .digest('hex');
    return {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: `${name.slice(0, 230)}.${unique.slice(0, 16)}`, namespace },
      involvedObject: { apiVersion, kind, name, namespace: about.namespace, uid },
      type,
      reason,
      message: series.message.slice(0, LONGEST),
      source: { component },
      firstTimestamp: seconds(first),
      lastTimestamp: seconds(last),
      count,
      reportingComponent: component,
      reportingInstance: instance,
    };
  }
}

/** Events about objects without a namespace are in `default`. */
const namespaceOf = (about: ObjectRef): string => about.namespace ?? 'default';
const seconds = (epochMs: number): string => new Date(epochMs).toISOString().replace(/\.\d+Z$/, 'Z');

function forgetOldest(map: Map<string, unknown>): void {
  for (const key of map.keys()) {
    if (map.size <= REMEMBERED) return;
    map.delete(key);
  }
}
