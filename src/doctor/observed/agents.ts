import { type Allowed, type AllowList, ANY } from '../../config/allow.ts';
import type { KubeObject } from '../../core/object.ts';
import { type AgentPod, agentPodsOf } from '../../mesh/agent-pod.ts';
import { fields, text } from '../../mesh/kube-object.ts';

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

/** The agents among the workloads: by image, or by command. */
export const findAgents = (objects: readonly KubeObject[], environmentFlags: readonly string[]): FoundAgent[] =>
  agentPodsOf(objects).map((pod) => describeAgent(pod, environmentFlags));

function describeAgent(pod: AgentPod, environmentFlags: readonly string[]): FoundAgent {
  const { workload, namespace, namespaces, filesBelow } = pod;
  const leaseName = pod.flag('--lease-name') ?? 'meshcert';
  const shards = Number(pod.flag('--shards') ?? 1) || 1;
  // As the agent does: where it may read every Secret, a list that is not given allows nothing.
  const mustList = pod.flag('--observe') === 'labels' || pod.on('--all-namespaces', '-A');
  const listed = (flag: string): Allowed => {
    const entries = pod.all(flag);
    return mustList || entries.length > 0 ? entries : ANY;
  };
  const single = pod.on('--no-leader-elect', '--once', '--dry-run');
  return {
    workload,
    namespace,
    serviceAccount: text(podSpec(workload).serviceAccountName) ?? 'default',
    namespaces,
    resources: pod.flag('--config') === undefined && !pod.on(...environmentFlags),
    leases: single ? [] : shards > 1 ? Array.from({ length: shards }, (_, at) => `${leaseName}-${at}`) : [leaseName],
    leaseName,
    shards,
    allow: {
      serviceAccounts: listed('--allow-service-account'),
      audiences: listed('--allow-audience'),
      addresses: listed('--allow-address'),
    },
    filesBelow,
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
