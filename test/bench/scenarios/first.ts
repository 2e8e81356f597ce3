import { systemClock } from '../../../src/async/clock.ts';
import { reflect } from '../../../src/kube/reflector.ts';
import { RESOURCES } from '../../../src/kube/resources.ts';
import { silentLog } from '../../../src/mesh/log.ts';
import type { KubeObject, Resource } from '../../../src/objects/objects.ts';
import type { World } from '../fleets.ts';
import { BUNDLE_AGENT, cpuOf, peakOf, startBundle } from '../parts/bundle.ts';
import { number } from '../report.ts';
import { atMost, type Context, type Count, type Row, row, type Scenario } from '../scenario.ts';
import type { Spent } from '../tally.ts';
import { startBare } from './due.ts';

/** Larger fleets are in the sandbox's API server. */
const REAL_UP_TO = 2_000;
const REQUESTS = 4.2;
const REQUESTS_JUDGED_AT = 2_000;
const SECONDS = 5;
const SECONDS_JUDGED_AT = 100;

export const first: Scenario = {
  id: 'first',
  title: 'First issues: MeshCertificates exist, nothing is published, the agent starts',
  same: 'The shipped bundle starts beside N new MeshCertificates. Another process watches the API server: to the last identity Secret, and to the last MeshCertificate that is Ready. The bare minimum, in the same namespace layout and with 32 requests in flight, creates a key and a CSR, gets the leaf from the same istiod CA, creates two Secrets and writes one status for each; it judges nothing and keeps nothing. A MeshCertificate that waits for its certificate for 30 s gets one status more, which says so. Requests are from the API server’s audit log, CPU and the peak of the resident memory from the kernel.',
  async run(context) {
    const rows: Row[] = [];
    const counts: Count[] = [];
    const notes: string[] = [];
    for (const count of context.sizes.first) {
      const world = await (count > REAL_UP_TO ? context.fleets.world('sandbox') : context.fleets.best);
      const found = await measure(context, world, count, 'labels');
      rows.push(...found.rows);
      counts.push(...found.counts);
      notes.push(...found.notes);
    }
    const [least = 0] = context.sizes.first;
    const named = await measure(context, await context.fleets.best, least, 'names');
    return { rows: [...rows, ...named.rows], counts: [...counts, ...named.counts], notes: [...notes, ...named.notes] };
  },
};

/** What the API server must show before a fleet counts as done. */
export interface Reached {
  readonly isPublished: (secret: KubeObject) => boolean;
  readonly isReady: (certificate: KubeObject) => boolean;
}

export async function untilAll(
  world: World,
  namespace: string,
  count: number,
  { isPublished, isReady }: Reached,
  certificates: Resource = RESOURCES.meshCertificates,
): Promise<{ readonly secretsAt: number; readonly readyAt: number }> {
  const stop = new AbortController();
  const reached = async (resource: Resource, holds: (one: KubeObject) => boolean) => {
    const options = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
    const reflector = reflect(world.kube, resource, { namespace }, options);
    const open = new Set<string>();
    let known = 0;
    for await (const keys of reflector.changes()) {
      for (const key of keys) {
        const object = reflector.items().get(key);
        if (object && holds(object) && !open.has(key)) {
          open.add(key);
          known += 1;
        }
      }
      if (known >= count) break;
    }
    return performance.now();
  };
  try {
    const [secretsAt, readyAt] = await Promise.all([
      reached(RESOURCES.secrets, isPublished),
      reached(certificates, isReady),
    ]);
    return { secretsAt, readyAt };
  } finally {
    stop.abort(new Error('all are done'));
  }
}

export const isIdentitySecret = ({ type }: KubeObject): boolean => type === 'kubernetes.io/tls';

export const hasConditions =
  (...types: readonly string[]) =>
  ({ status }: KubeObject): boolean => {
    const { conditions = [] } = (status ?? {}) as { conditions?: { type: string; status: string }[] };
    return types.every((type) => conditions.find((one) => one.type === type)?.status === 'True');
  };

export const isReady = hasConditions('Ready', 'Published');

/** With `labels`, MeshCertificate resources need the three lists. */
export const observing = (how: 'labels' | 'names'): readonly string[] =>
  how === 'names'
    ? ['--observe', 'names']
    : [
        ...['--observe', 'labels', '--allow-service-account', '*/*', '--allow-audience', '*'],
        ...['--allow-address', '*', '--allow-address', 'file:/*'],
      ];

/** What a controller did from its start to the last object that is Ready. */
export interface FirstIssues {
  readonly secretsSeconds: number;
  readonly readySeconds: number;
  readonly cpuMs: number;
  /** Of the resident memory, bytes. */
  readonly peak: number;
  readonly spent: Spent;
}

/** The shipped bundle, started beside `count` new MeshCertificates. */
export async function firstIssues(
  world: World,
  namespace: string,
  count: number,
  how: 'labels' | 'names',
): Promise<FirstIssues> {
  await world.populate(namespace, count);
  await world.spent(BUNDLE_AGENT);
  const began = performance.now();
  const all = untilAll(world, namespace, count, { isPublished: isIdentitySecret, isReady });
  await using bundle = await startBundle(world.kubeconfigFile, [
    ...['-n', namespace, '--no-leader-elect', ...observing(how)],
  ]);
  const { secretsAt, readyAt } = await all;
  const [cpuMs, peak] = await Promise.all([cpuOf(bundle.pid), peakOf(bundle.pid)]);
  const seconds = (end: number) => (end - began) / 1000;
  const spent = await world.spent(BUNDLE_AGENT);
  return { secretsSeconds: seconds(secretsAt), readySeconds: seconds(readyAt), cpuMs, peak, spent };
}

const isEvent = (request: string): boolean => / events$/.test(request);

export function requestsEach({ spent }: FirstIssues, count: number): number {
  const others = Object.entries(spent).filter(([what]) => !isEvent(what));
  return others.reduce((sum, [, each]) => sum + each, 0) / count;
}

async function measure({ say }: Context, world: World, count: number, how: 'labels' | 'names') {
  const about = `${world.kind}: ${count} with ${how}`;
  const namespace = `first-${count}-${how}`;
  say(about);
  const bareNamespace = `${namespace}-bare`;
  await world.populate(bareNamespace, count);
  const ours = await firstIssues(world, namespace, count, how);
  await using bare = await startBare(world, count, bareNamespace);
  const { ms } = await bare.call('issueAll', undefined);
  const requests = Object.entries(ours.spent);
  const events = requests.filter(([what]) => isEvent(what)).reduce((sum, [, each]) => sum + each, 0);
  const bareRate = [(count / ms) * 1000];
  return {
    rows: [
      row(`${about}: to the last Secret`, '/s', [count / ours.secretsSeconds], bareRate),
      row(`${about}: to the last Ready`, '/s', [count / ours.readySeconds], bareRate),
      row(
        `${about}: until all are Ready`,
        's',
        [ours.readySeconds],
        undefined,
        count === SECONDS_JUDGED_AT && world.kind === 'kube-apiserver' ? atMost(SECONDS, `≤ ${SECONDS} s`) : undefined,
      ),
      row(`${about}: CPU of the agent each`, 'ms', [ours.cpuMs / count]),
      row(`${about}: peak RSS`, 'MiB', [ours.peak / 2 ** 20]),
    ],
    counts: [
      {
        what: `${about}: API requests each, without Events`,
        value: requestsEach(ours, count),
        // Of more, most wait for 30 s, and a status that says so is one more request. With fewer, those of a start
        // count for more; with names, each Secret has a watch of its own.
        limit: how === 'labels' && count === REQUESTS_JUDGED_AT ? REQUESTS : undefined,
      },
    ],
    notes: [
      `${about}: ${requests
        .filter(([what, value]) => !isEvent(what) && value >= count / 100)
        .map(([what, value]) => `${number(value)} ${what}`)
        .join(', ')}; ${events} Events`,
    ],
  };
}
