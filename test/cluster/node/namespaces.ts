import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Daemon, output } from '../../peers/servers/process.ts';

const CGROUPS = '/sys/fs/cgroup';
const NAME = /^meshcert-cluster-(\d+)-[0-9a-f]+$/;
export const runsDirectory = join(process.env.MESHCERT_CACHE ?? join(homedir(), '.cache', 'meshcert'), 'clusters');

/** The node's own directories, which are mounted over those of the machine. */
const OWN = ['run', 'var/lib', 'var/log'] as const;

export const NODE_ADDRESS = '10.99.0.1';

/**
 * Kernel namespaces for one node: processes, mounts and network. All of them end with their first process, and that one
 * ends with this process, however this process ends. The kernel leaves files and empty cgroups: `remove` deletes them,
 * or the next run does.
 */
export interface Namespaces {
  readonly name: string;
  /** The node's files; `run` in it is the node's /run. */
  readonly dir: string;
  /** The cgroup below each hierarchy that holds the pods, such as `/meshcert-cluster-1-2`. */
  readonly cgroup: string;
  /** The command that runs a program inside: `net` for what only needs the network, or as a process of the node. */
  enter(kind: 'net' | 'node', file: string, args: readonly string[]): [string, string[]];
  /** Runs a program to its end as a process of the node; resolves to what it wrote. */
  run(file: string, args: readonly string[], input?: string): Promise<string>;
  remove(): Promise<void>;
}

const SETUP = `
set -e
for directory in ${OWN.join(' ')}; do mkdir -p "$1/$directory"; mount --bind "$1/$directory" "/$directory"; done
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up
ip link add node0 type bridge
ip link add node0-up type veth peer name node0-port
ip link set node0-port master node0
ip link set node0-port up
ip link set node0-up up
ip address add ${NODE_ADDRESS}/24 dev node0
ip link set node0 up
ip route add default dev node0
touch "$1/ready"
# The first process of the namespaces. Shims are its orphans: it reaps them.
while :; do sleep 3600 & wait $!; done
`;

export async function makeNamespaces(): Promise<Namespaces> {
  await removeLeftovers();
  const name = `meshcert-cluster-${process.pid}-${randomBytes(3).toString('hex')}`;
  const dir = join(runsDirectory, name);
  const cgroup = `/${name}`;
  await mkdir(dir, { recursive: true });
  for (const hierarchy of hierarchies()) {
    await mkdir(join(hierarchy, name));
    await raise(join(hierarchy, name));
  }
  await writeFile(join(dir, 'setup.sh'), SETUP);
  const unshare = await Daemon.start({
    name: 'unshare',
    file: 'unshare',
    args: ['--mount', '--net', '--pid', '--kill-child', '--mount-proc', 'bash', join(dir, 'setup.sh'), dir],
    dir,
    ready: async () => existsSync(join(dir, 'ready')),
  });
  const init = childOf(unshare.pid);
  const enter: Namespaces['enter'] = (kind, file, args) => [
    'nsenter',
    [`--target=${init}`, '--net', ...(kind === 'node' ? ['--mount', '--pid'] : []), '--', file, ...args],
  ];
  return {
    name,
    dir,
    cgroup,
    enter,
    run: (file, args, input = '') => {
      const [command, rest] = enter('node', file, args);
      return output(command, rest, { cwd: dir, input });
    },
    async remove() {
      // unshare ends after its child, and the child once the kernel has ended every process of the namespaces.
      process.kill(init, 'SIGKILL');
      while (unshare.running) await delay(10);
      await unshare.stop();
      await removeCgroups(name);
      rmSync(dir, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** All pods together would have the share of one process, and stand still on a machine where many run. */
async function raise(cgroup: string): Promise<void> {
  for (const [file, share] of [
    ['cpu.shares', '16384'],
    ['cpu.weight', '1600'],
  ] as const) {
    if (existsSync(join(cgroup, file))) await writeFile(join(cgroup, file), share);
  }
}

/** The first child of a process; of what `enter` starts for the node, the program itself. */
export function childOf(pid: number): number {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ');
  return Number(child);
}

/** Removes what earlier runs left whose process was killed. */
async function removeLeftovers(): Promise<void> {
  const names = new Set(existsSync(runsDirectory) ? readdirSync(runsDirectory) : []);
  for (const hierarchy of hierarchies()) for (const name of readdirSync(hierarchy)) names.add(name);
  for (const name of names) {
    const pid = NAME.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    await removeCgroups(name);
    rmSync(join(runsDirectory, name), { recursive: true, force: true });
  }
}

/** Each controller's hierarchy, or the one of version 2. */
function hierarchies(): string[] {
  if (existsSync(join(CGROUPS, 'cgroup.controllers'))) return [CGROUPS];
  return readdirSync(CGROUPS)
    .map((name) => join(CGROUPS, name))
    .filter((path) => existsSync(join(path, 'cgroup.procs')));
}

/** A cgroup is busy until the kernel has ended its last process, which takes a moment. */
async function removeCgroups(name: string): Promise<void> {
  const remove = async (path: string): Promise<void> => {
    if (!existsSync(path)) return;
    for (const entry of readdirSync(path)) {
      if (statSync(join(path, entry)).isDirectory()) await remove(join(path, entry));
    }
    for (const deadline = Date.now() + 10_000; ; await delay(20)) {
      try {
        return rmdirSync(path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EBUSY' || Date.now() > deadline) throw error;
      }
    }
  };
  for (const hierarchy of hierarchies()) await remove(join(hierarchy, name));
}
