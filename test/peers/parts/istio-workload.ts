import { istio } from '../../../adapters/istio/adapter.ts';
import { type SandboxUpstream, startUpstream } from '../../../sandbox/tls/upstream.ts';
import { connect } from '../../../src/kube/client.ts';
import { isIssuer } from '../../../src/mesh/adapter.ts';
import { type Identity, leafOf } from '../../../src/mesh/identity.ts';
import { hostFor } from '../../support/host.ts';
import type { Istiod } from '../servers/istiod.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';

export interface Workload extends AsyncDisposable {
  readonly upstream: SandboxUpstream;
  /**
   * Requests a new certificate from istiod and trusts the roots that it names now, as a sidecar does at its next
   * rotation.
   */
  renew(): Promise<void>;
  readonly identity: Identity;
}

/** A workload of the mesh with a certificate of the real istiod, which requires one from its clients. */
export async function startIstioWorkload(options: {
  readonly apiserver: KubeApiserver;
  readonly istiod: Istiod;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly allow: (id: string) => boolean;
}): Promise<Workload> {
  const { apiserver, istiod, namespace, serviceAccount, allow } = options;
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'workload' });
  const host = hostFor(kube, { namespace });
  const config = istio.config.parse({
    ca: { address: istiod.secureAddress, serverName: istiod.serverName, serviceAccount },
  });
  const opened = istio.open(config, host);
  if (!isIssuer(opened)) throw new TypeError('the CA is asked');
  let identity = await opened.issue(AbortSignal.timeout(30_000));
  /** All roots that it ever received, as a sidecar with an overlap would keep them. */
  let trust = [...identity.roots];
  const upstream = await startUpstream({ identity: () => identity, trust: () => trust, allow });
  const renewed = async () => {
    identity = await opened.issue(AbortSignal.timeout(30_000));
    const known = new Set(trust.map((root) => root.fingerprint));
    trust = [...trust, ...identity.roots.filter((root) => !known.has(root.fingerprint))];
  };
  const timer = setInterval(() => {
    if (Date.now() > (leafOf(identity).notBefore + leafOf(identity).notAfter) / 2) renewed().catch(() => {});
  }, 1000);
  return {
    upstream,
    renew: renewed,
    get identity() {
      return identity;
    },
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await upstream.stop();
      await opened[Symbol.asyncDispose]();
      kube.close();
    },
  };
}
