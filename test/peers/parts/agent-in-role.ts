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

interface Granted {
  readonly namespace: string;
  readonly documents: string;
}

/** A kubeconfig with exactly the permissions that `render --rbac` prints for these MeshCertificates. */
export async function grantedKubeconfig(apiserver: KubeApiserver, { namespace, documents }: Granted): Promise<string> {
  const dir = scratchDir('roles');
  const file = join(dir, 'mesh.yaml');
  await writeFile(file, documents);
  const render = [await builtBundle(), 'render', '--rbac', '-f', file, '--namespace', namespace];
  const roles = await output(process.execPath, render);
  discard(dir);
  await apiserver.kubectl(['apply', '-f', '-'], { input: roles });
  const audience = 'https://kubernetes.default.svc.cluster.local';
  const token = await apiserver.serviceAccountToken({ namespace, name: AGENT, audience });
  return apiserver.kubeconfigFor(AGENT, token);
}

/** The agent with exactly those permissions. */
export async function startAgentInRole(
  apiserver: KubeApiserver,
  { namespace, documents, args = [] }: Granted & { readonly args?: readonly string[] },
): Promise<AgentInRole> {
  const agent = await startAgentProcess({
    kubeconfig: await grantedKubeconfig(apiserver, { namespace, documents }),
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
