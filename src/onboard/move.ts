import { isDeepStrictEqual } from 'node:util';
import type { PublicationStatus } from '../core/status.ts';
import type { RouteRequest, StandIns } from '../gateway/gateway.ts';
import { KubeError } from '../kube/transport/error.ts';
import { codeOf } from '../mesh/error.ts';
import { describe, fields, type KubeObject, keyOf, refOf } from '../objects/objects.ts';
import { type TrialOptions, tryAll, type WaitOptions, waitFor } from './apply.ts';
import {
  backFrom,
  backPatch,
  type Joined,
  type MoveVerdict,
  moved,
  movePatch,
  ONBOARD_FIELD_MANAGER,
} from './moves.ts';

import { ask, describeAnswer, isBroken, isWorse, type OnboardAnswer } from './request.ts';
import { OnboardError } from './snapshot.ts';

export interface MoveOptions extends WaitOptions, TrialOptions {
  /** Present the pair to the upstream first. */
  readonly probe: boolean;
  /** Where clients reach the gateway; absent: only the agent's confirmation is awaited. */
  readonly gatewayUrl: string | undefined;
  /** How long requests through the gateway are watched after a move; absent: as long as the gateway needs. */
  readonly settleMs?: number | undefined;
}

export type MoveResult =
  | { readonly ok: true; readonly message: string }
  /** Either not changed, or restored. */
  | { readonly ok: false; readonly code: string; readonly message: string };

/**
 * Moves one route: presents the pair to its upstream, writes once, checks whether requests arrive, and restores it
 * otherwise.
 */
export async function moveOne(
  { upstream, outcome }: MoveVerdict,
  joined: Joined,
  options: MoveOptions,
): Promise<MoveResult> {
  if (outcome.kind !== 'move') throw new TypeError('only a route that moves is moved');
  const { kube, clock, say, signal, gatewayUrl } = options;
  const ref = refOf(upstream.route);
  const trial = options.probe ? await tryAll(joined, outcome, upstream, options) : undefined;
  if (trial && trial.code !== 'accepted') {
    const reach = ['ERR_PROBE_UNREACHABLE', 'ERR_PROBE_TIMEOUT'].includes(trial.code);
    const hint = reach ? '; run this inside the cluster, or use --connect-to, or --no-probe' : '';
    return { ok: false, code: trial.code, message: `not moved: ${trial.message}${hint}` };
  }
  const live = await kube.get(ref, signal);
  const isSame = (field: string) => isDeepStrictEqual(fields(live?.spec)[field], fields(upstream.route.spec)[field]);
  if (!live || !Object.keys(outcome.move.fields).every(isSame)) {
    return {
      ok: false,
      code: 'ERR_KUBE_CONFLICT',
      message: 'not moved: it was changed in the meantime; run this again',
    };
  }
  const watched = gatewayUrl === undefined ? [] : await answersBefore(gatewayUrl, upstream.requests, options);
  const next = moved(live, outcome.move);
  try {
    await kube.apply(movePatch(next, outcome.move), { fieldManager: ONBOARD_FIELD_MANAGER, force: true }, signal);
  } catch (error) {
    if (!(error instanceof KubeError)) throw error;
    return { ok: false, code: error.code, message: `not moved: ${error.message}` };
  }
  try {
    await confirm(live, joined, options);
    const { settleMs = joined.gateway.onboarding.settleMs } = options;
    const peer = trial?.peer[0];
    const said = [peer && `meets ${peer}`, await watchRequests(watched, { clock, say, signal, settleMs })];
    return { ok: true, message: said.filter(Boolean).join(', ') };
  } catch (error) {
    signal.throwIfAborted();
    await putBack(live, joined, outcome.to?.objects ?? [], options);
    const message = error instanceof Error ? error.message : String(error);
    return {
      ok: false,
      code: codeOf(error, 'ERR_ONBOARD_NOT_CONFIRMED'),
      message: `reverted: ${message}`,
    };
  }
}

/** Long enough for a watch that was just reopened. */
const CONFIRM_MS = 20_000;
/** A gateway may read a route before what it leads to; requests fail meanwhile. */
const REFUSED_MS = 2_000;

type PendingRoute = NonNullable<ReturnType<StandIns['pending']>>;

/** Waits until the agent, or the gateway where it leads to stand-ins, reports that the route is as desired. */
async function confirm(route: KubeObject, { certificate, gateway }: Joined, options: WaitOptions): Promise<void> {
  const { kube, clock, random, say, signal } = options;
  const { name, namespace } = route.metadata;
  const { standIns, routes } = gateway.onboarding;
  const resource = routes.find(({ kind, apiVersion }) => kind === route.kind && apiVersion === route.apiVersion);
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
        { kube, clock, random, say, signal, timeoutMs },
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
    { kube, clock, random, say, signal, timeoutMs: CONFIRM_MS },
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

type WatchOptions = Pick<MoveOptions, 'clock' | 'say' | 'signal'> & { readonly settleMs: number };

async function answersBefore(
  gatewayUrl: string,
  requests: readonly RouteRequest[] | string,
  { clock, signal }: MoveOptions,
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
async function watchRequests(watched: readonly Watched[], options: WatchOptions): Promise<string> {
  if (watched.length > 0)
    options.say.waiting(`requests through the gateway (${Math.round(options.settleMs / 1000)} s)`);
  const said = await Promise.all(
    watched.map((one) => (typeof one === 'string' ? `not tried through the gateway: ${one}` : watchOne(one, options))),
  );
  return [...new Set(said)].join(', ');
}

async function watchOne(
  { send, before }: Exclude<Watched, string>,
  { clock, settleMs, signal }: WatchOptions,
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

const BACK_TRIES = 5;

async function putBack(
  route: KubeObject,
  { gateway }: Joined,
  standIns: readonly KubeObject[],
  { kube, signal }: MoveOptions,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const live = await kube.get(refOf(route), signal);
    const patch = live && (backFrom(standIns, live, gateway) ?? backPatch(live));
    if (!patch) return;
    try {
      await kube.merge(refOf(route), patch, { fieldManager: ONBOARD_FIELD_MANAGER }, signal);
      return;
    } catch (error) {
      // A controller that writes the status of the route changes its version too.
      const conflict = error instanceof KubeError && error.code === 'ERR_KUBE_CONFLICT';
      if (!conflict || attempt >= BACK_TRIES) throw error;
    }
  }
}
