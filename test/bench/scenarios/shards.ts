import { AGENT_AGENT, type AgentPart } from '../parts/agent.ts';
import { startPart } from '../parts/part.ts';
import { type Row, row, type Scenario } from '../scenario.ts';
import { NAMESPACE } from './due.ts';

export const shards: Scenario = {
  id: 'shards',
  title: 'All identities are due at once, with several processes',
  same: 'The same identities on the same API server and CA, with one process, and with 2 and 4 that share them. The rate is that of all processes together, until the last new pair was read back. More processes cannot be twice as fast on two cores that the API server, etcd and the CA also need: this shows the loss, not the gain on a larger machine.',
  async run({ sizes, fleets, say }) {
    const world = await fleets.best;
    await world.populate(NAMESPACE, sizes.due);
    const rates = new Map<number, number[]>();
    for (const count of [1, 2, 4]) {
      say(`${count} process(es)`);
      await using stack = new Several();
      const agents = Array.from({ length: count }, () => stack.use(startPart<AgentPart>('agent')));
      const { kubeconfig } = world;
      const share = (shard: number) => Math.ceil((sizes.due - shard) / count);
      const options = (shard: number) => ({
        kubeconfig,
        namespace: NAMESPACE,
        shard,
        shards: count,
        count: share(shard),
      });
      await Promise.all(agents.map((agent, shard) => agent.call('start', options(shard))));
      const found: number[] = [];
      for (let round = 0; round <= sizes.rounds; round++) {
        const began = performance.now();
        await Promise.all(agents.map((agent) => agent.call('renewAll', undefined)));
        if (round > 0) found.push((sizes.due / (performance.now() - began)) * 1000);
      }
      rates.set(count, found);
    }
    await world.spent(AGENT_AGENT);
    const alone = rates.get(1) ?? [];
    const rows: Row[] = [2, 4].map((count) =>
      row(`${world.kind}: ${count} processes, against one, statuses included`, '/s', rates.get(count) ?? [], alone),
    );
    return { rows, counts: [], notes: [] };
  },
};

/** Node 20 has none. */
class Several implements AsyncDisposable {
  readonly #all: AsyncDisposable[] = [];

  use<T extends AsyncDisposable>(one: T): T {
    this.#all.push(one);
    return one;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#all.map((one) => one[Symbol.asyncDispose]()));
  }
}
