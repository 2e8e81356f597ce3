import { setTimeout as delay } from 'node:timers/promises';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import { type AgentProcess, startAgentProcess } from './agent-process.ts';
import { eventually } from './eventually.ts';

export interface Replica {
  readonly name: string;
  readonly agent: AgentProcess;
}

/** An agent that watches MeshCertificates, named as a pod would be, so that a Lease shows its holder. */
export async function startReplica(
  apiserver: KubeApiserver,
  options: { readonly name: string; readonly namespace: string; readonly args?: readonly string[] },
): Promise<Replica> {
  const { name, namespace, args = [] } = options;
  const agent = await startAgentProcess({
    kubeconfig: apiserver.kubeconfigFile,
    args: ['--namespace', namespace, ...args],
    env: { POD_NAME: name },
  });
  return { name, agent };
}

/** The replica that holds each Lease of a namespace, by the Lease's name; a released one is omitted. */
export async function holders(apiserver: KubeApiserver, namespace: string): Promise<Map<string, string>> {
  const { body } = await apiserver.call('GET', `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`);
  const found = new Map<string, string>();
  for (const { metadata, spec } of body?.items ?? []) {
    const [holder = ''] = String(spec.holderIdentity ?? '').split('_');
    if (holder !== '') found.set(metadata.name, holder);
  }
  return found;
}

/** Milliseconds until another replica holds the Lease. */
export async function handover(apiserver: KubeApiserver, namespace: string, from: Replica, log: () => string) {
  const since = performance.now();
  await eventually(
    `a leader other than ${from.name}`,
    async () => {
      const holder = (await holders(apiserver, namespace)).get('meshcert');
      return holder !== undefined && holder !== from.name;
    },
    log,
  );
  return performance.now() - since;
}

/** Resolves when the replicas hold these numbers of shards, in descending order, at three consecutive reads. */
export async function shared(
  apiserver: KubeApiserver,
  namespace: string,
  counts: readonly number[],
  log: () => string,
): Promise<void> {
  const look = async () => {
    const byReplica = new Map<string, number>();
    for (const [lease, holder] of await holders(apiserver, namespace)) {
      if (/-\d+$/.test(lease)) byReplica.set(holder, (byReplica.get(holder) ?? 0) + 1);
    }
    return [...byReplica.values()].sort((a, b) => b - a).join() === counts.join();
  };
  const steady = async () => {
    for (let looks = 0; looks < 3; looks++) {
      if (!(await look())) return false;
      await delay(200);
    }
    return true;
  };
  await eventually(`shards shared as ${counts.join(', ')}`, steady, log, 120_000);
}
