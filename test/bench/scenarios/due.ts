import type { World } from '../fleets.ts';
import { AGENT_AGENT, type AgentPart } from '../parts/agent.ts';
import type { Bare } from '../parts/bare.ts';
import { type Part, startPart } from '../parts/part.ts';
import { type Context, type Count, type Findings, type Row, ratioAtLeast, row, type Scenario } from '../scenario.ts';
import { interleaved } from '../statistics.ts';

/** Concurrent requests on both sides: the agent's own limit. */
export const IN_FLIGHT = 32;
export const NAMESPACE = 'fleet';

/** With the preflight handshake, whose TLS is faster from Node 24 on. */
const BUDGET =
  Number(process.versions.node.split('.')[0]) >= 24
    ? { secrets: 0.45, statuses: 0.4 }
    : { secrets: 0.35, statuses: 0.3 };

export const due: Scenario = {
  id: 'due',
  title: 'All identities are due at once',
  same: `Both sides create a key and a CSR, get the leaf from the same istiod CA (sandbox, a separate process) and write one Secret, with ${IN_FLIGHT} requests in flight. In addition, the agent verifies, decides about trust, plans, reads each Secret back by its watch and writes a status. The bare minimum does none of that and has no state. The agent is done when its watch has seen each new pair.`,
  async run(context) {
    const rows: Row[] = [];
    const counts: Count[] = [];
    const notes = context.fleets.missing === undefined ? [] : [`kube-apiserver: ${context.fleets.missing}`];
    const { due: count, dueSandbox, rounds } = context.sizes;
    const fleets = [{ world: await context.fleets.best, namespace: NAMESPACE, count, rounds }];
    if (dueSandbox > 0) {
      const world = await context.fleets.world('sandbox');
      fleets.push({ world, namespace: `fleet-${dueSandbox}`, count: dueSandbox, rounds: Math.min(2, rounds) });
    }
    for (const fleet of fleets) {
      const found = await measure(context, fleet);
      rows.push(...found.rows);
      counts.push(...found.counts);
      notes.push(...found.notes);
    }
    return { rows, counts, notes };
  },
};

export async function startBare(world: World, count: number, namespace = NAMESPACE): Promise<Part<Bare>> {
  const bare = startPart<Bare>('bare');
  const { kubeconfig, caInfo: ca } = world;
  await bare.call('start', { kubeconfig, ca, namespace, count, concurrency: IN_FLIGHT });
  return bare;
}

interface Fleet {
  readonly world: World;
  readonly namespace: string;
  readonly count: number;
  readonly rounds: number;
}

async function measure({ say }: Context, { world, namespace, count, rounds }: Fleet): Promise<Findings> {
  const { kind } = world;
  say(`${kind}: publishing ${count} identities`);
  await world.populate(namespace, count);
  const flags = process.env.MESHCERT_BENCH_PROFILE
    ? ['--cpu-prof', `--cpu-prof-dir=${process.env.MESHCERT_BENCH_PROFILE}`]
    : [];
  await using agent = startPart<AgentPart>('agent', { flags });
  await agent.call('start', { kubeconfig: world.kubeconfig, namespace, shard: 0, shards: 1, count });
  await using bare = await startBare(world, count, namespace);
  await agent.call('renewAll', undefined);
  await agent.call('quiet', undefined);
  await world.spent(AGENT_AGENT);
  const before = await world.ca.call('requests', undefined);
  say(`${kind}: rotating ${count} identities, ${rounds} times on each side`);
  const { ours, theirs } = await interleaved(
    rounds,
    () => agent.call('renewAll', undefined),
    () => bare.call('rotateAll', undefined),
  );
  const rotations = count * (rounds + 1);
  const issued = (await world.ca.call('requests', undefined)) - before - rotations;
  const spent = await world.spent(AGENT_AGENT);
  const all = Object.values(spent).reduce((sum, each) => sum + each, 0);
  const events = (spent['create events'] ?? 0) + (spent['patch events'] ?? 0);
  const rate = (ms: number) => (count / ms) * 1000;
  return {
    rows: [
      row(
        `${kind}: ${count} rotations`,
        '/s',
        ours.map(({ ms }) => rate(ms)),
        theirs.map(({ ms }) => rate(ms)),
        // The sandbox's API server needs a third of the time for a write, so that everything else counts more.
        kind === 'kube-apiserver' ? ratioAtLeast(BUDGET.secrets) : undefined,
      ),
      row(
        `${kind}: the same until all statuses are written too`,
        '/s',
        ours.map(({ withStatusMs }) => rate(withStatusMs)),
        theirs.map(({ ms }) => rate(ms)),
        kind === 'kube-apiserver' ? ratioAtLeast(BUDGET.statuses) : undefined,
      ),
      row(
        `${kind}: CPU of the process for 1,000 rotations`,
        's',
        ours.map(({ cpuMs }) => cpuMs / count),
        theirs.map(({ cpuMs }) => cpuMs / count),
      ),
    ],
    counts: [
      {
        what: `${kind}: API requests a rotation, all of the agent except Events`,
        value: (all - events) / rotations,
        limit: 2.02,
      },
      {
        what: `${kind}: Events a rotation: at most 50, then one a second`,
        value: events / rotations,
        limit: undefined,
      },
      { what: `${kind}: certificates issued for each renewal that was due`, value: issued / rotations, limit: 1 },
    ],
    notes: [
      `${kind}: ${Object.entries(spent)
        .map(([what, value]) => `${value} ${what}`)
        .join(', ')} for ${rotations} rotations`,
    ],
  };
}
