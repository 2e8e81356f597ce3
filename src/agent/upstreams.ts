import { isDeepStrictEqual } from 'node:util';
import type { Semaphore } from '../async/limits.ts';
import { type LinkedSignal, linkedTo } from '../async/linked-signal.ts';
import { Trigger } from '../async/trigger.ts';
import { type AllowList, refusedAddress } from '../config/allow.ts';
import type { UpstreamsSpec } from '../config/schema/mesh-certificate.ts';
import type { CheckedUpstreams, Decision } from '../core/decide.ts';
import { codedProblem, type Problem } from '../core/problem.ts';
import type { UpstreamStatus } from '../core/status.ts';
import type { RouteDestination, RouteState } from '../gateway/gateway.ts';
import type { Kube } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Adapter, TlsDefaults } from '../mesh/adapter.ts';
import { type PeerName, peerNameText, type Workload } from '../mesh/cluster.ts';
import type { Identity } from '../mesh/identity.ts';
import type { Runtime } from '../mesh/log.ts';
import { safeMessage } from '../mesh/secrets.ts';
import { fields, text } from '../objects/objects.ts';
import type { Certificate } from '../pki/certificate.ts';
import { type ProbeResult, probe } from '../probe/probe.ts';

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

interface ExpectedFrom {
  readonly kube: Kube;
  readonly adapter: Adapter;
  readonly spec: UpstreamsSpec;
}

/** The identities of which an upstream must present one, or why they are not known. */
type ExpectedPeer = { readonly ids: readonly string[] } | Problem;

const LISTED = 'list it in spec.upstreams.identities';

/** What the user listed, else what the mesh or the gateway names, else what follows from the pods behind the Service. */
export async function expectedAt(
  upstream: RouteDestination,
  identity: Pick<Identity, 'id'>,
  { kube, adapter, spec }: ExpectedFrom,
  signal: AbortSignal,
): Promise<ExpectedPeer> {
  const listed = spec.identities.filter(({ service }) => isNamed(service, upstream)).flatMap(({ ids }) => ids);
  if (listed.length > 0) return { ids: listed };
  if (upstream.id !== undefined) return { ids: [upstream.id] };
  const named = (names: readonly PeerName[] = []) => names.flatMap((name) => peerNameText(name, identity.id) ?? []);
  const accepted = named(upstream.names);
  if (accepted.length > 0) return { ids: accepted };
  const { peer } = adapter;
  const { service } = upstream;
  if (!spec.serviceAccounts || !peer || !service) {
    const or = peer && service ? ', or set spec.upstreams.serviceAccounts' : '';
    return unnamed(`nothing says which identity is expected; ${LISTED}${or}`);
  }
  try {
    const pods = await podsBehind(service, kube, signal);
    if ('code' in pods) return pods;
    const names: PeerName[] = [];
    for (const pod of pods) {
      const name = peer(pod, service.name);
      if ('code' in name) return name;
      names.push(name);
    }
    const ids = [...new Set(named(names))].sort();
    return ids.length > 0 ? { ids } : unnamed(`${adapter.title} names no identity for its pods; ${LISTED}`);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    const { code, message } = codedProblem(error);
    return { code, message: `the pods behind it cannot be read: ${message}; or ${LISTED}` };
  }
}

async function podsBehind(
  { namespace, name }: NonNullable<RouteDestination['service']>,
  kube: Kube,
  signal: AbortSignal,
): Promise<readonly Workload[] | Problem> {
  const found = await kube.get({ apiVersion: 'v1', kind: 'Service', namespace, name }, signal);
  const selector = Object.entries(fields(fields(found?.spec).selector));
  if (selector.length === 0) {
    return unnamed(`Service ${namespace}/${name} ${found ? 'selects no pods' : 'does not exist'}; ${LISTED}`);
  }
  const labelSelector = selector.map(([key, value]) => `${key}=${value}`).join(',');
  const { items } = await kube.list(RESOURCES.pods, { namespace, labelSelector }, signal);
  if (items.length === 0) return unnamed(`Service ${namespace}/${name} has no pods; start them, or ${LISTED}`);
  return items.map(({ metadata: { name: pod, labels = {}, annotations = {} }, spec }) => {
    const serviceAccount = text(fields(spec).serviceAccountName) ?? 'default';
    return { name: pod, namespace, serviceAccount, labels, annotations };
  });
}

/** `entry`: `web.shop`, `web.shop.svc.cluster.local`, another host, or one of these with a port. */
function isNamed(entry: string, { address, service }: RouteDestination): boolean {
  const [host, port] = splitPort(entry);
  const [givenHost, givenPort] = splitPort(address);
  if (port !== undefined && port !== givenPort) return false;
  if (host === givenHost) return true;
  const [name, namespace, svc] = host.split('.');
  return service !== undefined && service.name === name && service.namespace === namespace && (svc ?? 'svc') === 'svc';
}

function splitPort(host: string): readonly [string, string | undefined] {
  const [, name = host, port] =
    /^(.*?)(?::(\d+))?$/.exec(host.includes(']') || host.split(':').length <= 2 ? host : '') ?? [];
  return [name.toLowerCase(), port];
}

const unnamed = (message: string): Problem => ({ code: 'ERR_UPSTREAM_UNNAMED', message });

/** A certificate may carry thousands of names. */
const LONGEST = 300;

/** What one handshake with an upstream shows. */
function sightOf(address: string, result: ProbeResult, expected: ExpectedPeer): UpstreamStatus {
  const { code, peer } = result;
  const known = 'ids' in expected ? expected.ids.find((id) => peer.includes(id)) : undefined;
  const id = shown(known ?? peer[0]);
  const found = (state: string, message: string): UpstreamStatus => ({
    address,
    state,
    ...(id === undefined ? {} : { id }),
    message: safeMessage(message),
  });
  if (code === 'ERR_PROBE_UPSTREAM_UNTRUSTED') {
    return found(code, `${result.message}; check that the workload behind ${address} is in this mesh`);
  }
  // An upstream that refuses our certificate after it has shown its own has answered the question.
  const hasAnswered = code === 'accepted' || (code === 'ERR_PROBE_REFUSED' && peer.length > 0);
  if (!hasAnswered) return found(code, `${result.message}; the identity of the upstream is unknown`);
  const presents = `${address} presents ${shown(peer.join(', ')) ?? 'no name that can be read'}`;
  if (!('ids' in expected)) return found(expected.code, `${presents}; ${expected.message}`);
  if (known !== undefined) return { address, state: 'ok', id: shown(known) ?? known };
  const next = 'if that workload is the right one, list it in spec.upstreams.identities, else find out who replaced it';
  return found('ERR_PROBE_UPSTREAM_ID', `${presents}, not ${expected.ids.join(' or ')}; ${next}`);
}

/** Text of the upstream's choice: one line, not endless; undefined if there is none. */
function shown(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined;
  const line = text.replace(/[^ -~]+/g, '?');
  return line.length <= LONGEST ? line : `${line.slice(0, LONGEST - 3)}...`;
}
