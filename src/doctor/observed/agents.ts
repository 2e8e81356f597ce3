import type { AllowList } from '../../config/allow.ts';
import type { KubeObject } from '../../core/object.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { containerFields } from '../../mesh/workload.ts';

/** An agent as its workload describes it. */
export interface FoundAgent {
  readonly workload: KubeObject;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Namespaces whose MeshCertificates it reconciles; undefined: all. */
  readonly namespaces: readonly string[] | undefined;
  /** Whether it reconciles MeshCertificate resources, and not documents of a file. */
  readonly resources: boolean;
  /** Empty: it writes without a Lease. */
  readonly leases: readonly string[];
  readonly leaseName: string;
  readonly shards: number;
  /** Directories below which resources may name files. */
  readonly filesBelow: readonly string[];
  /** Its allow-lists for MeshCertificates. */
  readonly allow: AllowList;
}

const IMAGE = /(?:^|\/)meshcert(?:[:@]|$)/;

/** The agents among the workloads: by image, or by command. */
export function findAgents(objects: readonly KubeObject[], environmentFlags: readonly string[]): FoundAgent[] {
  return objects.flatMap((workload) => {
    if (workload.kind !== 'Deployment' && workload.kind !== 'DaemonSet') return [];
    const agent = containerFields(workload).find(isAgent);
    return agent ? [describeAgent(workload, argvOf(agent), environmentFlags)] : [];
  });
}

const argvOf = (container: Readonly<Record<string, unknown>>): string[] =>
  [container.command, container.args].flat().filter((one) => typeof one === 'string');

function isAgent(container: Readonly<Record<string, unknown>>): boolean {
  const argv = argvOf(container);
  const ours = IMAGE.test(text(container.image) ?? '') || argv.some((one) => /(^|\/)meshcert(\.js)?$/.test(one));
  return ours && argv.includes('agent');
}

function describeAgent(workload: KubeObject, argv: readonly string[], environmentFlags: readonly string[]): FoundAgent {
  const flag = (...names: string[]): string | undefined => {
    for (const [at, one] of argv.entries()) {
      const named = names.find((name) => one === name || one.startsWith(`${name}=`));
      if (named) return one === named ? argv[at + 1] : one.slice(named.length + 1);
    }
    return undefined;
  };
  const all = (name: string): readonly string[] | undefined => {
    const values = argv.flatMap((one, at) => {
      if (one === name) return argv[at + 1] ?? [];
      return one.startsWith(`${name}=`) ? one.slice(name.length + 1) : [];
    });
    return values.length === 0 ? undefined : values;
  };
  const on = (...names: string[]) =>
    argv.some((one) => names.includes(one) || names.includes(one.replace(/=true$/, '')));
  const own = workload.metadata.namespace ?? 'default';
  const namespace = flag('--namespace', '-n') ?? own;
  const leaseName = flag('--lease-name') ?? 'meshcert';
  const shards = Number(flag('--shards') ?? 1) || 1;
  const single = on('--no-leader-elect', '--once', '--dry-run');
  const listed = flag('--watch-namespaces')?.split(',');
  return {
    workload,
    namespace,
    serviceAccount: text(podSpec(workload).serviceAccountName) ?? 'default',
    namespaces: on('--all-namespaces', '-A') ? undefined : (listed ?? [namespace]),
    resources: flag('--config') === undefined && !on(...environmentFlags),
    leases: single ? [] : shards > 1 ? Array.from({ length: shards }, (_, at) => `${leaseName}-${at}`) : [leaseName],
    leaseName,
    shards,
    allow: {
      serviceAccounts: all('--allow-service-account'),
      audiences: all('--allow-audience'),
      addresses: all('--allow-address'),
    },
    filesBelow: (flag('--files-below') ?? '/var/run/secrets/meshcert').split(','),
  };
}

const podSpec = (workload: KubeObject) => fields(fields(fields(workload.spec).template).spec);

/** The agent that reconciles this MeshCertificate. */
export const agentOf = (agents: readonly FoundAgent[], { metadata }: KubeObject): FoundAgent | undefined =>
  agents.find(({ resources, namespaces }) => resources && (namespaces?.includes(metadata.namespace ?? '') ?? true));

/** Its name for the API server's authorizer. */
export const userOf = ({ namespace, serviceAccount, workload }: FoundAgent) => {
  const home = workload.metadata.namespace ?? namespace;
  return {
    user: `system:serviceaccount:${home}:${serviceAccount}`,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${home}`, 'system:authenticated'],
  };
};
