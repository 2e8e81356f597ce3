import {
  appsOf,
  type ClusterMesh,
  GATEWAY_ACCOUNT,
  GATEWAY_NAMESPACE,
  type MeshSetup,
  WORKLOAD,
} from '../cluster/mesh.ts';
import { startLinkerd } from './linkerd.ts';
import type { Pod } from './pod.ts';

/** A leaf becomes valid this share of its life before its issue, or it would already be due for renewal. */
const SKEW_OF_LIFE = 0.1;
/** How long a terminating pod still answers: longer than any request takes here. */
const DRAIN_MS = 100;
const PORT = 8443;

/** Linkerd's control plane, and a Service of two pods behind proxies that accept the gateway's identity. */
export async function linkerdMesh({ api, kube, ...setup }: MeshSetup): Promise<ClusterMesh> {
  api.put({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'linkerd' } });
  const linkerd = await startLinkerd({ ...setup, skewMs: setup.leafLifetimeMs * SKEW_OF_LIFE });
  await linkerd.install(kube);
  const gatewayId = linkerd.identityOf(GATEWAY_ACCOUNT, GATEWAY_NAMESPACE);
  const startPod = (name: string) =>
    linkerd.startPod({
      name,
      namespace: appsOf('linkerd'),
      serviceAccount: WORKLOAD,
      policy: { identities: [gatewayId] },
    });
  const pods: [Pod, Pod] = [await startPod(`${WORKLOAD}-1`), await startPod(`${WORKLOAD}-2`)];
  await linkerd.addPods({ name: WORKLOAD, namespace: appsOf('linkerd'), port: 443, pods, podPort: PORT });
  let serving = pods[0];

  /** Pod by pod, like a rollout: proxies read their anchors only at start. */
  async function rollOut(): Promise<void> {
    linkerd.restartControlPlane();
    const [one, two] = pods;
    serving = two;
    await setup.clock.sleep(DRAIN_MS);
    await one.restart();
    // Until the gateway knows that its idle connections to the old pod are gone.
    await setup.clock.sleep(DRAIN_MS);
    serving = one;
    await setup.clock.sleep(DRAIN_MS);
    await two.restart();
  }

  return {
    name: 'linkerd',
    config: {
      serviceAccount: { name: GATEWAY_ACCOUNT },
      address: linkerd.address,
    },
    gatewayId,
    endpoint: () => ({ host: '127.0.0.1', port: serving.port }),
    requests: () => pods.reduce((sum, pod) => sum + pod.counts.requests, 0),
    expired: () => pods.reduce((sum, { proxy }) => sum + (proxy?.counts.expired ?? 0), 0),
    async rotateRoot(pause) {
      await linkerd.addRoot();
      await rollOut();
      await pause();
      linkerd.rotateIssuer();
      await pause();
      await linkerd.dropOldRoots();
      await rollOut();
    },
    setLeafLifetime(ms) {
      linkerd.setLeafLifetime(ms);
      linkerd.setSkew(ms * SKEW_OF_LIFE);
    },
    outage: (on) => linkerd.outage(on),
    stop: () => linkerd.stop(),
  };
}
