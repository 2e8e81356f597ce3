/** What a metric is: the table of these is `METRICS`. */
export interface Definition<L extends string = string> {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: readonly L[];
  /** Upper bounds of a histogram's buckets, rising, without +Inf. */
  readonly buckets?: readonly number[];
}

type Labels<L extends string> = Readonly<Record<L, string>>;

interface Series {
  readonly labels: Readonly<Record<string, string>>;
  value: number;
  /** Of a histogram: observations per bucket, the last being +Inf. */
  readonly counts: number[];
}

/** One metric and its series. A counter is only incremented, a gauge set, a histogram observed. */
export class Metric<L extends string = string> {
  readonly definition: Definition<L>;
  readonly #series = new Map<string, Series>();
  /** The keys of each MeshCertificate's series: with thousands of them, one must be forgotten without a look at all. */
  readonly #named = new Map<string, Set<string>>();

  constructor(definition: Definition<L>) {
    this.definition = definition;
    if (definition.labels.length === 0) this.#at({} as Labels<L>);
  }

  inc(labels: Labels<L>, by = 1): void {
    this.#at(labels).value += by;
  }

  set(labels: Labels<L>, value: number): void {
    this.#at(labels).value = value;
  }

  observe(labels: Labels<L>, value: number): void {
    const { buckets = [] } = this.definition;
    const series = this.#at(labels);
    series.value += value;
    const index = buckets.findIndex((bound) => value <= bound);
    const bucket = index < 0 ? buckets.length : index;
    series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
  }

  /** The value now; undefined when there is no such series. Of a histogram, the sum. */
  get(labels: Labels<L>): number | undefined {
    return this.#series.get(this.#key(labels))?.value;
  }

  /** Forgets the series that carry all of these labels, as when their MeshCertificate is gone. */
  remove(match: Partial<Labels<L>>): void {
    const { name: owner } = match as { readonly name?: string };
    const own = owner === undefined ? undefined : (this.#named.get(owner) ?? []);
    for (const key of own ?? this.#series.keys()) {
      const { labels } = this.#series.get(key) ?? {};
      if (labels && Object.entries(match).every(([name, value]) => labels[name] === value)) this.#drop(key, labels);
    }
  }

  /** In the text format of Prometheus. */
  expose(): string {
    const { name, type, help } = this.definition;
    let text = `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`;
    for (const series of this.#series.values()) {
      text += type === 'histogram' ? this.#exposeHistogram(series) : line(name, series.labels, series.value);
    }
    return text;
  }

  #exposeHistogram({ labels, value, counts }: Series): string {
    const { name, buckets = [] } = this.definition;
    let text = '';
    let total = 0;
    for (const [index, bound] of [...buckets, Number.POSITIVE_INFINITY].entries()) {
      total += counts[index] ?? 0;
      text += line(`${name}_bucket`, { ...labels, le: format(bound) }, total);
    }
    return `${text}${line(`${name}_sum`, labels, value)}${line(`${name}_count`, labels, total)}`;
  }

  #key(labels: Labels<L>): string {
    return JSON.stringify(this.definition.labels.map((name) => labels[name]));
  }

  #at(labels: Labels<L>): Series {
    const key = this.#key(labels);
    let series = this.#series.get(key);
    if (!series) {
      const own = Object.fromEntries(this.definition.labels.map((name) => [name, labels[name]]));
      series = { labels: own, value: 0, counts: [] };
      this.#series.set(key, series);
      const { name } = own;
      if (name !== undefined) this.#named.set(name, (this.#named.get(name) ?? new Set()).add(key));
    }
    return series;
  }

  #drop(key: string, { name }: Series['labels']): void {
    this.#series.delete(key);
    if (name === undefined) return;
    const keys = this.#named.get(name);
    keys?.delete(key);
    if (keys?.size === 0) this.#named.delete(name);
  }
}

function line(name: string, labels: Readonly<Record<string, string>>, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`);
  return `${name}${pairs.length === 0 ? '' : `{${pairs.join(',')}}`} ${format(value)}\n`;
}

const escapeHelp = (text: string): string => text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n');
const escapeLabel = (text: string): string => escapeHelp(text).replaceAll('"', '\\"');

const format = (value: number): string => {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  return value === Number.NEGATIVE_INFINITY ? '-Inf' : String(value);
};
