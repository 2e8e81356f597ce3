import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { type ClusterMesh, type MeshSetup, WORKLOAD } from '../cluster/mesh.ts';
import { type SandboxUpstream, startUpstream } from '../tls/upstream.ts';
import { type Consul, startConsul } from './consul.ts';

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
    expired: () => sidecar.counts.expired,
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

/**
 * The public listener of a service's Connect sidecar: requires a client certificate under any root of the cluster and
 * accepts the clients that the intentions allow. It renews its own certificate when the CA changes.
 */
export function startSidecar(consul: Consul, service: string, clock: { now(): number }): Promise<SandboxUpstream> {
  let own: Identity | undefined;
  return startUpstream({
    identity() {
      const isFresh = own !== undefined && consul.isCurrent(own) && clock.now() < halfLife(own);
      const current = own && isFresh ? own : consul.issueServer(service);
      own = current;
      return current;
    },
    trust: () => consul.roots(),
    allow: (peerId) => consul.intentions.allows(peerId, service),
  });
}

function halfLife(identity: Identity): number {
  const { notBefore, notAfter } = leafOf(identity);
  return (notBefore + notAfter) / 2;
}
