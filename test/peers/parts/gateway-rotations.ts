import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { type Place, type Site, startGatewayTraffic } from './gateway-traffic.ts';
import { type Load, startLoad } from './load.ts';
import { overlapRoots, type RootRotation, rotateRoots } from './root-rotation.ts';

/** A leaf is renewed every five seconds; workloads renew at half of its life, which is less than a step. */
export const LEAF_MS = 30_000;
export const ROOTS: RootRotation = { stepMs: 17_000, everyMs: 60_000 };
const MINUTE = 60_000;
/** As long as the Gateway waits. */
export const PATIENCE_MS = MINUTE;

export interface SiteSummary {
  readonly place: Place;
  readonly answered: number;
  readonly failed: number;
  readonly failures: readonly string[];
  /** Seen by the upstream: connections without TLS, and those that it refused. */
  readonly plaintext: number;
  readonly refused: number;
  /** Leaves that were published, and those that the upstream has seen. */
  readonly leaves: number;
  readonly presented: number;
  readonly violations: readonly string[];
}

export interface RotationSummary {
  readonly sites: readonly SiteSummary[];
  readonly roots: number;
  /** How often the agent was killed. */
  readonly kills: number;
  readonly refusals: readonly string[];
  readonly log: string;
  readonly line: string;
}

export interface RotationOptions {
  readonly durationMs: number;
  readonly places: readonly Place[];
  /** Requests a second through each Gateway. */
  readonly perSecond: number;
  /** Default: `LEAF_MS` and `ROOTS`. A step is longer than half of a leaf's life. */
  readonly leafMs?: number;
  readonly rootRotation?: RootRotation;
  /** The agent is killed this long after each start. Default: never. */
  readonly killAfterMs?: number;
}

/** Load through a real Envoy Gateway while leaves rotate every five seconds and roots every minute. */
export async function runGatewayRotations(options: RotationOptions): Promise<RotationSummary> {
  const { durationMs, places, perSecond, killAfterMs, leafMs = LEAF_MS, rootRotation = ROOTS } = options;
  await using traffic = await startGatewayTraffic({ places, leafMs });
  const { agent, ca, sites } = traffic;
  const before = sites.map(({ upstream }) => ({ ...upstream.counts }));
  const loads = sites.map(({ url }) => startLoad(url, '', perSecond, PATIENCE_MS));
  const stop = new AbortController();
  await using _loads = {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all(loads.map((load) => load.stop()));
    },
  };
  const disturbing = Promise.all([
    rotateRoots((pause) => overlapRoots(ca.istio, pause), rootRotation, stop.signal),
    killAfterMs === undefined ? 0 : killRepeatedly(killAfterMs),
  ]);
  disturbing.catch(() => {});
  const stalls = monitorEventLoopDelay({ resolution: 100 });
  stalls.enable();
  const started = performance.now();
  for (let minutes = 1; performance.now() - started < durationMs; ) {
    await Promise.race([delay(1_000), disturbing]);
    if (performance.now() - started > minutes * MINUTE) {
      console.log(
        `${minutes} min: stalled ${(stalls.max / 1e9).toFixed(1)} s at most; ${loads.map(describeLoad).join('; ')}`,
      );
      minutes += 1;
    }
  }
  await Promise.all(loads.map((load) => load.stop()));
  stop.abort();
  const [roots, kills] = await disturbing;
  const seen = sites.map((site, n) => summaryOf(site, loads[n], before[n]));
  return {
    ...{ roots, kills, sites: seen },
    refusals: await traffic.agent.refusals(),
    log: agent.log(),
    line: `${Math.round(durationMs / 1000)} s, ${roots} roots, agent killed ${kills} times, this process stalled for ${(stalls.max / 1e9).toFixed(1)} s at most; ${seen.map(describe).join('; ')}`,
  };

  /** At a later moment of its life each time, so that each step of a rotation is met. */
  async function killRepeatedly(afterMs: number): Promise<number> {
    let killed = 0;
    try {
      for (;;) {
        await delay(afterMs + (killed % 8) * 700, undefined, { signal: stop.signal });
        await agent.kill('SIGKILL');
        killed += 1;
        await agent.restart();
      }
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    }
    return killed;
  }
}

function summaryOf(
  { place, upstream, pair }: Site,
  load: Load | undefined,
  before: SandboxUpstreamCounts | undefined,
): SiteSummary {
  if (!load || !before) throw new TypeError('each site has a load');
  const { counts } = upstream;
  return {
    ...{ place, answered: load.answered, failed: load.failed, failures: load.failures },
    plaintext: counts.plaintext - before.plaintext,
    refused: counts.handshakeFailures + counts.refused - before.handshakeFailures - before.refused,
    ...{ leaves: pair.leaves.length, presented: upstream.peers.size, violations: pair.violations },
  };
}

type SandboxUpstreamCounts = Site['upstream']['counts'];

const describeLoad = ({ answered, failed, failures }: Load): string =>
  `${answered} answered, ${failed} failed ${failures.join(', ')}`;

const describe = (one: SiteSummary): string =>
  `${one.place}: ${one.answered} answered, ${one.failed} failed, ${one.plaintext} plaintext, ${one.refused} refused, ` +
  `${one.leaves} leaves, ${one.presented} presented`;
