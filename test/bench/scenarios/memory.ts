import type { World } from '../fleets.ts';
import type { AgentPart } from '../parts/agent.ts';
import { rssOf, startBundle, untilPublished, watchingLabels } from '../parts/bundle.ts';
import { startPart } from '../parts/part.ts';
import { number } from '../report.ts';
import { atMost, type Context, type Findings, type Row, row, type Scenario } from '../scenario.ts';
import { slope } from '../statistics.ts';
import { NAMESPACE } from './due.ts';
import { settled } from './start.ts';

/** Larger numbers of publications use the sandbox: a real API server takes minutes longer to fill. */
const REAL_UP_TO = 1_000;
/** V8 returns the memory of the start about ten seconds after its end. */
const QUIET_MS = 20_000;
const STEPS = 10;
const FIRST_MIB = 80;
const EACH_KIB = 40;
const JUDGED_FROM = 1_000;
const [KIB, MIB] = [1024, 2 ** 20];

export const memory: Scenario = {
  id: 'memory',
  title: 'Memory by the number of publications, and over rotations',
  same: `The shipped bundle in the environment of its image, with --observe labels, started with existing publications: its RSS as the kernel reports it when the agent knows all of them and is idle, and its heap after a forced collection, reported by the same bundle under --expose-gc in a separate run. Each further publication: the difference to one publication, divided by their number. The first hundred include code that many publications need and that is compiled once, so the memory of a further one is reported from ${JUDGED_FROM} on. Above ${REAL_UP_TO}, the publications are in the sandbox's API server. Rotations: the agent in one process, from source, rotates all identities ${STEPS} times; its heap after a collection before each time and at the end, and a line through these values.`,
  async run(context) {
    const { sizes, fleets } = context;
    const rows: Row[] = [];
    let base: Weight | undefined;
    for (const count of sizes.memory) {
      const world = await (count > REAL_UP_TO ? fleets.world('sandbox') : fleets.best);
      const weight = await weigh(context, world, count);
      const about = `${count}${world.kind === 'sandbox' ? ', sandbox' : ''}`;
      const [rss, heap] = [weight.rss.map((bytes) => bytes / MIB), [weight.heap / MIB]];
      const most = FIRST_MIB + ((count - 1) * EACH_KIB * KIB) / MIB;
      rows.push(row(`RSS with ${about}`, 'MiB', rss, undefined, atMost(most, `≤ ${number(most)} MiB`)));
      rows.push(row(`heap with ${about}`, 'MiB', heap));
      if (base) {
        const more = count - base.count;
        const each = (Math.min(...weight.rss) - Math.min(...base.rss)) / KIB / more;
        const budget = count < JUDGED_FROM ? undefined : atMost(EACH_KIB, `≤ ${EACH_KIB} KiB`);
        rows.push(row(`RSS for each beyond 1, at ${about}`, 'KiB', [each], undefined, budget));
        rows.push(row(`heap for each beyond 1, at ${about}`, 'KiB', [(weight.heap - base.heap) / KIB / more]));
      } else base = weight;
    }
    const rotated = await flat(context);
    return { rows: [...rows, ...rotated.rows], counts: [], notes: rotated.notes };
  },
};

interface Weight {
  readonly count: number;
  readonly rss: readonly number[];
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
  for (let round = 0; round < 2; round++) {
    await using bundle = await startBundle(world.kubeconfigFile, args);
    await untilPublished(bundle, count);
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    rss.push(await rssOf(bundle.pid));
  }
  await using telling = await startBundle(world.kubeconfigFile, args, { reportsHeap: true });
  await untilPublished(telling, count);
  await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
  return { count, rss, heap: await telling.heap() };
}

export async function flat({ sizes, fleets, say }: Context): Promise<Pick<Findings, 'rows' | 'notes'>> {
  const world = await fleets.world('sandbox');
  const namespace = `flat-${sizes.flat}`;
  await world.populate(namespace, sizes.flat);
  await using agent = startPart<AgentPart>('agent', { flags: ['--expose-gc'] });
  const { kubeconfig } = world;
  await agent.call('start', { kubeconfig, namespace, shard: 0, shards: 1, count: sizes.flat });
  // Objects that the first rotation creates once exist afterwards.
  await agent.call('renewAll', undefined);
  say(`${STEPS} rotations of ${sizes.flat} identities`);
  const heaps: number[] = [];
  for (let step = 0; step <= STEPS; step++) {
    if (step > 0) await agent.call('renewAll', undefined);
    heaps.push((await agent.call('memory', undefined)).heapUsed / MIB);
  }
  const [first = Number.NaN] = heaps;
  const rotations = heaps.map((_, step) => (step * sizes.flat) / 1000);
  const slopeKiB = (slope(rotations, heaps) * MIB) / KIB;
  const all = STEPS * sizes.flat;
  return {
    rows: [
      row(`heap with ${sizes.flat}, after ${all} rotations, against before`, 'MiB', heaps.slice(-1), [first]),
      row('slope of the line through its heap, for 1,000 rotations', 'KiB', [slopeKiB]),
    ],
    notes: [`heap of ${sizes.flat}, every ${sizes.flat} rotations: ${heaps.map(number).join(', ')} MiB`],
  };
}
