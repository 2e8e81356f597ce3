import assert from 'node:assert/strict';
import { join } from 'node:path';
import { ROOT } from '../../scripts/tree.ts';
import { connect } from '../../src/kube/client.ts';
import { eventually } from '../peers/parts/eventually.ts';
import { type Load, startLoad } from '../peers/parts/load.ts';
import { type PairWatch, watchPair } from '../peers/parts/pair-watch.ts';
import type { Cluster } from './cluster.ts';
import type { ImageName } from './images.ts';
import { GATEWAY, type GatewayPod } from './mesh/gateway.ts';
import { apply, eventsAndLogs } from './mesh/objects.ts';
import { type Container, containerOf } from './node/containers.ts';
import { startWorld, type World } from './world.ts';

const { namespace } = GATEWAY;

/** The values of the README: two replicas, and a certificate of Istio for the gateway. */
export const VALUES = join(ROOT, 'deploy/helm/examples/istio.yaml');

/** A release of the chart under traffic from the gateway to a workload that demands mTLS, 50 requests a second. */
export interface Life extends AsyncDisposable {
  readonly world: World;
  readonly load: Load;
  readonly pair: PairWatch;
  /** Runs a script of a user; when it fails, says what the pods say. */
  user(script: string): Promise<string>;
  /** `kubectl get` in the namespace of the release. */
  get(what: string): Promise<string>;
  /** The names of the agent's running pods. */
  pods(): Promise<string[]>;
  /** The process that holds the Lease, by its pod and a random part; empty if nobody does. */
  holder(): Promise<string>;
  /** The pod of the process that holds the Lease; empty if nobody does. */
  writer(): Promise<string>;
  container(pod: string): Promise<Container>;
  /** Milliseconds from this call, which asks for a renewal, until another leaf is published. */
  nextWrite(): Promise<number>;
  /**
   * Milliseconds until another process than this holder has the Lease: that of the other pod, or the one that the kubelet
   * started in its place.
   */
  nextWriter(holder: string): Promise<number>;
  /** No request failed, no connection was in plaintext, and no published pair is one that an upstream refuses. */
  unharmed(): Promise<string>;
}

/** `install`: the script that installs the release, of the world's chart or of another. */
export async function startLife(
  install: (world: World) => string | Promise<string>,
  ...images: readonly ImageName[]
): Promise<Life> {
  const world = await startWorld(...images);
  const stops: (() => PromiseLike<void>)[] = [() => world[Symbol.asyncDispose]()];
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one();
  };
  try {
    return await begin(world, await install(world), stops, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function begin(
  world: World,
  install: string,
  stops: (() => PromiseLike<void>)[],
  stop: () => Promise<void>,
): Promise<Life> {
  const { cluster, gateway } = world;
  const user = (script: string): Promise<string> =>
    world.shell.run(script).catch(async (error) => {
      throw new Error(`${error.message}\n${await eventsAndLogs(cluster, namespace)}`);
    });
  const get = async (what: string) => (await user(`kubectl get -n ${namespace} ${what}`)).trim();
  const leaf = () => get("secret istio-identity -o jsonpath='{.data.tls\\.crt}'");
  const holder = () => get("lease meshcert -o jsonpath='{.spec.holderIdentity}'");
  const writer = async () => podOf(await holder());

  await apply(cluster, {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: 'web', namespace, labels: { mesh: 'istio' } },
    spec: { hostname: '*', prefix: '/web/', service: 'https://web.shop:80' },
  });
  await user(install);
  const kube = connect({ kubeconfig: cluster.kubeconfigFile, userAgent: 'watcher' });
  stops.push(async () => kube.close());
  const envoyCluster = await gateway.ready('web.shop');
  const pair = watchPair(kube, { namespace, identity: 'istio-identity', ca: 'istio-ca' });
  stops.push(() => pair[Symbol.asyncDispose]());
  const load = startLoad(gateway.url, envoyCluster, 50);
  stops.push(() => load.stop());

  return {
    world,
    load,
    pair,
    user,
    get,
    holder,
    writer,
    pods: async () =>
      (await get('pods -l app.kubernetes.io/name=meshcert --field-selector=status.phase=Running -o name'))
        .split('\n')
        .map((pod) => pod.replace('pod/', '')),
    container: (pod) => containerOf(cluster, namespace, pod),
    nextWrite: async () => {
      const start = performance.now();
      const before = await leaf();
      await user(`kubectl annotate mcert istio -n ${namespace} --overwrite meshcert.dev/renew=${Date.now()}`);
      await eventually('a new leaf', async () => (await leaf()) !== before, undefined, 120_000);
      return Math.round(performance.now() - start);
    },
    nextWriter: async (before) => {
      const start = performance.now();
      const next = async () => ![before, ''].includes(await holder());
      await eventually('another writer', next, undefined, 60_000).catch(async (error) => {
        throw new Error(`${error.message}\n${await eventsAndLogs(cluster, namespace)}`);
      });
      return Math.round(performance.now() - start);
    },
    unharmed: async () => {
      if (load.failed > 0) assert.fail(`${load.failures.join('\n')}\n${await trouble(cluster, gateway, envoyCluster)}`);
      assert.deepEqual(pair.violations, []);
      const name = `cluster.${envoyCluster}`;
      const stats = await gateway.stats(`^cluster\\..*\\.(ssl\\.handshake|upstream_cx_(total|connect_fail|active))$`);
      const [made = 0, shaken = 0, unmade = 0] = ['upstream_cx_total', 'ssl.handshake', 'upstream_cx_connect_fail'].map(
        (stat) => stats[`${name}.${stat}`],
      );
      assert.ok(shaken > 0 && made - unmade <= shaken, `${made} connections, ${unmade} failed, ${shaken} by TLS`);
      return `${load.answered} answered, ${load.failed} failed, ${shaken} of ${made} connections by TLS, ${pair.leaves.length} leaves`;
    },
    [Symbol.asyncDispose]: stop,
  };
}

/** The pod of a holder of the Lease. */
export const podOf = (holder: string): string => holder.split('_')[0] ?? '';

/** What the gateway counted of the upstream, and what the workload says. */
async function trouble(cluster: Cluster, gateway: GatewayPod, upstream: string): Promise<string> {
  const stats = Object.entries(await gateway.stats(`^cluster\\..*(cx_|rq_|ssl)`));
  const counted = stats.filter(([name, count]) => name.startsWith(`cluster.${upstream}.`) && count > 0);
  return `${JSON.stringify(Object.fromEntries(counted))}\n${await eventsAndLogs(cluster, 'shop')}`;
}
