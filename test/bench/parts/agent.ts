import { setMaxListeners } from 'node:events';
import { adapters } from '../../../adapters/index.ts';
import { Agent } from '../../../src/agent/agent.ts';
import { alone } from '../../../src/agent/election.ts';
import type { Report, Sink } from '../../../src/agent/reporter.ts';
import { EventSink, LogSink, MetricsSink, StatusBoard } from '../../../src/agent/sinks.ts';
import { customResources } from '../../../src/agent/source.ts';
import { StatusWriter } from '../../../src/agent/status-writer.ts';
import { WritePriority } from '../../../src/agent/write-order.ts';
import { systemClock } from '../../../src/async/clock.ts';
import { ALLOW_ANY, ANY } from '../../../src/config/allow.ts';
import type { PublicationStatus } from '../../../src/core/status.ts';
import { gateways } from '../../../src/gateways.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { connect } from '../../../src/kube/client.ts';
import { recorder } from '../../../src/kube/events.ts';
import { keyOf, refOf } from '../../../src/objects/objects.ts';
import { opensslPreflight } from '../../../src/preflight/preflight.ts';
import { createLog } from '../../../src/telemetry/log.ts';
import { createMetrics } from '../../../src/telemetry/metrics.ts';
import { servePart } from './part.ts';

export const AGENT_AGENT = 'meshcert-bench';

const QUIET_MS = 1_000;

export interface AgentOptions {
  readonly kubeconfig: string;
  readonly namespace: string;
  /** The index of this process: each takes the MeshCertificates whose number has this remainder. */
  readonly shard: number;
  readonly shards: number;
}

/** Records when each publication was last read back, and when the last status was written. */
class Progress implements Sink {
  readonly inForce = new Set<string>();
  rotated = 0;
  statusWrites = 0;
  #wake: () => void = () => {};

  status(_status: PublicationStatus, _before: PublicationStatus | undefined, report: Report): void {
    if (report.inForce) this.inForce.add(keyOf(refOf(report.certificate)));
    if (report.rotation?.kind === 'leaf') this.rotated += 1;
    this.#wake();
  }

  wroteStatus(): void {
    this.statusWrites += 1;
    this.#wake();
  }

  async until(holds: () => boolean): Promise<number> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return performance.now();
  }
}

const stop = new AbortController();
setMaxListeners(0, stop.signal);
const progress = new Progress();
let agent: Agent;
let accepted: readonly { metadata: { name: string; namespace?: string } }[] = [];

const methods = {
  /** The agent as the command line composes it, except for the Lease; resolves when everything is published. */
  async start({ kubeconfig, namespace, shard, shards, count }: AgentOptions & { count: number }) {
    const clock = systemClock;
    const random = Math.random;
    const { signal } = stop;
    const log = createLog({ level: 'error' });
    const kube = countStatuses(connect({ kubeconfigText: kubeconfig, userAgent: `${AGENT_AGENT}/${shard}` }));
    const writePriority = new WritePriority(clock);
    const events = recorder(kube, { component: 'meshcert', instance: 'bench', clock, log, signal });
    const onError = (error: Error) => log.error({ err: error }, 'watching failed');
    const options = {
      kube,
      adapters,
      gateways,
      clock,
      random,
      log,
      allow: ALLOW_ANY,
      namespaces: [namespace],
      leadership: alone,
      onError,
    };
    agent = new Agent({
      kube,
      adapters,
      gateways,
      async *certificates(either) {
        for await (const all of customResources(options, either)) {
          const mine = all.filter(({ metadata }) => Number(/\d+$/.exec(metadata.name)?.[0]) % shards === shard);
          accepted = mine;
          yield mine;
        }
      },
      leadership: alone,
      preflight: opensslPreflight(),
      sinks: [
        new StatusBoard(),
        new LogSink(log, clock),
        new MetricsSink(createMetrics({ version: 'bench' }), clock),
        new StatusWriter({ kube, clock, random, log, signal, writePriority, leads: () => true }),
        new EventSink(events),
        progress,
      ],
      writePriority,
      clock,
      random,
      log,
      observe: { by: 'labels', namespaces: [namespace] },
      dryRun: false,
      filesBelow: ANY,
      allow: ALLOW_ANY,
    });
    agent.run(signal).catch((error) => console.error(error));
    await progress.until(() => progress.inForce.size >= count);
  },
  /** Resolves when no status was written for a second: all reports are stored. */
  async quiet() {
    for (let seen = -1; seen !== progress.statusWrites; ) {
      seen = progress.statusWrites;
      await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    }
  },
  /**
   * Makes every certificate due. Milliseconds until all new pairs were read back, and until all statuses are stored.
   */
  async renewAll() {
    const count = accepted.length;
    const cpu = process.cpuUsage();
    const [rotated, written] = [progress.rotated, progress.statusWrites];
    const start = performance.now();
    for (const { metadata } of accepted) agent.reconcilers.find(metadata.namespace ?? '', metadata.name)?.renew();
    const inForce = await progress.until(() => progress.rotated - rotated >= count);
    const reported = await progress.until(() => progress.statusWrites - written >= count);
    const { user, system } = process.cpuUsage(cpu);
    return { count, ms: inForce - start, withStatusMs: reported - start, cpuMs: (user + system) / 1000 };
  },
  stop() {
    stop.abort(new Error('over'));
  },
};

function countStatuses(kube: Kube): Kube {
  const apply: Kube['apply'] = async (object, options, signal) => {
    const answer = await kube.apply<never>(object, options, signal);
    if (options.subresource === 'status') progress.wroteStatus();
    return answer;
  };
  return new Proxy(kube, {
    get: (target, name) => {
      if (name === 'apply') return apply;
      const value = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

export type AgentPart = typeof methods;
servePart(methods);
