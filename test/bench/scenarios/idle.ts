import { BUNDLE_AGENT, cpuOf, startBundle, untilPublished, watchingLabels } from '../parts/bundle.ts';
import { atMost, row, type Scenario } from '../scenario.ts';
import { writesIn } from '../tally.ts';
import { NAMESPACE } from './due.ts';
import { settled } from './start.ts';

export const idle: Scenario = {
  id: 'idle',
  title: 'Nothing is due',
  same: 'The shipped bundle, with `--observe labels`, with publications that are all current, and its Lease. There is no comparison except the budget. CPU is the time that the kernel reports for the process.',
  async run({ sizes, fleets, say }) {
    const world = await fleets.best;
    await world.populate(NAMESPACE, sizes.due);
    const args = ['-n', NAMESPACE, '--lease-name', 'bench', ...watchingLabels(world.caInfo.address)];
    await using bundle = await startBundle(world.kubeconfigFile, args);
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
      counts: [{ what: `writes except the Lease in ${sizes.idleSeconds} s`, value: writesIn(spent), limit: 0 }],
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
