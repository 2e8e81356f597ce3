import { METRICS } from './definitions.ts';
import { type Definition, type Exposition, Metric } from './registry.ts';

type LabelsOf<D> = D extends { readonly labels: readonly (infer L extends string)[] } ? L : never;
type All = { readonly [K in keyof typeof METRICS]: Metric<LabelsOf<(typeof METRICS)[K]>> };

export interface Metrics extends All {
  /** Called before each answer, to set values that are read rather than counted. */
  onCollect(read: () => void): void;
  /** The answer to GET /metrics. */
  expose(format?: Exposition): string;
}

/** A set of all metrics, all at zero. One for each agent; nothing is global. */
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
    expose(format = 'prometheus') {
      for (const read of readers) read();
      const { user, system } = process.cpuUsage();
      all.processCpu.set({}, (user + system) / 1e6);
      const { rss, heapUsed } = process.memoryUsage();
      all.processMemory.set({}, rss);
      all.heapUsed.set({}, heapUsed);
      const text = entries.map(([, metric]) => metric.expose(format)).join('');
      return format === 'openmetrics' ? `${text}# EOF\n` : text;
    },
  };
}

/** Removes the series of a MeshCertificate that is gone, so that no alert fires for it. */
export function forget({ live, failures }: Metrics, key: { namespace: string; name: string }): void {
  live.remove(key);
  failures.remove(key);
}
