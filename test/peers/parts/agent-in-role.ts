import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { builtBundle } from '../../../scripts/built-bundle.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import { discard, output, scratchDir } from '../servers/process.ts';
import { type AgentProcess, startAgentProcess } from './agent-process.ts';

const AGENT = 'meshcert';

export interface AgentInRole extends AgentProcess {
  /** What the API server has refused to it. */
  refusals(): Promise<readonly string[]>;
}

/** The agent with exactly the permissions that `render --rbac` prints for these MeshCertificates. */
export async function startAgentInRole(
  apiserver: KubeApiserver,
  { namespace, documents, args = [] }: { namespace: string; documents: string; args?: readonly string[] },
): Promise<AgentInRole> {
  const dir = scratchDir('roles');
  const file = join(dir, 'mesh.yaml');
  await writeFile(file, documents);
  const roles = await output(process.execPath, [await builtBundle(), 'render', '--rbac', '-f', file]);
  discard(dir);
  await apiserver.kubectl(['apply', '-f', '-'], { input: roles });
  const audience = 'https://kubernetes.default.svc.cluster.local';
  const token = await apiserver.serviceAccountToken({ namespace, name: AGENT, audience });
  const agent = await startAgentProcess({
    kubeconfig: await apiserver.kubeconfigFor(AGENT, token),
    documents,
    args: ['--namespace', namespace, '--no-leader-elect', '--log-level', 'info', ...args],
  });
  return {
    ...agent,
    async refusals() {
      const user = `system:serviceaccount:${namespace}:${AGENT}`;
      const events = await apiserver.audit();
      return events
        .filter(({ user: { username }, responseStatus }) => username === user && responseStatus?.code === 403)
        .map(({ verb, requestURI }) => `${verb} ${requestURI}`);
    },
  };
}
