import type { PublicationStatus } from '../core/status.ts';
import { METRICS } from './definitions.ts';
import { type Definition, Metric } from './registry.ts';

type LabelsOf<D> = D extends { readonly labels: readonly (infer L extends string)[] } ? L : never;
type All = { readonly [K in keyof typeof METRICS]: Metric<LabelsOf<(typeof METRICS)[K]>> };

export interface Metrics extends All {
  /** Called before each answer, to set what is read rather than counted. */
  onCollect(read: () => void): void;
  /** The answer to GET /metrics. */
  expose(): string;
}

/** A set of all metrics, each at nothing. One for an agent; nothing is global. */
export function createMetrics(build: { version: string }): Metrics {
  const entries = Object.entries<Definition>(METRICS).map(
    ([key, definition]) => [key, new Metric(definition)] as const,
  );
  const all = Object.fromEntries(entries) as unknown as All;
  all.buildInfo.set({ version: build.version, node: process.versions.node }, 1);
  all.processStart.set({}, Math.floor(Date.now() / 1000 - process.uptime()));
  const readers: (() => void)[] = [];
  return {
    ...all,
    onCollect: (read) => readers.push(read),
    expose() {
      for (const read of readers) read();
      const { user, system } = process.cpuUsage();
      all.processCpu.set({}, (user + system) / 1e6);
      const { rss, heapUsed } = process.memoryUsage();
      all.processMemory.set({}, rss);
      all.heapUsed.set({}, heapUsed);
      return entries.map(([, metric]) => metric.expose()).join('');
    },
  };
}

const CONDITION_VALUE = { True: 1, False: 0, Unknown: -1 } as const;
const seconds = (time: string): number => Date.parse(time) / 1000;

/** Sets every gauge that follows from a status; what the status no longer has is removed. */
export function observeStatus(
  metrics: Metrics,
  key: { namespace: string; name: string },
  status: PublicationStatus,
): void {
  const { mesh } = status;
  for (const [metric, time] of [
    [metrics.notAfter, status.notAfter],
    [metrics.notBefore, status.notBefore],
    [metrics.renewal, status.renewalTime],
  ] as const) {
    if (time === undefined) metric.remove(key);
    else metric.set({ ...key, mesh }, seconds(time));
  }
  metrics.held.set(key, status.held === undefined ? 0 : 1);
  for (const state of ['named', 'retained'] as const) {
    metrics.roots.set({ ...key, state }, status.roots.filter((root) => root.state === state).length);
  }
  metrics.rootNotAfter.remove(key);
  for (const root of status.roots.filter(({ state }) => state === 'named')) {
    metrics.rootNotAfter.set({ ...key, fingerprint: root.fingerprint.slice(0, 16) }, seconds(root.notAfter));
  }
  metrics.condition.remove(key);
  for (const { type, status: value } of status.conditions) {
    metrics.condition.set({ ...key, type }, CONDITION_VALUE[value]);
  }
}

/** Forgets a MeshCertificate that is gone, so that no alert fires for it. */
export function forget(metrics: Metrics, key: { namespace: string; name: string }): void {
  const { notAfter, notBefore, renewal, lastSuccess, condition, held, live, roots, rootNotAfter, breakerOpen } =
    metrics;
  for (const metric of [notAfter, notBefore, renewal]) metric.remove(key);
  for (const metric of [lastSuccess, condition, held, live, roots, rootNotAfter, breakerOpen]) metric.remove(key);
  metrics.failures.remove(key);
  metrics.rotations.remove(key);
}
