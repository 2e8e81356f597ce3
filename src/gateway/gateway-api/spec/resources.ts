import type { Resource } from '../../../core/object.ts';

/** The API groups of Gateway API itself and of Envoy Gateway. */
export const STANDARD = 'gateway.networking.k8s.io';
export const EXTENSIONS = 'gateway.envoyproxy.io';

const standard = (kind: string, plural: string, namespaced = true): Resource => ({
  apiVersion: `${STANDARD}/v1`,
  kind,
  plural,
  namespaced,
});
const extension = (kind: string, plural: string): Resource => ({
  apiVersion: `${EXTENSIONS}/v1alpha1`,
  kind,
  plural,
  namespaced: true,
});

export const GATEWAY_API_RESOURCES = {
  policies: standard('BackendTLSPolicy', 'backendtlspolicies'),
  gateways: standard('Gateway', 'gateways'),
  classes: standard('GatewayClass', 'gatewayclasses', false),
  httpRoutes: standard('HTTPRoute', 'httproutes'),
  grpcRoutes: standard('GRPCRoute', 'grpcroutes'),
  // v1 exists since Gateway API 1.5 only.
  grants: { apiVersion: `${STANDARD}/v1beta1`, kind: 'ReferenceGrant', plural: 'referencegrants', namespaced: true },
  envoyProxies: extension('EnvoyProxy', 'envoyproxies'),
  backends: extension('Backend', 'backends'),
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

/** Owns the fields of a Gateway, an EnvoyProxy or a Backend by which it presents the certificate. */
export const CLIENT_FIELD_MANAGER = 'meshcert-gateways';
/** Controllers of Envoy Gateway have names that begin so; its administrator chooses the rest. */
export const ENVOY_GATEWAY = `${EXTENSIONS}/`;
/** On a Service: ServiceAccounts, with commas between them, that its pods will have; they may answer before they do. */
export const NEXT_ANNOTATION = 'meshcert.dev/next-service-accounts';
