import type { Caller } from '../../../sandbox/istio/ca-service.ts';
import { type Istio, startIstio } from '../../../sandbox/istio/istio.ts';
import { readIstioToken } from '../../support/istio-token.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';

export interface MeshCa extends AsyncDisposable {
  readonly istio: Istio;
  /** Called for each request for a certificate, before it is signed; the answer waits for it. */
  onAsk(hook: ((caller: Caller) => Promise<void> | void) | undefined): void;
}

/**
 * The sandbox's istiod, whose leaves may live for seconds, beside a real API server: it accepts that server's tokens,
 * and maintains ConfigMap istio-ca-root-cert in the given namespaces.
 */
export async function startMeshCa(options: {
  readonly apiserver: KubeApiserver;
  readonly namespaces: readonly string[];
  readonly leafLifetimeMs: number;
}): Promise<MeshCa> {
  const { apiserver, namespaces, leafLifetimeMs } = options;
  let hook: ((caller: Caller) => Promise<void> | void) | undefined;
  const istio = await startIstio({
    leafLifetimeMs,
    async authenticate(token) {
      const caller = readIstioToken(token);
      if (caller) await hook?.(caller);
      return caller;
    },
    async publishRoots(pem) {
      for (const namespace of namespaces) {
        await apiserver.apply(`/api/v1/namespaces/${namespace}/configmaps`, {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name: 'istio-ca-root-cert' },
          data: { 'root-cert.pem': pem },
        });
      }
    },
  });
  return {
    istio,
    onAsk(next) {
      hook = next;
    },
    [Symbol.asyncDispose]: () => istio.stop(),
  };
}

/** `spec.istio` for ServiceAccount `gateway`, as one line of YAML, which JSON is. */
export const askingSpec = (istio: Istio): string =>
  JSON.stringify({
    trustDomain: istio.trustDomain,
    ca: { address: istio.address, serverName: istio.serverName, serviceAccount: 'gateway' },
  });
