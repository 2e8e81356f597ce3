import { isExpected } from '../core/decision/upstreams-of.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Metrics } from './metrics.ts';
import type { Derivation, Metric } from './registry.ts';

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
