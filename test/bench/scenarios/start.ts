import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { builtBundle } from '../../../scripts/built-bundle.ts';
import type { World } from '../fleets.ts';
import { BUNDLE_AGENT, rssOf, startBundle, untilPublished, watchingLabels } from '../parts/bundle.ts';
import { atMost, row, type Scenario } from '../scenario.ts';
import { interleaved, summarise } from '../statistics.ts';
import { writesIn } from '../tally.ts';
import { NAMESPACE } from './due.ts';

/** How often a restarted agent is asked for all statuses: each answer costs it time too. */
const ASK_EVERY_MS = 250;

export const start: Scenario = {
  id: 'start',
  title: 'From start to ready, and a restart with existing publications',
  same: 'The shipped bundle as a process, compared with a Node process that does nothing. Both are timed from the spawn: ours to the first 200 of /readyz (requested every 25 ms), the other to its exit. `--once` is timed from its spawn to its exit, with the pair published and read back. A restart, with `--observe labels`, has no comparison except its counts: it takes the Lease that its predecessor released, and reads the published objects.',
  async run({ sizes, fleets, say }) {
    const world = await fleets.best;
    await world.populate('one', 1);
    say('bundle to ready');
    const rss: number[] = [];
    const ready = async () => {
      await using bundle = await startBundle(world.kubeconfigFile, ['-n', 'one', '--no-leader-elect']);
      rss.push((await rssOf(bundle.pid)) / 2 ** 20);
      return bundle.readyMs;
    };
    const found = await interleaved(sizes.starts, ready, emptyNode);
    say('--once');
    await world.populate('once', 0);
    let fresh = 0;
    const once = await interleaved(sizes.starts, () => oneShot(world, fresh++), emptyNode);

    say(`restart over ${sizes.due} publications`);
    await world.populate(NAMESPACE, sizes.due);
    const args = ['-n', NAMESPACE, '--lease-name', 'bench', ...watchingLabels(world.caInfo.address)];
    {
      await using first = await startBundle(world.kubeconfigFile, args);
      await untilPublished(first, sizes.due);
      await settled(world);
    }
    const issued = await world.ca.call('requests', undefined);
    const readyTimes: number[] = [];
    const times: number[] = [];
    let writes = 0;
    for (let round = 0; round < Math.min(3, sizes.starts); round++) {
      await world.spent(BUNDLE_AGENT);
      const began = performance.now();
      await using again = await startBundle(world.kubeconfigFile, args);
      await untilPublished(again, sizes.due, { everyMs: ASK_EVERY_MS });
      times.push(performance.now() - began);
      readyTimes.push(again.readyMs);
      await settled(world);
      writes += writesIn(await world.spent(BUNDLE_AGENT));
    }
    const reissued = (await world.ca.call('requests', undefined)) - issued;
    return {
      rows: [
        row('start to ready', 'ms', found.ours, found.theirs, atMost(400, '≤ 400 ms')),
        row('RSS when ready', 'MiB', rss, undefined, atMost(80, '≤ 80 MiB')),
        row('--once, from nothing to a published pair', 'ms', once.ours, once.theirs),
        row(`restart with ${sizes.due} valid publications, to ready`, 'ms', readyTimes),
        row(`the same, until /api/status says that all are good`, 'ms', times),
      ],
      counts: [
        { what: `certificates requested by ${times.length} restarts`, value: reissued, limit: 0 },
        { what: `writes by ${times.length} restarts, except the Lease`, value: writes, limit: 0 },
      ],
      notes: [`an empty Node process: ${summarise([...found.theirs, ...once.theirs]).median.toFixed(0)} ms`],
    };
  },
};

/** Until for two seconds no certificate was requested and nothing but the Lease was written. */
export async function settled(world: World): Promise<void> {
  for (let total = -1, quiet = 0; quiet < 2; ) {
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const now = (await world.ca.call('requests', undefined)) + writesIn(await world.look(BUNDLE_AGENT));
    quiet = now === total ? quiet + 1 : 0;
    total = now;
  }
}

async function emptyNode(): Promise<number> {
  return timed(process.execPath, ['-e', '0']);
}

async function oneShot(world: World, at: number): Promise<number> {
  const file = join(world.dir, `once-${at}.yaml`);
  const { address, serverName, rootPem } = world.caInfo;
  const ca = { address, serverName, tokenFile: join(world.dir, 'once.token'), root: { inline: rootPem } };
  const document = {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name: `once-${at}`, namespace: 'once' },
    spec: { istio: { trustDomain: 'cluster.local', ca }, tlsContext: { enabled: false } },
  };
  await writeFile(file, stringify(document));
  const bundle = await builtBundle();
  const flags = ['--kubeconfig', world.kubeconfigFile, '--config', file, '--once', '--log-level', 'error'];
  return timed(process.execPath, [bundle, 'agent', ...flags]);
}

async function timed(file: string, args: readonly string[]): Promise<number> {
  const began = performance.now();
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const [code] = (await once(child, 'exit')) as [number];
  if (code !== 0) throw new Error(`${args.slice(0, 2).join(' ')} ended with ${code}`);
  return performance.now() - began;
}
