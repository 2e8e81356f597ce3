import { discard, scratchDir } from '../peers/servers/process.ts';
import { type Cluster, startCluster } from './cluster.ts';
import type { ImageName } from './images.ts';
import { GATEWAY_ID, type GatewayPod, installGateway, prepareGateway } from './mesh/gateway.ts';
import { installIstiod, installWorkload } from './mesh/istio.ts';
import { openShell, packChart, type Shell } from './session.ts';

/** What a user of the README has before the installation: a cluster with Istio, a gateway, and a workload of the mesh. */
export interface World extends AsyncDisposable {
  readonly cluster: Cluster;
  readonly gateway: GatewayPod;
  readonly shell: Shell;
  /** The packed chart. */
  readonly chart: string;
}

export async function startWorld(...images: readonly ImageName[]): Promise<World> {
  const cluster = await startCluster({ images: ['meshcert', 'istiod', 'proxy', 'gateway', ...images] });
  try {
    const dir = scratchDir('user');
    const [shell, chart] = await Promise.all([openShell(cluster, dir), packChart(dir), prepareGateway(cluster)]);
    await installIstiod(cluster);
    await installWorkload(cluster, { name: 'web', namespace: 'shop', service: { port: 80 }, client: GATEWAY_ID });
    const gateway = await installGateway(cluster);
    return {
      cluster,
      gateway,
      shell,
      chart,
      async [Symbol.asyncDispose]() {
        await gateway[Symbol.asyncDispose]();
        await cluster[Symbol.asyncDispose]();
        discard(dir);
      },
    };
  } catch (error) {
    await cluster[Symbol.asyncDispose]();
    throw error;
  }
}
