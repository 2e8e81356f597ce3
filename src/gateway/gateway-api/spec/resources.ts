import type { Resource } from '../../../core/object.ts';

const standard = (kind: string, plural: string, namespaced = true): Resource => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind,
  plural,
  namespaced,
});

export const GATEWAY_API_RESOURCES = {
  policies: standard('BackendTLSPolicy', 'backendtlspolicies'),
  gateways: standard('Gateway', 'gateways'),
  classes: standard('GatewayClass', 'gatewayclasses', false),
  httpRoutes: standard('HTTPRoute', 'httproutes'),
  grpcRoutes: standard('GRPCRoute', 'grpcroutes'),
  envoyProxies: {
    apiVersion: 'gateway.envoyproxy.io/v1alpha1',
    kind: 'EnvoyProxy',
    plural: 'envoyproxies',
    namespaced: true,
  },
} as const satisfies Record<string, Resource>;

const core = (kind: string, plural: string): Resource => ({ apiVersion: 'v1', kind, plural, namespaced: true });

/** Kinds of Kubernetes itself that determine what is written. */
export const CORE_RESOURCES = {
  services: core('Service', 'services'),
  pods: core('Pod', 'pods'),
  configMaps: core('ConfigMap', 'configmaps'),
  endpointSlices: {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    plural: 'endpointslices',
    namespaced: true,
  },
} as const satisfies Record<string, Resource>;

/** Owns the fields of a Gateway or an EnvoyProxy by which it presents the certificate. */
export const CLIENT_FIELD_MANAGER = 'meshcert-gateways';
/** Controllers of Envoy Gateway have names that begin so; its administrator chooses the rest. */
export const ENVOY_GATEWAY = 'gateway.envoyproxy.io/';
