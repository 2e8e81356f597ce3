import { isDeepStrictEqual } from 'node:util';
import type { PublicationStatus } from '../core/status.ts';
import type { RouteRequest, StandIns } from '../gateway/gateway.ts';
import { KubeError } from '../kube/transport/error.ts';
import { codeOf } from '../mesh/error.ts';
import { describe, fields, isKindOf, type KubeObject, keyOf, refOf } from '../objects/objects.ts';
import { retryConflicts, tryAll, waitFor } from './apply.ts';
import type { UpstreamFinding } from './discover.ts';
import { backFrom, backPatch, type Joined, type Moving, moved, movePatch, ONBOARD_FIELD_MANAGER } from './moves.ts';
import type { OnboardOptions } from './plan.ts';
import { ask, describeAnswer, isBroken, isWorse, type OnboardAnswer } from './request.ts';
import { OnboardError } from './snapshot.ts';

interface MoveResult {
  /** Absent: it is moved. Otherwise it is either not changed, or restored. */
  readonly code?: string;
  readonly message: string;
}

/**
 * Moves one route: presents the pair to its upstream, writes once, checks whether requests arrive, and restores it
 * otherwise.
 */
export async function moveOne(
  upstream: UpstreamFinding,
  outcome: Moving,
  joined: Joined,
  options: OnboardOptions,
): Promise<MoveResult> {
  const { kube, signal, gatewayUrl } = options;
  const ref = refOf(upstream.route);
  const trial = options.probe ? await tryAll(joined, outcome, upstream, options) : undefined;
  if (trial && trial.code !== 'accepted') {
    const reach = ['ERR_PROBE_UNREACHABLE', 'ERR_PROBE_TIMEOUT'].includes(trial.code);
    const hint = reach ? '; run this inside the cluster, or use --connect-to, or --no-probe' : '';
    return { code: trial.code, message: `not moved: ${trial.message}${hint}` };
  }
  const live = await kube.get(ref, signal);
  const isSame = (field: string) => isDeepStrictEqual(fields(live?.spec)[field], fields(upstream.route.spec)[field]);
  if (!live || !Object.keys(outcome.move.fields).every(isSame)) {
    return { code: 'ERR_KUBE_CONFLICT', message: 'not moved: it was changed in the meantime; run this again' };
  }
  const watched = gatewayUrl === undefined ? [] : await answersBefore(gatewayUrl, upstream.requests, options);
  const next = moved(live, outcome.move);
  try {
    await kube.apply(movePatch(next, outcome.move), { fieldManager: ONBOARD_FIELD_MANAGER, force: true }, signal);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    return { code: error.code, message: `not moved: ${error.message}` };
  }
  try {
    await confirm(live, joined, options);
    const { settleMs = joined.gateway.onboarding.settleMs } = options;
    const peer = trial?.peer[0];
    const said = [peer && `meets ${peer}`, await watchRequests(watched, settleMs, options)];
    return { message: said.filter(Boolean).join(', ') };
  } catch (error) {
    signal.throwIfAborted();
    await retryConflicts(() => putBack(live, joined, outcome.to?.objects ?? [], options), 0, options);
    const message = error instanceof Error ? error.message : String(error);
    return { code: codeOf(error, 'ERR_ONBOARD_NOT_CONFIRMED'), message: `reverted: ${message}` };
  }
}

/** Long enough for a watch that was just reopened. */
const CONFIRM_MS = 20_000;
/** A gateway may read a route before what it leads to; requests fail meanwhile. */
const REFUSED_MS = 2_000;

type PendingRoute = NonNullable<ReturnType<StandIns['pending']>>;

/** Waits until the agent, or the gateway where it leads to stand-ins, reports that the route is as desired. */
async function confirm(route: KubeObject, { certificate, gateway }: Joined, options: OnboardOptions): Promise<void> {
  const { name, namespace } = route.metadata;
  const { standIns, routes } = gateway.onboarding;
  const resource = routes.find(isKindOf(route));
  if (standIns && resource) {
    const used = [{ ref: refOf(route), resource }];
    const until = (isDone: (pending: PendingRoute) => boolean, timeoutMs: number) =>
      waitFor(
        [certificate],
        (existing) => {
          const live = existing.get(keyOf(refOf(route)));
          const pending = live && standIns.pending(live);
          return pending === undefined || isDone(pending) ? [] : [`waiting for ${pending.why}`];
        },
        options,
        timeoutMs,
        used,
      );
    await until(({ refused }) => refused, CONFIRM_MS);
    return until(() => false, REFUSED_MS);
  }
  const key = keyOf(refOf(certificate));
  await waitFor(
    [certificate],
    (existing) => {
      const status = existing.get(key)?.status as PublicationStatus | undefined;
      const entry = status?.mappings?.find(
        (one) => one.kind === route.kind && one.name === name && one.namespace === namespace,
      );
      if (entry?.state === 'ok') return [];
      // It may be about the previous state of the route: only a lasting report counts.
      const says = entry?.state.startsWith('ERR_') ? `, which says ${entry.state}: ${entry.message}` : '';
      return [`waiting for the agent to confirm ${describe(refOf(route))}${says}`];
    },
    options,
    CONFIRM_MS,
  );
}

/** Between two requests while a move is watched. */
const REQUEST_PAUSE_MS = 250;
const TRIES_BEFORE = 3;
/** Fewer may be caused by the change itself, while the gateway prepares the new route. */
const BAD_IN_A_ROW = 3;
/** The change causes no refusals by an upstream: as many at any time are the upstream's answer, perhaps of one pod. */
const MOST_REFUSALS = 3;

/** One request, and what answered it before the move; a text: why none is sent. */
type Watched = { readonly send: () => Promise<OnboardAnswer>; readonly before: readonly OnboardAnswer[] } | string;

async function answersBefore(
  gatewayUrl: string,
  requests: readonly RouteRequest[] | string,
  { clock, signal }: OnboardOptions,
): Promise<readonly Watched[]> {
  if (typeof requests === 'string') return [requests];
  return Promise.all(
    requests.map(async (request) => {
      const send = () => ask(gatewayUrl, request, clock, signal);
      const before = [await send()];
      while (before.length < TRIES_BEFORE) {
        await clock.sleep(REQUEST_PAUSE_MS, signal);
        before.push(await send());
      }
      const closed = before.find((one) => 'unreachable' in one);
      if (!closed || !('port' in request)) return { send, before };
      return `port ${request.port} of the gateway cannot be reached from here: ${describeAnswer(closed)}`;
    }),
  );
}

/** For people: what answers now, and what was not tried. Throws if one answer is worse than before the move. */
async function watchRequests(watched: readonly Watched[], settleMs: number, options: OnboardOptions): Promise<string> {
  if (watched.length > 0) options.say.waiting(`requests through the gateway (${Math.round(settleMs / 1000)} s)`);
  const said = await Promise.all(
    watched.map((one) =>
      typeof one === 'string' ? `not tried through the gateway: ${one}` : watchOne(one, settleMs, options),
    ),
  );
  return [...new Set(said)].join(', ');
}

async function watchOne(
  { send, before }: Exclude<Watched, string>,
  settleMs: number,
  { clock, signal }: OnboardOptions,
): Promise<string> {
  const end = clock.monotonic() + settleMs;
  // Requests that failed before the move may continue to fail until the gateway has loaded the change.
  const patience = before.every(isBroken) ? Number.POSITIVE_INFINITY : BAD_IN_A_ROW;
  let [bad, refusals, sent] = [0, 0, 0];
  for (;;) {
    const answer = await send();
    sent += 1;
    bad = isWorse(answer, before) ? bad + 1 : 0;
    if (bad > 0 && !isBroken(answer)) refusals += 1;
    const over = clock.monotonic() >= end;
    if (bad >= patience || refusals >= MOST_REFUSALS || (over && bad > 0)) {
      const was = [...new Set(before.map(describeAnswer))].join(' or ');
      const message = `requests through the gateway got worse: ${describeAnswer(answer)} after ${sent} requests, and before the move ${was}`;
      throw new OnboardError('ERR_ONBOARD_NOT_CONFIRMED', message);
    }
    if (over) return describeAnswer(answer);
    await clock.sleep(REQUEST_PAUSE_MS, signal);
  }
}

async function putBack(
  route: KubeObject,
  { gateway }: Joined,
  standIns: readonly KubeObject[],
  { kube, signal }: OnboardOptions,
): Promise<void> {
  const live = await kube.get(refOf(route), signal);
  const patch = live && (backFrom(standIns, live, gateway) ?? backPatch(live));
  if (patch) await kube.merge(refOf(route), patch, { fieldManager: ONBOARD_FIELD_MANAGER }, signal);
}
