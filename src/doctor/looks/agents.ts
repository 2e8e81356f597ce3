import { describe, type KubeObject, refOf } from '../../core/object.ts';
import { readLease } from '../../kube/lease/lease-record.ts';
import { fields, text } from '../../mesh/kube-object.ts';
import { selectsPod } from '../../mesh/workload.ts';
import { agentOf, type FoundAgent } from '../observed/agents.ts';
import { failedOrSkipped, type Seen, type Tools, within } from './look.ts';

const INSTALL =
  'install the agent (docs/onboarding.md), or find out why it is gone: kubectl get deployments,daemonsets -A';
/** A clock that is this far ahead of the API server's makes every deadline wrong. */
const CLOCK_MS = 5_000;

/** `certificates` are those that an agent should publish. */
export function lookForAgents(
  agents: readonly FoundAgent[],
  certificates: readonly KubeObject[],
  pods: readonly KubeObject[],
): Seen[] {
  const [first] = certificates;
  if (agents.length === 0 && first) {
    const count = `${certificates.length} MeshCertificate${certificates.length === 1 ? '' : 's'}`;
    const message = `no Deployment or DaemonSet runs meshcert agent: nothing renews the certificates of ${count}`;
    return [{ code: 'MC6005', state: 'failed', object: first, message, fix: INSTALL }];
  }
  const alone = certificates.filter((certificate) => !agentOf(agents, certificate));
  return [
    ...alone.map((object): Seen => {
      const namespace = object.metadata.namespace ?? '';
      const message = `no agent watches MeshCertificates in the namespace ${namespace}: ${agents.map(placesOf).join('; ')}`;
      const fix = `add ${namespace} to --watch-namespaces of an agent, or run one there`;
      return { code: 'MC6005', state: 'failed', object, message, fix };
    }),
    ...agents.map(({ workload }): Seen => {
      return {
        code: 'MC6005',
        state: 'passed',
        object: workload,
        message: 'it runs meshcert agent',
      };
    }),
    ...agents.map((agent) => readiness(agent, pods)),
  ];
}

function placesOf({ workload, resources, namespaces }: FoundAgent): string {
  const title = describe(refOf(workload));
  return resources
    ? `${title} watches ${namespaces?.join(', ') ?? 'all'}`
    : `${title} reads MeshCertificates from a file`;
}

function readiness({ workload }: FoundAgent, pods: readonly KubeObject[]): Seen {
  const about = { code: 'MC6006', object: workload } as const;
  const [spec, status] = [fields(workload.spec), fields(workload.status)];
  const own = podsOf(workload, pods);
  const wanted = Number(workload.kind === 'DaemonSet' ? (status.desiredNumberScheduled ?? 0) : (spec.replicas ?? 1));
  const reported = status.readyReplicas ?? status.numberReady;
  const ready = typeof reported === 'number' ? reported : own.filter(isReady).length;
  const fix = `kubectl -n ${workload.metadata.namespace} describe pods; kubectl -n ${workload.metadata.namespace} logs ${workload.kind.toLowerCase()}/${workload.metadata.name}`;
  if (wanted === 0) {
    return { ...about, state: 'failed', message: 'it wants no pods: it is scaled to zero, or no node matches', fix };
  }
  if (ready >= wanted) return { ...about, state: 'passed', message: `${ready} of ${wanted} pods ready` };
  const reasons = [...new Set(own.flatMap(reasonsOf))];
  const why = reasons.length === 0 ? '' : ` (${reasons.slice(0, 3).join('; ')})`;
  const message = `${ready} of ${wanted} pods are ready${why}${ready === 0 ? ': nothing is renewed' : ''}`;
  return { ...about, state: 'failed', severity: ready === 0 ? 'error' : 'warning', message, fix };
}

function podsOf(workload: KubeObject, pods: readonly KubeObject[]): KubeObject[] {
  return pods.filter((pod) => selectsPod(workload, pod));
}

function isReady(pod: KubeObject): boolean {
  const { conditions } = fields(pod.status);
  return (
    Array.isArray(conditions) &&
    conditions.map(fields).some(({ type, status }) => type === 'Ready' && status === 'True')
  );
}

/** Why its containers do not run, as the kubelet reports, and why it is not scheduled. */
function reasonsOf(pod: KubeObject): string[] {
  const { containerStatuses, conditions } = fields(pod.status);
  const waiting = (Array.isArray(containerStatuses) ? containerStatuses : []).flatMap((one) => {
    const { state, lastState } = fields(one);
    const reason = text(fields(fields(state).waiting).reason);
    return reason === undefined ? [] : `${reason}${endOf(fields(fields(lastState).terminated))}`;
  });
  const unscheduled = (Array.isArray(conditions) ? conditions : [])
    .map(fields)
    .filter(({ type, status }) => type === 'PodScheduled' && status === 'False')
    .flatMap(({ reason, message }) => text(message) ?? text(reason) ?? []);
  return [...waiting, ...unscheduled];
}

/** How a container ended that the kubelet starts again, such as OOMKilled. */
function endOf({ reason, exitCode }: Readonly<Record<string, unknown>>): string {
  if (typeof exitCode !== 'number') return '';
  return `, it ended with ${text(reason) ?? 'Error'}, exit code ${exitCode}`;
}

/** Whether each Lease of the agent has a holder that renews it. `serverNow` by the API server's clock. */
export function lookAtLeases(tools: Tools, agent: FoundAgent, serverNow: () => number): Promise<Seen[]> {
  return Promise.all(agent.leases.map((name) => lookAtLease(tools, agent, name, serverNow)));
}

async function lookAtLease(tools: Tools, agent: FoundAgent, name: string, serverNow: () => number): Promise<Seen> {
  const ref = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace: agent.namespace, name };
  const object: KubeObject = { ...ref, metadata: { name, namespace: agent.namespace } };
  const about = { code: 'MC6007', object } as const;
  const fix = `find out why no pod leads: kubectl -n ${agent.namespace} logs ${agent.workload.kind.toLowerCase()}/${agent.workload.metadata.name}`;
  const failed = (message: string): Seen => ({ ...about, state: 'failed', message, fix });
  try {
    const lease = await within(tools, (signal) => tools.kube.get(ref, signal));
    if (!lease) return failed('it does not exist: no agent has led yet, and nothing is written');
    const { holder, renewedAt = 0, durationMs } = readLease(lease);
    const age = serverNow() - renewedAt;
    if (!holder) return failed('no agent holds it: nothing is written');
    const held = `${holder} holds it, renewed ${seconds(Math.abs(age))} ${age < 0 ? 'in the future' : 'ago'}`;
    if (age > durationMs)
      return failed(`${held}, and it lasts ${seconds(durationMs)}: no agent leads, and nothing is written`);
    if (age < -CLOCK_MS) {
      const message = `${held}: the clock of that node is ahead of the API server's`;
      return { code: 'MC6002', state: 'failed', object, message, fix: 'set the clock of the node (NTP)' };
    }
    return { ...about, state: 'passed', message: held };
  } catch (error) {
    tools.signal.throwIfAborted();
    return failedOrSkipped(error, 'MC6007', object, fix);
  }
}

const seconds = (ms: number): string => {
  const whole = Math.round(ms / 1000);
  return whole < 120 ? `${whole} s` : whole < 7200 ? `${Math.round(whole / 60)} min` : `${Math.round(whole / 3600)} h`;
};
