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
export type Derivation<L extends string> = (tell: (labels: MetricLabels<L>, value: number) => void) => void;

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
