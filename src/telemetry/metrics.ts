import { isExpected } from '../core/decide.ts';
import type { PublicationStatus } from '../core/status.ts';

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

const define = <const D extends Definition>(definition: D): D => definition;

const OBJECT = ['namespace', 'name'] as const;

/** From a local write to a gateway that reconfigures for minutes. */
const LAG_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300] as const;

/** Every metric. docs/reference/metrics.md is generated from this table. */
export const METRICS = {
  buildInfo: define({
    name: 'meshcert_build_info',
    type: 'gauge',
    help: 'Always 1; the labels name the version.',
    labels: ['version', 'node'],
  }),
  notAfter: define({
    name: 'meshcert_certificate_not_after_timestamp_seconds',
    type: 'gauge',
    help: 'When the published leaf expires.',
    labels: [...OBJECT, 'mesh'],
  }),
  notBefore: define({
    name: 'meshcert_certificate_not_before_timestamp_seconds',
    type: 'gauge',
    help: 'Start of the validity of the published leaf.',
    labels: [...OBJECT, 'mesh'],
  }),
  renewal: define({
    name: 'meshcert_certificate_renewal_timestamp_seconds',
    type: 'gauge',
    help: 'When the published leaf is due for renewal.',
    labels: [...OBJECT, 'mesh'],
  }),
  lastSuccess: define({
    name: 'meshcert_certificate_last_success_timestamp_seconds',
    type: 'gauge',
    help: 'When the published objects last matched the desired state.',
    labels: OBJECT,
  }),
  condition: define({
    name: 'meshcert_certificate_condition',
    type: 'gauge',
    help: 'Conditions of the MeshCertificate: 1 for True, 0 for False, -1 for Unknown.',
    labels: [...OBJECT, 'type'],
  }),
  held: define({
    name: 'meshcert_certificate_held',
    type: 'gauge',
    help: '1 while a newer leaf under a new root is held back.',
    labels: OBJECT,
  }),
  live: define({
    name: 'meshcert_certificate_live',
    type: 'gauge',
    help: '1 when the gateway uses the published pair, 0 when it uses another.',
    labels: OBJECT,
  }),
  upstreamVerified: define({
    name: 'meshcert_upstream_verified',
    type: 'gauge',
    help: '1 when the upstream presents the expected identity, 0 when it presents another, -1 when that is not known.',
    labels: [...OBJECT, 'upstream'],
  }),
  roots: define({
    name: 'meshcert_roots',
    type: 'gauge',
    help: 'Roots in the published trust bundle: those that the mesh names now, and those retained for older leaves.',
    labels: [...OBJECT, 'state'],
  }),
  rootNotAfter: define({
    name: 'meshcert_root_not_after_timestamp_seconds',
    type: 'gauge',
    help: 'When a root that the mesh names now expires.',
    labels: [...OBJECT, 'fingerprint'],
  }),
  issuerNotAfter: define({
    name: 'meshcert_issuer_not_after_timestamp_seconds',
    type: 'gauge',
    help: 'When the first CA certificate above the published leaf expires.',
    labels: [...OBJECT, 'issuer'],
  }),
  failures: define({
    name: 'meshcert_failures_total',
    type: 'counter',
    help: 'Failures by their code; docs/errors.md explains each.',
    labels: [...OBJECT, 'code'],
  }),
  rotations: define({
    name: 'meshcert_rotations_total',
    type: 'counter',
    help: 'Published rotations: of the leaf, or of the trust bundle alone.',
    labels: [...OBJECT, 'kind'],
  }),
  rotationLag: define({
    name: 'meshcert_rotation_lag_seconds',
    type: 'histogram',
    help: 'Time from receiving an identity from the mesh to reading it back from the cluster, without the time of a hold.',
    labels: ['mesh'],
    buckets: LAG_BUCKETS,
  }),
  liveLag: define({
    name: 'meshcert_live_lag_seconds',
    type: 'histogram',
    help: 'Time from the publication of an identity to the gateway using it.',
    labels: ['mesh'],
    buckets: LAG_BUCKETS,
  }),
  driftRepairs: define({
    name: 'meshcert_drift_repairs_total',
    type: 'counter',
    help: 'Objects restored after another client changed or deleted them.',
    labels: ['kind'],
  }),
  writes: define({
    name: 'meshcert_writes_total',
    type: 'counter',
    help: 'Objects written to the cluster.',
    labels: ['kind', 'action'],
  }),
  kubeRequests: define({
    name: 'meshcert_kube_requests_total',
    type: 'counter',
    help: 'Requests to the Kubernetes API, by verb, resource and HTTP status; 0 when there was no response.',
    labels: ['verb', 'resource', 'status'],
  }),
  kubeWriteLimit: define({
    name: 'meshcert_kube_write_limit',
    type: 'gauge',
    help: 'Maximum concurrent writes to the Kubernetes API; it adapts to the API server.',
    labels: [],
  }),
  breakerOpen: define({
    name: 'meshcert_breaker_open',
    type: 'gauge',
    help: '1 while the agent requests no certificates because it has requested too many within the hour.',
    labels: OBJECT,
  }),
  leader: define({
    name: 'meshcert_leader',
    type: 'gauge',
    help: '1 on the replica that holds the Lease.',
    labels: ['lease'],
  }),
  configErrors: define({
    name: 'meshcert_config_errors',
    type: 'gauge',
    help: 'Errors in the current configuration file; while there are any, the last valid configuration stays in use.',
    labels: [],
  }),
  processCpu: define({
    name: 'process_cpu_seconds_total',
    type: 'counter',
    help: 'User and system CPU time spent.',
    labels: [],
  }),
  processMemory: define({
    name: 'process_resident_memory_bytes',
    type: 'gauge',
    help: 'Resident memory.',
    labels: [],
  }),
  heapUsed: define({
    name: 'nodejs_heap_size_used_bytes',
    type: 'gauge',
    help: 'Size of the objects on the JavaScript heap, garbage included.',
    labels: [],
  }),
  processStart: define({
    name: 'process_start_time_seconds',
    type: 'gauge',
    help: 'When the process started.',
    labels: [],
  }),
} as const satisfies Record<string, Definition>;

/** The definition of a metric: `METRICS` is the table of these. */
export interface Definition<L extends string = string> {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly L[];
  /** Upper bounds of a histogram's buckets, ascending, without +Inf. */
  readonly buckets?: readonly number[];
}

type MetricLabels<L extends string> = Readonly<Record<L, string>>;

interface MetricSeries {
  readonly labels: Readonly<Record<string, string>>;
  value: number;
  /** Of a histogram: observations per bucket, the last being +Inf. */
  readonly counts: number[];
}

/** The text format of Prometheus 0.0.4, or OpenMetrics 1.0. */
export type Exposition = 'prometheus' | 'openmetrics';

const NO_COUNTS: number[] = [];

/** Calls `tell` for each current series. */
type Derivation<L extends string> = (tell: (labels: MetricLabels<L>, value: number) => void) => void;

/** One metric and its series. A counter is only incremented, a gauge set, a histogram observed. */
export class Metric<L extends string = string> {
  readonly definition: Definition<L>;
  /**
   * By the label `name`, else by '': a MeshCertificate has a few series of each metric, and an agent has thousands of
   * MeshCertificates.
   */
  readonly #series = new Map<string, MetricSeries[]>();
  readonly #derivations: Derivation<L>[] = [];

  constructor(definition: Definition<L>) {
    this.definition = definition;
    if (definition.labels.length === 0) this.#at({} as MetricLabels<L>);
  }

  inc(labels: MetricLabels<L>, by = 1): void {
    this.#at(labels).value += by;
  }

  set(labels: MetricLabels<L>, value: number): void {
    this.#at(labels).value = value;
  }

  observe(labels: MetricLabels<L>, value: number): void {
    const { buckets = [] } = this.definition;
    const series = this.#at(labels);
    series.value += value;
    const index = buckets.findIndex((bound) => value <= bound);
    const bucket = index < 0 ? buckets.length : index;
    series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
  }

  /** Series that are derived from existing state: they are read at each scrape, and none is stored. */
  derive(derivation: Derivation<L>): void {
    this.#derivations.push(derivation);
  }

  /** The current value; undefined when there is no such series. For a histogram, the sum. */
  get(labels: MetricLabels<L>): number | undefined {
    let value = this.#find(labels)?.value;
    for (const derivation of this.#derivations) {
      derivation((records, now) => {
        if (this.#same(records, labels)) value = now;
      });
    }
    return value;
  }

  /** Removes the series that carry all of these labels, for example when their MeshCertificate is gone. */
  remove(match: Partial<MetricLabels<L>>): void {
    const { name: owner } = match as { readonly name?: string };
    const wanted = Object.entries(match);
    for (const group of owner === undefined ? [...this.#series.keys()] : [owner]) {
      const remaining = this.#series
        .get(group)
        ?.filter(({ labels }) => !wanted.every(([name, value]) => labels[name] === value));
      if (remaining && remaining.length > 0) this.#series.set(group, remaining);
      else this.#series.delete(group);
    }
  }

  expose(format: Exposition = 'prometheus'): string {
    const { name, type, help, labels: names } = this.definition;
    const open = format === 'openmetrics';
    // In OpenMetrics the family of a counter has no suffix, only its samples have.
    const family = open && type === 'counter' ? name.replace(/_total$/, '') : name;
    const shown = open ? escapeHelp(help).replaceAll('"', '\\"') : escapeHelp(help);
    let text = `# HELP ${family} ${shown}\n# TYPE ${family} ${type}\n`;
    for (const series of [...this.#series.values()].flat()) {
      text += type === 'histogram' ? this.#exposeHistogram(series) : line(name, names, series.labels, series.value);
    }
    for (const derivation of this.#derivations) {
      derivation((labels, value) => {
        text += line(name, names, labels, value);
      });
    }
    return text;
  }

  #exposeHistogram({ labels, value, counts }: MetricSeries): string {
    const { name, labels: names, buckets = [] } = this.definition;
    let text = '';
    let total = 0;
    for (const [index, bound] of [...buckets, Number.POSITIVE_INFINITY].entries()) {
      total += counts[index] ?? 0;
      text += line(`${name}_bucket`, [...names, 'le'], { ...labels, le: format(bound) }, total);
    }
    return `${text}${line(`${name}_sum`, names, labels, value)}${line(`${name}_count`, names, labels, total)}`;
  }

  #find(labels: MetricLabels<L>): MetricSeries | undefined {
    const group = this.#series.get((labels as { readonly name?: string }).name ?? '');
    return group?.find((series) => this.#same(series.labels, labels));
  }

  #same(one: Readonly<Record<string, string>>, other: Readonly<Record<string, string>>): boolean {
    return this.definition.labels.every((name) => one[name] === other[name]);
  }

  #at(labels: MetricLabels<L>): MetricSeries {
    const known = this.#find(labels);
    if (known) return known;
    const own = Object.fromEntries(this.definition.labels.map((name) => [name, labels[name]]));
    const series: MetricSeries = { labels: own, value: 0, counts: this.definition.buckets ? [] : NO_COUNTS };
    const group = this.#series.get(own.name ?? '');
    if (group) group.push(series);
    else this.#series.set(own.name ?? '', [series]);
    return series;
  }
}

function line(name: string, names: readonly string[], labels: Readonly<Record<string, string>>, value: number): string {
  let pairs = '';
  for (const label of names) pairs += `${pairs === '' ? '' : ','}${label}="${escapeLabel(labels[label] ?? '')}"`;
  return `${name}${pairs === '' ? '' : `{${pairs}}`} ${format(value)}\n`;
}

const escapeHelp = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapeLabel = (text: string): string => (/["\\\n]/.test(text) ? escapeHelp(text).replaceAll('"', '\\"') : text);

const format = (value: number): string => {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  return value === Number.NEGATIVE_INFINITY ? '-Inf' : String(value);
};

/** The state of one MeshCertificate. */
export interface Observed {
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
  readonly breakerOpen: boolean;
  /** Epoch milliseconds. */
  readonly lastSuccess: number | undefined;
  /** Rotations of the leaf, and of the trust bundle alone. */
  readonly leaves: number;
  readonly bundles: number;
}

const CONDITION_VALUE = { True: 1, False: 0, Unknown: -1 } as const;
const seconds = (time: string): number => Date.parse(time) / 1000;

/** Derives series from the current state at each scrape: an agent has two dozen for each of thousands. */
export function deriveSeries(metrics: Metrics, all: () => Iterable<Observed>): void {
  const each = <L extends string>(metric: Metric<L>, tellOf: (one: Observed, tell: Tell<L>) => void): void =>
    metric.derive((tell) => {
      for (const one of all()) tellOf(one, tell);
    });
  for (const [metric, field] of [
    [metrics.notAfter, 'notAfter'],
    [metrics.notBefore, 'notBefore'],
    [metrics.renewal, 'renewalTime'],
  ] as const) {
    each(metric, ({ namespace, name, status }, tell) => {
      const time = status[field];
      if (time !== undefined) tell({ namespace, name, mesh: status.mesh }, seconds(time));
    });
  }
  each(metrics.lastSuccess, ({ namespace, name, lastSuccess }, tell) => {
    if (lastSuccess !== undefined) tell({ namespace, name }, lastSuccess / 1000);
  });
  each(metrics.condition, ({ namespace, name, status }, tell) => {
    for (const { type, status: value } of status.conditions) tell({ namespace, name, type }, CONDITION_VALUE[value]);
  });
  each(metrics.held, ({ namespace, name, status }, tell) => tell({ namespace, name }, status.held ? 1 : 0));
  each(metrics.upstreamVerified, ({ namespace, name, status: { upstreams = [] } }, tell) => {
    for (const upstream of upstreams) {
      const expected = isExpected(upstream);
      tell({ namespace, name, upstream: upstream.address }, expected === undefined ? -1 : expected ? 1 : 0);
    }
  });
  each(metrics.roots, ({ namespace, name, status }, tell) => {
    for (const state of ['named', 'retained'] as const) {
      tell({ namespace, name, state }, status.roots.filter((root) => root.state === state).length);
    }
  });
  each(metrics.rootNotAfter, ({ namespace, name, status }, tell) => {
    for (const { fingerprint, notAfter } of status.roots.filter(({ state }) => state === 'named')) {
      tell({ namespace, name, fingerprint: fingerprint.slice(0, 16) }, seconds(notAfter));
    }
  });
  each(metrics.issuerNotAfter, ({ namespace, name, status: { issuer } }, tell) => {
    if (!issuer) return;
    const { subject, fingerprint, notAfter } = issuer;
    tell({ namespace, name, issuer: subject || fingerprint.slice(0, 16) }, seconds(notAfter));
  });
  each(metrics.rotations, ({ namespace, name, leaves, bundles }, tell) => {
    if (leaves > 0) tell({ namespace, name, kind: 'leaf' }, leaves);
    if (bundles > 0) tell({ namespace, name, kind: 'bundle' }, bundles);
  });
  each(metrics.breakerOpen, ({ namespace, name, breakerOpen }, tell) => {
    tell({ namespace, name }, breakerOpen ? 1 : 0);
  });
}

type Tell<L extends string> = Parameters<Derivation<L>>[0];
