import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { gatewayApi } from '../../src/gateway/gateway-api/gateway.ts';
import { fields, type KubeObject } from '../../src/objects/objects.ts';

import { NAMESPACE } from '../support/agent-world.ts';
import { gatewayContract } from './gateway-contract.ts';

const labels = { mesh: 'istio' };
const spec = { gateways: { selector: { matchLabels: labels } }, services: { selector: { matchLabels: labels } } };
const object = (apiVersion: string, kind: string, name: string, of: object, more: object = {}): KubeObject => ({
  ...{ apiVersion, kind },
  metadata: { name, namespace: NAMESPACE, ...more },
  spec: of,
});
const STANDARD = 'gateway.networking.k8s.io/v1';
const gatewayClass: KubeObject = {
  ...{ apiVersion: STANDARD, kind: 'GatewayClass', metadata: { name: 'eg' } },
  spec: { controllerName: 'gateway.envoyproxy.io/gatewayclass-controller' },
};
const infrastructure = { parametersRef: { group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy', name: 'proxy' } };
const edge = object(STANDARD, 'Gateway', 'edge', { gatewayClassName: 'eg' }, { labels });
const withProxy = object(STANDARD, 'Gateway', 'edge', { gatewayClassName: 'eg', infrastructure }, { labels });
const proxy = object('gateway.envoyproxy.io/v1alpha1', 'EnvoyProxy', 'proxy', { concurrency: 1 });
const bare = ({ metadata: { labels: _, ...metadata }, ...rest }: KubeObject): KubeObject => ({ ...rest, metadata });
const common = { gateway: gatewayApi as Gateway, definitions: gatewayApiDefinitions() };

const service = object('v1', 'Service', 'web', { ports: [{ name: 'https', port: 443 }], selector: {} }, { labels });
const pod = object('v1', 'Pod', 'web-1', { serviceAccountName: 'web' });
const slice: KubeObject = {
  ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4' },
  metadata: { name: 'web-1', namespace: NAMESPACE, labels: { 'kubernetes.io/service-name': 'web' } },
  ports: [{ name: 'https', port: 8443 }],
  endpoints: [{ addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', name: 'web-1', namespace: NAMESPACE } }],
};
const httpRoute = object(STANDARD, 'HTTPRoute', 'web', { rules: [{ backendRefs: [{ name: 'web', port: 443 }] }] });
const clientCertificateRef = { group: '', kind: 'Secret', name: 'istio-identity', namespace: NAMESPACE };

gatewayContract('Gateway API, with the certificate named by a Gateway,', {
  ...common,
  spec: { gatewayApi: { ...spec, clientCertificate: 'Gateway' } },
  route: edge,
  unselected: bare,
  beside: [gatewayClass],
});

gatewayContract('Gateway API, with the certificate named by an EnvoyProxy,', {
  ...common,
  spec: { gatewayApi: spec },
  route: proxy,
  // The Gateway that names it selects it.
  unselected: (route) => route,
  released: (route) => [bare(withProxy), { ...route, spec: { concurrency: 1 } }],
  beside: [gatewayClass, withProxy, service, pod, slice],
});

gatewayContract('Gateway API, for the Services that it verifies,', {
  ...common,
  spec: { gatewayApi: { ...spec, clientCertificate: 'Gateway' } },
  route: service,
  unselected: bare,
  released: (route) => [bare(route), { ...httpRoute, spec: { rules: [] } }, bare(edge)],
  beside: [
    ...[gatewayClass, pod, slice, httpRoute],
    { ...edge, spec: { ...fields(edge.spec), tls: { backend: { clientCertificateRef } } } },
  ],
});

const backend = object(
  ...(['gateway.envoyproxy.io/v1alpha1', 'Backend', 'web'] as const),
  { endpoints: [{ fqdn: { hostname: `web.${NAMESPACE}.svc.cluster.local`, port: 443 } }] },
  { labels },
);
const toBackend = { group: 'gateway.envoyproxy.io', kind: 'Backend', name: 'web' };
const backendRoute = object(STANDARD, 'HTTPRoute', 'web', { rules: [{ backendRefs: [toBackend] }] });

gatewayContract('Gateway API, with the certificate named by a Backend,', {
  ...common,
  spec: { gatewayApi: { clientCertificate: 'Backend', backends: { selector: { matchLabels: labels } } } },
  route: backend,
  unselected: bare,
  released: (route) => [bare(route), { ...backendRoute, spec: { rules: [] } }],
  beside: [gatewayClass, bare(service), pod, slice, backendRoute],
});
