import { isDeepStrictEqual } from 'node:util';
import { type LinkedSignal, linkedTo } from '../../async/linked-signal.ts';
import type { Semaphore } from '../../async/semaphore.ts';
import { Trigger } from '../../async/trigger.ts';
import { type AllowList, refusedAddress } from '../../config/allow.ts';
import type { UpstreamsSpec } from '../../config/schema/mesh-certificate.ts';
import type { Decision } from '../../core/decision/decide.ts';
import type { CheckedUpstreams } from '../../core/decision/upstreams-of.ts';
import type { UpstreamStatus } from '../../core/status.ts';
import type { RouteDestination, RouteState } from '../../gateway/gateway.ts';
import type { Kube } from '../../kube/api.ts';
import type { Adapter, TlsDefaults } from '../../mesh/adapter.ts';
import type { Identity } from '../../mesh/identity.ts';
import type { Runtime } from '../../mesh/log.ts';
import type { Certificate } from '../../pki/certificate.ts';
import { probe } from '../../probe/probe.ts';
import { expectedAt } from './expected.ts';
import { sightOf } from './sight.ts';

interface UpstreamWatchOptions {
  readonly env: Runtime & {
    readonly kube: Kube;
    readonly allow: AllowList;
    /** Limits the handshakes of all MeshCertificates together. */
    readonly handshakes: Semaphore;
  };
  readonly adapter: Adapter;
  readonly spec: UpstreamsSpec;
  /** How the gateway speaks to the mesh. */
  readonly tls: TlsDefaults;
  /** Somebody else answers, or it is known now who does. */
  readonly changed: () => void;
}

interface Observation {
  readonly leading: boolean;
  readonly decision: Pick<Decision, 'publishedIdentity' | 'upstreamTrust'> | undefined;
  readonly routes: readonly RouteState[];
}

/** What the gateway uses now. */
interface InUse {
  readonly identity: Identity;
  readonly bundle: readonly Certificate[];
  readonly upstreams: readonly RouteDestination[];
}

/** The share of the interval within which the first checks after a start begin. */
const FIRST = 0.1;
/** Checks are spread by this share of the interval, and are never further apart than the interval. */
const SPREAD = 0.1;

interface CheckedUpstream {
  readonly upstream: RouteDestination;
  /** Monotonic milliseconds. */
  due: number;
  isRunning: boolean;
  found: UpstreamStatus | undefined;
}

/**
 * Checks at intervals who answers behind the routes of one MeshCertificate. It reads and reports only: nothing waits
 * for it.
 */
export class UpstreamWatch {
  readonly #options: UpstreamWatchOptions;
  readonly #news = new Trigger();
  #checked: readonly CheckedUpstream[] = [];
  #inUse: InUse | undefined;
  #stop: LinkedSignal | undefined;

  constructor(options: UpstreamWatchOptions) {
    this.#options = options;
  }

  /** One entry for each address, in order. */
  get state(): CheckedUpstreams {
    const found = this.#checked.flatMap((one) => one.found ?? []);
    const addresses = new Set(this.#checked.map(({ upstream }) => upstream.address));
    return { addresses: this.#inUse ? [...addresses] : undefined, found };
  }

  /**
   * Only the leader checks, with what is published: `decision` is absent while that changes, and the checks continue
   * with the pair before.
   */
  observe({ leading, decision, routes }: Observation, signal: AbortSignal): void {
    if (!leading) this.stop();
    if (!leading || !decision?.publishedIdentity) return;
    const upstreams = routes.flatMap((route) => route.upstreams ?? []);
    this.#follow({ identity: decision.publishedIdentity, bundle: decision.upstreamTrust.bundle, upstreams }, signal);
  }

  /** Continues with this; what is not in use any more is forgotten. */
  #follow(inUse: InUse, signal: AbortSignal): void {
    this.#inUse = inUse;
    const known = new Map(this.#checked.map((one) => [keyOf(one.upstream), one]));
    const wanted = new Map(inUse.upstreams.map((one) => [keyOf(one), one]));
    if (known.size !== wanted.size || [...wanted.keys()].some((key) => !known.has(key))) {
      const { clock, random } = this.#options.env;
      const first = () => clock.monotonic() + this.#options.spec.intervalMs * FIRST * random();
      this.#checked = [...wanted]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, upstream]) => known.get(key) ?? { upstream, due: first(), isRunning: false, found: undefined });
      this.#news.fire();
    }
    if (this.#stop || this.#checked.length === 0) return;
    this.#stop = linkedTo(signal);
    void this.#run(this.#stop.signal);
  }

  /** Another replica leads, or the reconciler ends. What was found is out of date when this one leads again. */
  stop(): void {
    this.#stop?.abort(new Error('stopped'));
    this.#stop?.[Symbol.dispose]();
    this.#stop = undefined;
    this.#inUse = undefined;
    this.#checked = [];
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.env;
    try {
      while (!signal.aborted) {
        const now = clock.monotonic();
        const waiting = this.#checked.filter(({ isRunning }) => !isRunning);
        for (const one of waiting) if (one.due <= now) void this.#check(one, signal);
        const next = Math.min(...waiting.map(({ due }) => due).filter((due) => due > now));
        if (Number.isFinite(next)) await this.#news.waitFor(next - now, clock, signal);
        else await this.#news.wait(signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  async #check(one: CheckedUpstream, signal: AbortSignal): Promise<void> {
    const { env, spec, changed } = this.#options;
    const { clock, random, log, handshakes } = env;
    one.isRunning = true;
    one.due = clock.monotonic() + spec.intervalMs * (1 - SPREAD * random());
    try {
      using _turn = await handshakes.take(signal);
      const found = await this.#look(one.upstream, signal);
      if (signal.aborted || !found || isDeepStrictEqual(found, one.found)) return;
      one.found = found;
      changed();
    } catch (err) {
      if (!signal.aborted) log.error({ err, upstream: one.upstream.address }, 'an upstream could not be checked');
    } finally {
      one.isRunning = false;
      if (!signal.aborted) this.#news.fire();
    }
  }

  async #look(upstream: RouteDestination, signal: AbortSignal): Promise<UpstreamStatus | undefined> {
    const { env, adapter, spec, tls } = this.#options;
    const { address, sni } = upstream;
    if (!this.#inUse) return undefined;
    const { identity, bundle } = this.#inUse;
    const refused = refusedAddress(address, env.allow);
    if (refused !== undefined) return { address, state: 'ERR_NOT_ALLOWED', message: refused };
    const expected = await expectedAt(upstream, identity, { kube: env.kube, adapter, spec }, signal);
    const result = await probe({ address, sni }, identity, bundle, { clock: env.clock, tls, signal });
    return sightOf(address, result, expected);
  }
}

const keyOf = ({ address, sni, id, names, service }: RouteDestination): string =>
  JSON.stringify([address, sni, id, names, service?.namespace, service?.name]);
