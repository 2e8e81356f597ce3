import type { Cluster } from '../cluster.ts';

/** `kubectl apply` of objects, in this order. */
export async function apply(cluster: Cluster, ...objects: readonly object[]): Promise<void> {
  const input = objects.map((object) => JSON.stringify(object)).join('\n---\n');
  await cluster.kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], { input });
}

/** Without a request, a pod stands still for as long as another with one is busy, such as an agent that starts. */
export const RESOURCES = { requests: { cpu: '200m' } } as const;

/**
 * A Deployment of one pod with one container, which has the Deployment's name unless it has its own. Its pod is behind
 * the Service of its own name, or of another.
 */
export function deployment(
  name: string,
  namespace: string,
  container: object,
  pod: object = {},
  behind: string = name,
): object {
  const labels = { app: behind, 'app.kubernetes.io/name': behind };
  const own = { deployment: name };
  const template = {
    metadata: { labels: { ...labels, ...own } },
    spec: { containers: [{ name, resources: RESOURCES, ...container }], ...pod },
  };
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, namespace, labels },
    spec: { selector: { matchLabels: own }, template },
  };
}

/** Of one pod, which a kubelet that starts again calls not ready until its next probe. */
export const service = (name: string, namespace: string, ports: readonly object[]): object => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace },
  spec: { selector: { 'app.kubernetes.io/name': name }, ports, publishNotReadyAddresses: true },
});

export const serviceAccount = (name: string, namespace: string): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name, namespace },
});

/** Waits until every pod of the Deployment exists and is ready; on failure reports the state of the pods. */
export async function rolledOut(cluster: Cluster, namespace: string, ...names: readonly string[]): Promise<void> {
  for (const name of names) {
    const status = ['-n', namespace, 'rollout', 'status', name.includes('/') ? name : `deployment/${name}`];
    await cluster.kubectl([...status, '--timeout=120s']).catch(async (error) => {
      throw new Error(`${error.message}\n${await eventsAndLogs(cluster, namespace)}`);
    });
  }
}

/** Pods, events and logs of a namespace, to find out why something did not happen. */
export async function eventsAndLogs(cluster: Cluster, namespace: string): Promise<string> {
  const ask = (...args: string[]) => cluster.kubectl(['-n', namespace, ...args]).catch((error) => error.message);
  const pods = String(await ask('get', 'pods', '-o', 'name'))
    .split('\n')
    .filter(Boolean);
  const logs = await Promise.all(pods.map((pod) => ask('logs', pod, '--all-containers', '--tail=30')));
  return [await ask('get', 'pods', '-o', 'wide'), await ask('get', 'events'), ...logs].join('\n');
}

export async function podAddress(cluster: Cluster, namespace: string, name: string): Promise<string> {
  const selector = `app.kubernetes.io/name=${name}`;
  const path = 'jsonpath={.items[0].status.podIP}';
  return cluster.kubectl(['-n', namespace, 'get', 'pods', '-l', selector, '-o', path]);
}
