import type { Kube } from '../../src/kube/api.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import {
  appsOf,
  type ClusterMesh,
  GATEWAY_ACCOUNT,
  GATEWAY_NAMESPACE,
  type MeshSetup,
  MeshWorkload,
  WORKLOAD,
} from '../cluster/mesh.ts';
import { startUpstream } from '../tls/upstream.ts';
import type { Caller } from './ca-service.ts';
import { startIstio } from './istio.ts';

/** ALPN values that the filter chains of a permissive sidecar match, if a port is declared as HTTP. */
const SIDECAR_ALPN = ['istio', 'istio-peer-exchange', 'istio-http/1.0', 'istio-http/1.1', 'istio-h2'];
const AUDIENCE = 'istio-ca';

/** istiod with its own root, and a sidecar that accepts only the gateway's ServiceAccount. */
export async function istioMesh({ api, kube, ...setup }: MeshSetup): Promise<ClusterMesh> {
  const istio = await startIstio({
    ...setup,
    authenticate: (token) => reviewed(kube, token),
    publishRoots: (pem) => {
      for (const namespace of [GATEWAY_NAMESPACE, appsOf('istio')]) {
        const metadata = { name: 'istio-ca-root-cert', namespace, labels: { 'istio.io/config': 'true' } };
        api.put({ apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'root-cert.pem': pem } });
      }
    },
  });
  const id = istio.idOf(appsOf('istio'), WORKLOAD);
  const gatewayId = istio.idOf(GATEWAY_NAMESPACE, GATEWAY_ACCOUNT);
  const sidecar = new MeshWorkload(setup.clock, () => ({ identity: istio.issueServer(id), more: istio.roots() }));
  const upstream = await startUpstream({
    identity: () => sidecar.now.identity,
    trust: () => sidecar.now.more,
    allow: (peer) => peer === gatewayId,
    alpn: SIDECAR_ALPN,
  });
  return {
    name: 'istio',
    config: { ca: { address: istio.address, serverName: istio.serverName, serviceAccount: GATEWAY_ACCOUNT } },
    gatewayId,
    endpoint: () => ({ host: '127.0.0.1', port: upstream.port }),
    requests: () => upstream.requests,
    expired: () => upstream.counts.expired,
    async rotateRoot(pause) {
      while ((await istio.overlapRoot()) !== 'alone') await pause();
    },
    setLeafLifetime: (ms) => istio.setLeafLifetime(ms),
    outage: (on) => istio.outage(on),
    async stop() {
      await upstream.stop();
      await istio.stop();
    },
  };
}

async function reviewed(kube: Kube, token: string): Promise<Caller | undefined> {
  const review = await kube.post<KubeObject & { status?: { authenticated?: boolean; user?: { username?: string } } }>(
    RESOURCES.tokenReviews,
    {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      metadata: { name: '' },
      spec: { token, audiences: [AUDIENCE] },
    },
  );
  const { authenticated, user } = review.status ?? {};
  const [, , namespace, account] = authenticated ? (user?.username ?? '').split(':') : [];
  return namespace && account ? { namespace, account } : undefined;
}
