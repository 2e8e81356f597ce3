import { existsSync, readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { KubeClient } from '../../peers/servers/kube-client.ts';
import type { Namespaces } from './namespaces.ts';

/** A container of a pod as the kernel of this machine sees it. */
export interface Container {
  readonly id: string;
  /** Of its first process. */
  readonly pid: number;
  /** Bytes that its memory cgroup is charged with, and how many of them are not the cache of files. */
  memory(): Promise<{ readonly charged: number; readonly anonymous: number }>;
  /** Lowers the limit of its memory cgroup. */
  limitMemory(bytes: number): Promise<void>;
}

/** The only container of a running pod. */
export async function containerOf(
  cluster: KubeClient & { readonly node: Namespaces },
  namespace: string,
  pod: string,
): Promise<Container> {
  const { body } = await cluster.call('GET', `/api/v1/namespaces/${namespace}/pods/${pod}`);
  const id = String(body.status.containerStatuses[0].containerID).replace(/^.*\/\//, '');
  const unified = existsSync('/sys/fs/cgroup/cgroup.controllers');
  const cgroup = find(join(unified ? '/sys/fs/cgroup' : '/sys/fs/cgroup/memory', cluster.node.name), id);
  if (cgroup === undefined) throw new Error(`there is no cgroup of container ${id}`);
  const read = async (file: string) => (await readFile(join(cgroup, file), 'utf8')).trim();
  const stat = async (name: string) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(await read('memory.stat'))?.[1]);
  return {
    id,
    // The first is the oldest: what `kubectl exec` starts comes later.
    pid: Number((await read('cgroup.procs')).split('\n')[0]),
    memory: async () => ({
      charged: Number(await read(unified ? 'memory.current' : 'memory.usage_in_bytes')),
      anonymous: await stat(unified ? 'anon' : 'total_rss'),
    }),
    limitMemory: (bytes) => writeFile(join(cgroup, unified ? 'memory.max' : 'memory.limit_in_bytes'), String(bytes)),
  };
}

function find(directory: string, name: string): string | undefined {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const path = join(directory, entry.name);
    const found = entry.name.includes(name) ? path : find(path, name);
    if (found !== undefined) return found;
  }
  return undefined;
}
