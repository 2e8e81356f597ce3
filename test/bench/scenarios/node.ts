import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { nativeArchitecture } from '../../../scripts/image/oci.ts';
import { CACHE, nodeOf } from '../../../scripts/image/sources.ts';
import { cpuOf, peakOf, startBundle } from '../parts/bundle.ts';
import { startPart } from '../parts/part.ts';
import type { PreflightPart } from '../parts/preflight.ts';
import { Missing, missing, row, type Scenario } from '../scenario.ts';
import { interleaved } from '../statistics.ts';
import { isIdentitySecret, isReady, observing, untilAll } from './first.ts';

const HANDSHAKES = 300;

export const node: Scenario = {
  id: 'node',
  title: 'The Node.js of the image against the one that runs npm',
  same: 'The same bundle, the same work, two versions of Node.js in turn: CPU of one preflight handshake in a process that does nothing else; CPU and peak RSS of first issues as in `first`, with labels.',
  async run({ sizes, fleets, say }) {
    const other = process.env.npm_node_execpath;
    if (other === undefined) throw new Missing('it needs npm run bench, which names the other Node.js');
    const image = join(await nodeOf(nativeArchitecture, CACHE).catch(missing), 'node');
    const world = await fleets.best;
    const [count = 0] = sizes.first;
    let fleet = 0;
    const handshake = async (file: string) => {
      await using part = startPart<PreflightPart>('preflight', { node: file });
      return await part.call('prove', { count: HANDSHAKES });
    };
    const issue = async (file: string) => {
      const namespace = `node-${fleet++}`;
      await world.populate(namespace, count);
      const all = untilAll(world, namespace, count, { isPublished: isIdentitySecret, isReady });
      const args = ['-n', namespace, '--no-leader-elect', ...observing('labels')];
      await using bundle = await startBundle(world.kubeconfigFile, args, { node: file });
      await all;
      return { cpuMs: (await cpuOf(bundle.pid)) / count, peak: (await peakOf(bundle.pid)) / 2 ** 20 };
    };
    say('handshakes');
    const proofs = await interleaved(
      sizes.rounds,
      () => handshake(image),
      () => handshake(other),
    );
    say(`${count} first issues`);
    const issues = await interleaved(
      sizes.rounds,
      () => issue(image),
      () => issue(other),
    );
    const about = `${world.kind}: ${count} first issues`;
    const cpu = (all: typeof issues.ours) => all.map(({ cpuMs }) => cpuMs);
    const peak = (all: typeof issues.ours) => all.map(({ peak }) => peak);
    const versionOf = (file: string) => execFileSync(file, ['--version'], { encoding: 'utf8' }).trim();
    return {
      rows: [
        row('preflight handshake, CPU', 'ms', proofs.ours, proofs.theirs),
        row(`${about}, CPU of the agent each`, 'ms', cpu(issues.ours), cpu(issues.theirs)),
        row(`${about}, peak RSS`, 'MiB', peak(issues.ours), peak(issues.theirs)),
      ],
      counts: [],
      notes: [`meshcert: by the image’s Node.js ${versionOf(image)}; against: by ${versionOf(other)}`],
    };
  },
};
