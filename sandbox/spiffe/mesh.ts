import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ClusterMesh, type MeshSetup, MeshWorkload, WORKLOAD } from '../cluster/mesh.ts';
import { startUpstream } from '../tls/upstream.ts';
import { SpireAuthority } from './authority.ts';
import { WorkloadApi } from './workload-api.ts';

/** A SPIRE agent that knows the gateway, and a workload that lets in the gateway and nobody else. */
export async function spiffeMesh({ clock, leafLifetimeMs, rootLifetimeMs }: MeshSetup): Promise<ClusterMesh> {
  const trustDomain = 'example.org';
  const authority = new SpireAuthority({ clock, trustDomain, leafLifetimeMs, caLifetimeMs: rootLifetimeMs });
  const gatewayId = authority.idOf('/gateway');
  const directory = await mkdtemp(join(tmpdir(), 'meshcert-spiffe-'));
  const socket = join(directory, 'spire-agent.sock');
  const entries = [{ id: gatewayId, hint: 'gateway' }];
  const api = await WorkloadApi.start({ clock, authority, listen: { path: socket }, entries });
  const workload = new MeshWorkload(clock, () => ({
    identity: authority.issue(authority.idOf(`/${WORKLOAD}`)),
    more: undefined,
  }));
  const upstream = await startUpstream({
    identity: () => workload.now.identity,
    // Bundles reach each workload within seconds, long before its own leaf is renewed.
    trust: () => [...authority.roots],
    allow: (peer) => peer === gatewayId,
  });
  return {
    name: 'spiffe',
    config: { socket },
    gatewayId,
    workloadId: authority.idOf(`/${WORKLOAD}`),
    endpoint: () => ({ host: '127.0.0.1', port: upstream.port }),
    requests: () => upstream.requests,
    expired: () => upstream.counts.expired,
    async rotateRoot(pause) {
      authority.prepare();
      api.update();
      await pause();
      authority.activate();
      api.update();
      await pause();
      authority.revoke();
      api.update();
    },
    setLeafLifetime(ms) {
      authority.leafLifetimeMs = ms;
    },
    outage: (on) => api.outage(on),
    async stop() {
      await upstream.stop();
      await api.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}
