import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { AgentWorld, NAMESPACE } from './agent-world.ts';
import { envoyProxy, gateway, gatewayClass, httpRoute, pod, SPEC, service, slice } from './gateway-api.ts';

export const STANDARD = 'gateway.networking.k8s.io/v1';
export const spec = { gatewayApi: SPEC };
/** A Gateway with its EnvoyProxy, and a Service with a pod and a route. */
export const all = [gatewayClass(), gateway(), envoyProxy(), service(), pod('web-1'), slice(['web-1']), httpRoute()];

/** An agent beside these objects. */
export async function start(
  objects: readonly KubeObject[] = all,
  definitions: readonly object[] = gatewayApiDefinitions(),
  further: readonly string[] = [],
) {
  const namespaces = [NAMESPACE, 'shop', ...further];
  const world = await AgentWorld.start({ namespaces, objects: [...definitions, ...objects] });
  const get = (apiVersion: string, kind: string, name: string, namespace: string) =>
    world.kube.get({ apiVersion, kind, namespace, name });
  return {
    world,
    policy: () => get(STANDARD, 'BackendTLSPolicy', 'istio-web-https', 'shop'),
    configMap: () => get('v1', 'ConfigMap', 'istio-ca', 'shop'),
    backend: () => get('gateway.envoyproxy.io/v1alpha1', 'Backend', 'web', NAMESPACE),
    backendPolicy: () => get(STANDARD, 'BackendTLSPolicy', 'istio-web.backend', NAMESPACE),
    grant: () => get('gateway.networking.k8s.io/v1beta1', 'ReferenceGrant', 'istio-shop.gateways', NAMESPACE),
    proxy: (name = 'proxy') => get('gateway.envoyproxy.io/v1alpha1', 'EnvoyProxy', name, NAMESPACE),
    gateway: () => get(STANDARD, 'Gateway', 'edge', NAMESPACE),
    writes: () =>
      world.api.requests.entries
        .filter(({ verb }) => ['create', 'patch', 'delete'].includes(verb))
        .map(({ verb, resource, name }) => [verb, resource, name].filter(Boolean).join(' ')),
    stateOf: (kind: string) => world.status?.mappings.find((one) => one.kind === kind)?.state,
    [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
  };
}
