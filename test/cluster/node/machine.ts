import { accessSync, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Programs of the node that are not built here, with the Debian package of each. */
const PROGRAMS = {
  unshare: 'util-linux',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
  ip: 'iproute2',
  iptables: 'iptables',
  containerd: 'containerd',
  ctr: 'containerd',
  runc: 'runc',
  strip: 'binutils',
  gcc: 'gcc libc6-dev',
} as const;

/** Debian's directory of the network plug-ins. */
export const CNI_DIRECTORY = '/usr/lib/cni';

/** What this machine lacks for a node of Kubernetes; empty if one can run. */
function missing(): string[] {
  if (process.platform !== 'linux') return ['Linux'];
  const found: string[] = [];
  if (process.getuid?.() !== 0) found.push('root');
  if (!existsSync('/proc/self/ns/pid') || !existsSync('/proc/self/ns/net')) found.push('network and PID namespaces');
  if (!existsSync('/sys/fs/cgroup')) found.push('cgroups at /sys/fs/cgroup');
  const packages = Object.entries(PROGRAMS).filter(([name]) => !onPath(name));
  for (const [name, debian] of packages) found.push(`${name} (Debian: ${debian})`);
  if (!existsSync(join(CNI_DIRECTORY, 'bridge'))) found.push('CNI plug-ins (Debian: containernetworking-plugins)');
  return found;
}

function onPath(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program));
      return true;
    } catch {
      return false;
    }
  });
}

/**
 * For the option `skip` of a test that needs a cluster: false if one can run, else what is missing. In CI, a missing
 * requirement is an error.
 */
export function noCluster(): false | string {
  const lacking = missing();
  if (lacking.length === 0) return false;
  const message = `a cluster cannot run here: missing ${lacking.join(', ')}`;
  if (process.env.CI) throw new Error(message);
  return message;
}
