import { peer } from '../peers/build.ts';
import { startForwarding } from '../peers/servers/forwarding.ts';
import type { KubeClient } from '../peers/servers/kube-client.ts';
import type { Daemon } from '../peers/servers/process.ts';
import { installDns } from './addons.ts';
import { type ImageName, imageFile } from './images.ts';
import { startControlPlane } from './node/control-plane.ts';
import { renewTokens, startContainerd, startKubelet, startKubeProxy } from './node/kubelet.ts';
import { makeNamespaces, type Namespaces } from './node/namespaces.ts';

export { noCluster } from './node/machine.ts';

/** A whole Kubernetes with one node. Its calls are those of an administrator. */
export interface Cluster extends KubeClient, AsyncDisposable {
  /** For the administrator, from this machine. */
  readonly kubeconfigFile: string;
  readonly apiserver: Daemon;
  readonly node: Namespaces;
  /**
   * What the end and the rotation of all tokens of ServiceAccounts do to clients, without their hour: the kubelet writes
   * new ones into the pods, and then the API server accepts the old ones no longer. `between` runs while it accepts both.
   * The API server restarts before and after that.
   */
  replaceTokens(between: () => Promise<unknown>): Promise<void>;
  /** The loopback port of this machine that leads to `HOST:PORT` in the node's network, such as that of a pod. */
  port(address: string): Promise<number>;
  load(...images: readonly ImageName[]): Promise<void>;
}

/**
 * Starts a node in namespaces of its own: etcd, API server, controllers, scheduler, containerd, kubelet, kube-proxy and
 * DNS. Ready when the node is and DNS answers. Nothing is left of it once the scope of an `await using` ends, or this
 * process.
 *
 * @example
 * test('a pod starts', { skip: noCluster() }, async () => {
 *   await using cluster = await startCluster({ images: ['meshcert'] });
 */
export async function startCluster({ images = [] }: { images?: readonly ImageName[] } = {}): Promise<Cluster> {
  await Promise.all((['kubelet', 'kube-proxy', 'kube-controller-manager', 'kube-scheduler'] as const).map(peer));
  const node = await makeNamespaces();
  const stops: (() => PromiseLike<void>)[] = [() => node.remove()];
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one();
  };
  try {
    return await startIn(node, images, stops, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startIn(
  node: Namespaces,
  images: readonly ImageName[],
  stops: (() => PromiseLike<void>)[],
  stop: () => Promise<void>,
): Promise<Cluster> {
  const forwarding = await startForwarding(node.dir, (file, args) => node.enter('net', file, args));
  stops.push(() => forwarding[Symbol.asyncDispose]());
  const [controlPlane, containerd] = await Promise.all([startControlPlane(node, forwarding), startContainerd(node)]);
  stops.push(() => controlPlane[Symbol.asyncDispose]());
  const load = async (...names: readonly ImageName[]) => {
    for (const name of names) await containerd.import(await imageFile(name));
  };
  await Promise.all([controlPlane.startControllers(), load('pause', 'coredns', ...images)]);
  const [kubelet] = await Promise.all([startKubelet(node, controlPlane), startKubeProxy(node, controlPlane)]);
  await installDns(controlPlane.client, node);
  return {
    ...controlPlane.client,
    kubeconfigFile: controlPlane.kubeconfigFile,
    apiserver: controlPlane.apiserver,
    node,
    port: forwarding.port,
    replaceTokens: (between) =>
      controlPlane.replaceTokenKey(async () => {
        await renewTokens(node, kubelet);
        await between();
      }),
    load,
    [Symbol.asyncDispose]: stop,
  };
}
