import {
  appsOf,
  type ClusterMesh,
  GATEWAY_ACCOUNT,
  GATEWAY_NAMESPACE,
  type MeshSetup,
  MeshWorkload,
  WORKLOAD,
} from '../cluster/mesh.ts';
import { IstioAuthority } from '../istio/authority.ts';
import { startUpstream } from '../tls/upstream.ts';
import { FileWriter } from './writer.ts';

/** A sidecar's files, written one after the other, and a workload that lets in their identity and nobody else. */
export async function fileMesh({ clock, leafLifetimeMs, rootLifetimeMs }: MeshSetup): Promise<ClusterMesh> {
  const authority = new IstioAuthority({ clock, layout: 'self-signed', leafLifetimeMs, rootLifetimeMs });
  const idOf = (namespace: string, account: string) => `spiffe://cluster.local/ns/${namespace}/sa/${account}`;
  const gatewayId = idOf(GATEWAY_NAMESPACE, GATEWAY_ACCOUNT);
  const writer = await FileWriter.start({
    clock,
    manner: 'in-place',
    layout: 'istio',
    issue: () => authority.identity(gatewayId),
  });
  const serverId = idOf(appsOf('file'), WORKLOAD);
  const sidecar = new MeshWorkload(clock, () => ({
    identity: authority.identity(serverId),
    more: [...authority.roots],
  }));
  const upstream = await startUpstream({
    identity: () => sidecar.now.identity,
    trust: () => sidecar.now.more,
    allow: (peer) => peer === gatewayId,
  });
  return {
    name: 'file',
    config: writer.config,
    gatewayId,
    workloadId: serverId,
    endpoint: () => ({ host: '127.0.0.1', port: upstream.port }),
    requests: () => upstream.requests,
    expired: () => upstream.counts.expired,
    async rotateRoot(pause) {
      for (;;) {
        const step = authority.overlapRoot();
        await writer.rotate();
        if (step === 'alone') return;
        await pause();
      }
    },
    setLeafLifetime(ms) {
      authority.leafLifetimeMs = ms;
    },
    outage: (on) => writer.outage(on),
    async stop() {
      await upstream.stop();
      await writer.stop();
    },
  };
}
