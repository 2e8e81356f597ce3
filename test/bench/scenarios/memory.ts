import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { World } from '../fleets.ts';
import { anonymousOf, rssOf, startBundle, untilPublished, watchingLabels } from '../parts/bundle.ts';
import { number } from '../report.ts';
import { atMost, type Context, type Findings, type Row, row, type Scenario } from '../scenario.ts';
import { slope } from '../statistics.ts';
import { NAMESPACE } from './due.ts';
import { isIdentitySecret, untilAll } from './first.ts';
import { annotate, hasRenewed } from './mass.ts';
import { settled } from './start.ts';

/** Larger numbers of publications use the sandbox: a real API server takes minutes longer to fill. */
const REAL_UP_TO = 1_000;
/** V8 returns the memory of the start about ten seconds after its end. */
const QUIET_MS = 20_000;
const STEPS = 10;
const FIRST_MIB = 80;
const EACH_KIB = 40;
const JUDGED_FROM = 1_000;
/** A tenth of what one certificate takes. */
const LEFT_BEHIND_KIB = 0.2;
const [KIB, MIB] = [1024, 2 ** 20];

export const memory: Scenario = {
  id: 'memory',
  title: 'Memory by the number of publications, and over rotations',
  same: `The shipped bundle in the environment of its image, with --observe labels, started with existing publications: its RSS as the kernel reports it when the agent knows all of them and is idle, and its heap after a forced collection, reported by the same bundle under --expose-gc in a separate run. Anonymous memory is what is no page of a file: the pages of the Node.js executable are shared by all its processes on a node, and the kernel drops them when memory is short. With one publication, the comparison is a Node.js process that does nothing. Each further publication: the difference to one publication, divided by their number. The first hundred include code that many publications need and that is compiled once, so the memory of a further one is reported from ${JUDGED_FROM} on. Above ${REAL_UP_TO}, the publications are in the sandbox's API server. Rotations: the same bundle, with the sandbox's API server and CA in other processes, rotates all identities ${STEPS} times, by annotation; its heap after a forced collection before each time and at the end, a line through these values, and its RSS after the first and the last of them.`,
  async run(context) {
    const { sizes, fleets } = context;
    const rows: Row[] = [];
    let base: Weight | undefined;
    // As often as the bundle, so that the two can be compared.
    const idle = [await idleNode(), await idleNode()];
    for (const count of sizes.memory) {
      const world = await (count > REAL_UP_TO ? fleets.world('sandbox') : fleets.best);
      const weight = await weigh(context, world, count);
      const about = `${count}${world.kind === 'sandbox' ? ', sandbox' : ''}`;
      const [rss, anonymous, heap] = [inMib(weight.rss), inMib(weight.anonymous), [weight.heap / MIB]];
      const nothing = base ? undefined : idle;
      const most = FIRST_MIB + ((count - 1) * EACH_KIB * KIB) / MIB;
      rows.push(
        row(
          `RSS with ${about}`,
          'MiB',
          rss,
          nothing?.map(({ rss }) => rss),
          atMost(most, `≤ ${number(most)} MiB`),
        ),
      );
      rows.push(
        row(
          `of it anonymous`,
          'MiB',
          anonymous,
          nothing?.map(({ anonymous }) => anonymous),
        ),
      );
      rows.push(row(`heap with ${about}`, 'MiB', heap));
      if (base) {
        const more = count - base.count;
        const each = (Math.min(...weight.rss) - Math.min(...base.rss)) / KIB / more;
        const budget = count < JUDGED_FROM ? undefined : atMost(EACH_KIB, `≤ ${EACH_KIB} KiB`);
        rows.push(row(`RSS for each beyond 1, at ${about}`, 'KiB', [each], undefined, budget));
        const anonymousEach = (Math.min(...weight.anonymous) - Math.min(...base.anonymous)) / KIB / more;
        rows.push(row(`of it anonymous`, 'KiB', [anonymousEach]));
        rows.push(row(`heap for each beyond 1, at ${about}`, 'KiB', [(weight.heap - base.heap) / KIB / more]));
      } else base = weight;
    }
    const rotated = await flat(context);
    return { ...rotated, rows: [...rows, ...rotated.rows] };
  },
};

const inMib = (all: readonly number[]): readonly number[] => all.map((bytes) => bytes / MIB);

/** Memory of a Node.js process that does nothing but wait, MiB. */
async function idleNode(): Promise<{ readonly rss: number; readonly anonymous: number }> {
  const child = spawn(process.execPath, ['--eval', 'process.stdin.resume(); console.log()']);
  const { pid = 0 } = child;
  await once(child.stdout, 'data');
  const weight = { rss: (await rssOf(pid)) / MIB, anonymous: (await anonymousOf(pid)) / MIB };
  child.stdin.end();
  return weight;
}

interface Weight {
  readonly count: number;
  readonly rss: readonly number[];
  readonly anonymous: readonly number[];
  readonly heap: number;
}

async function weigh({ sizes, say }: Context, world: World, count: number): Promise<Weight> {
  const namespace = count === sizes.due ? NAMESPACE : `memory-${count}`;
  const args = ['-n', namespace, '--no-leader-elect', ...watchingLabels(world.caInfo.address)];
  say(`${count} publications`);
  await world.populate(namespace, count);
  {
    await using first = await startBundle(world.kubeconfigFile, args);
    await untilPublished(first, count);
    await settled(world);
  }
  const rss: number[] = [];
  const anonymous: number[] = [];
  for (let round = 0; round < 2; round++) {
    await using bundle = await startBundle(world.kubeconfigFile, args);
    await untilPublished(bundle, count);
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    rss.push(await rssOf(bundle.pid));
    anonymous.push(await anonymousOf(bundle.pid));
  }
  await using telling = await startBundle(world.kubeconfigFile, args, { reportsHeap: true });
  await untilPublished(telling, count);
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  return { count, rss, anonymous, heap: await telling.heap() };
}

export async function flat({ sizes, fleets, say }: Context): Promise<Findings> {
  const world = await fleets.world('sandbox');
  const { flat: count } = sizes;
  const namespace = `flat-${count}`;
  await world.populate(namespace, count);
  const args = ['-n', namespace, '--no-leader-elect', ...watchingLabels(world.caInfo.address)];
  await using bundle = await startBundle(world.kubeconfigFile, args, { reportsHeap: true });
  await untilPublished(bundle, count);
  const rotate = async (value: string) => {
    const all = untilAll(world, namespace, count, { isPublished: isIdentitySecret, isReady: hasRenewed(value) });
    await annotate(world, namespace, count, value);
    await all;
  };
  // Objects that the first rotation creates once exist afterwards.
  await rotate('first');
  say(`${STEPS} rotations of ${count} identities`);
  const heaps = [(await bundle.heap()) / KIB];
  const before = await rssOf(bundle.pid);
  for (let step = 1; step <= STEPS; step++) {
    await rotate(String(step));
    heaps.push((await bundle.heap()) / KIB);
  }
  const after = await rssOf(bundle.pid);
  const [first = Number.NaN, last = Number.NaN] = [heaps.at(0), heaps.at(-1)];
  const rotations = heaps.map((_, step) => (step * count) / 1000);
  const all = STEPS * count;
  const mib = heaps.map((heap) => heap / KIB);
  return {
    rows: [
      row(`heap with ${count}, after ${all} rotations, against before`, 'MiB', [last / KIB], [first / KIB]),
      row(`RSS with ${count}, after ${all} rotations, against before`, 'MiB', [after / MIB], [before / MIB]),
    ],
    counts: [
      {
        what: 'KiB that the heap grows with each rotation: slope of the line through its values',
        value: slope(rotations, heaps) / 1000,
        // With few identities, the code that is compiled meanwhile weighs more than what they could leave behind.
        limit: count < JUDGED_FROM ? undefined : LEFT_BEHIND_KIB,
      },
    ],
    notes: [`heap of ${count}, every ${count} rotations: ${mib.map(number).join(', ')} MiB`],
  };
}
