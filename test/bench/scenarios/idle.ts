import { BUNDLE_AGENT, cpuOf, rssOf, startBundle, untilPublished } from '../parts/bundle.ts';
import { atMost, type Count, type Row, row, type Scenario } from '../scenario.ts';
import { writesIn } from '../tally.ts';
import { NAMESPACE } from './due.ts';
import { settled } from './start.ts';

export const idle: Scenario = {
  id: 'idle',
  title: 'Nothing is due',
  same: 'The shipped bundle over publications that are all good, with its Lease; nothing to compare with but the budget. CPU is what the kernel charged to the process.',
  async run({ sizes, fleets, say }) {
    const world = await fleets.best;
    await world.populate(NAMESPACE, sizes.due);
    await using bundle = await startBundle(world.kubeconfigFile, ['-n', NAMESPACE, '--lease-name', 'bench']);
    await untilPublished(bundle, sizes.due);
    await settled(world);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    await world.spent(BUNDLE_AGENT);
    say(`${sizes.idleSeconds} s with ${sizes.due} publications`);
    const shares: number[] = [];
    for (let slice = 0; slice < 3; slice++) {
      const before = await cpuOf(bundle.pid);
      await new Promise((resolve) => setTimeout(resolve, (sizes.idleSeconds * 1000) / 3));
      shares.push((((await cpuOf(bundle.pid)) - before) / ((sizes.idleSeconds * 1000) / 3)) * 100);
    }
    const spent = await world.spent(BUNDLE_AGENT);
    const all = Object.values(spent).reduce((sum, each) => sum + each, 0);
    return {
      rows: [
        row(`CPU with ${sizes.due} publications`, '% of a core', shares, undefined, atMost(0.5, '≤ 0.5 %')),
        row('requests a minute, the Lease’s included', '/min', [(all / sizes.idleSeconds) * 60]),
      ],
      counts: [{ what: `writes but the Lease's in ${sizes.idleSeconds} s`, value: writesIn(spent), limit: 0 }],
      notes: [
        `asked for: ${
          Object.entries(spent)
            .map(([what, count]) => `${count} ${what}`)
            .join(', ') || 'nothing'
        }`,
      ],
    };
  },
};

export const memory: Scenario = {
  id: 'memory',
  title: 'Memory by the number of publications',
  same: 'The shipped bundle, its RSS as the kernel tells it once all publications stand and nothing moves; the heap is what is left after a collection, told by the same bundle under --expose-gc. Each further publication: the difference to one, divided.',
  async run({ sizes, fleets, say }) {
    const world = await fleets.best;
    const rows: Row[] = [];
    const counts: Count[] = [];
    let base: { rss: number; count: number } | undefined;
    for (const count of sizes.memory) {
      const namespace = count === sizes.due ? NAMESPACE : `memory-${count}`;
      await world.populate(namespace, count);
      {
        await using first = await startBundle(world.kubeconfigFile, ['-n', namespace, '--no-leader-elect']);
        await untilPublished(first, count, 600_000);
        await settled(world);
      }
      say(`${count} publications`);
      const rss: number[] = [];
      for (let round = 0; round < 2; round++) {
        await using bundle = await startBundle(world.kubeconfigFile, ['-n', namespace, '--no-leader-elect']);
        await untilPublished(bundle, count, 600_000);
        await new Promise((resolve) => setTimeout(resolve, 5_000));
        rss.push(await rssOf(bundle.pid));
      }
      const least = Math.min(...rss);
      const inMiB = rss.map((bytes) => bytes / 2 ** 20);
      rows.push(row(`RSS with ${count}`, 'MiB', inMiB, undefined, count === 1 ? atMost(80, '≤ 80 MiB') : undefined));
      if (base) {
        const each = (least - base.rss) / 1024 / (count - base.count);
        rows.push(
          row(`RSS for each beyond ${base.count}, at ${count}`, 'KiB', [each], undefined, atMost(30, '≤ 30 KiB')),
        );
      } else base = { rss: least, count };
    }
    return { rows, counts, notes: [] };
  },
};
