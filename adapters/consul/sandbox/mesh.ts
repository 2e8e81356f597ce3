import { type ClusterMesh, type MeshSetup, WORKLOAD } from '../../../src/sandbox/cluster/mesh.ts';
import { startConsul } from './consul.ts';
import { startSidecar } from './sidecar.ts';

/** The gateway's name in intentions. */
const SERVICE = 'ambassador';

/** A Consul server with its Connect CA, and a sidecar whose intentions allow only the gateway's service. */
export async function consulMesh(setup: MeshSetup): Promise<ClusterMesh> {
  const { clock, random, leafLifetimeMs, rootLifetimeMs } = setup;
  const consul = await startConsul({ clock, random, leafLifetimeMs, rootLifetimeMs });
  const sidecar = await startSidecar(consul, WORKLOAD, clock);
  return {
    name: 'consul',
    config: {
      service: SERVICE,
      datacenter: consul.datacenter,
      grpc: { addresses: [consul.grpcAddress], plaintext: true },
    },
    gatewayId: `spiffe://${consul.trustDomain}/ns/default/dc/${consul.datacenter}/svc/${SERVICE}`,
    endpoint: () => ({ host: '127.0.0.1', port: sidecar.port }),
    requests: () => sidecar.requests,
    async rotateRoot(pause) {
      consul.rotateRoot({ crossSign: true });
      await pause();
      await pause();
      consul.pruneRoots();
    },
    setLeafLifetime: (ms) => consul.setLeafLifetime(ms),
    outage: (on) => consul.outage(on),
    async stop() {
      await sidecar.stop();
      await consul.stop();
    },
  };
}
