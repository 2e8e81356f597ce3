import type { Kube } from '../../src/kube/api.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { CONTROLLER_NAME } from '../envoy-gateway/translation.ts';
import { gatewayApiDefinitions } from '../kube/gateway-api.ts';
import type { KubeApi } from '../kube/kube-api.ts';
import { appsOf, type ClusterMesh, GATEWAY_NAMESPACE, WORKLOAD } from './mesh.ts';

const STANDARD = 'gateway.networking.k8s.io/v1';
const CLASS = 'eg';
const PORT = 443;

/** The Gateway of a mesh, `namespace/name`. */
export const gatewayOf = ({ name }: Pick<ClusterMesh, 'name'>): string => `${GATEWAY_NAMESPACE}/${name}`;

/** What an administrator installs once. */
export function installGatewayApi(api: KubeApi): void {
  for (const definition of gatewayApiDefinitions()) api.put(definition);
  const spec = { controllerName: CONTROLLER_NAME };
  api.put({ apiVersion: STANDARD, kind: 'GatewayClass', metadata: { name: CLASS }, spec });
}

/**
 * A Gateway for a mesh, with an EnvoyProxy of its own since it presents one certificate, a route to the workload, and
 * the workload's Service, which consents to be verified.
 */
export async function serveByGateway(api: KubeApi, kube: Kube, { name }: ClusterMesh): Promise<void> {
  const namespace = appsOf(name);
  const labels = { mesh: name };
  const parent = { name, namespace: GATEWAY_NAMESPACE };
  const service = await kube.get({ apiVersion: 'v1', kind: 'Service', namespace, name: WORKLOAD });
  const consent = { labels, annotations: { 'meshcert.dev/allow-from': GATEWAY_NAMESPACE } };
  const objects: readonly object[] = [
    {
      ...{ apiVersion: 'gateway.envoyproxy.io/v1alpha1', kind: 'EnvoyProxy' },
      metadata: { name, namespace: GATEWAY_NAMESPACE },
      spec: {},
    },
    {
      ...{ apiVersion: STANDARD, kind: 'Gateway', metadata: { name, namespace: GATEWAY_NAMESPACE, labels } },
      spec: {
        gatewayClassName: CLASS,
        infrastructure: { parametersRef: { group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy', name } },
        listeners: [{ name: 'http', protocol: 'HTTP', port: 80, allowedRoutes: { namespaces: { from: 'All' } } }],
      },
    },
    ...(service ? [{ ...service, metadata: { ...service.metadata, ...consent } }] : workload(namespace, consent)),
    {
      ...{ apiVersion: STANDARD, kind: 'HTTPRoute', metadata: { name: WORKLOAD, namespace } },
      spec: {
        parentRefs: [parent],
        rules: [
          {
            matches: [{ path: { type: 'PathPrefix', value: `/${name}` } }],
            backendRefs: [{ name: WORKLOAD, port: PORT }],
          },
        ],
      },
    },
  ];
  for (const object of objects) api.put(object);
}

/** A Service and its pod, with the EndpointSlice that a controller would write. */
function workload(namespace: string, consent: object): readonly Omit<KubeObject, 'metadata'>[] {
  const labels = { app: WORKLOAD };
  const pod = `${WORKLOAD}-1`;
  const about = (name: string, more: object = {}) => ({ metadata: { name, namespace, ...more } });
  return [
    {
      ...{ apiVersion: 'v1', kind: 'Service', ...about(WORKLOAD, consent) },
      spec: { selector: labels, ports: [{ name: 'https', port: PORT, protocol: 'TCP' }] },
    },
    {
      ...{ apiVersion: 'v1', kind: 'Pod', ...about(pod, { labels }) },
      spec: { serviceAccountName: WORKLOAD, containers: [{ name: WORKLOAD, image: WORKLOAD }] },
    },
    {
      ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4' },
      ...about(`${WORKLOAD}-1`, { labels: { 'kubernetes.io/service-name': WORKLOAD } }),
      ports: [{ name: 'https', port: PORT, protocol: 'TCP' }],
      endpoints: [
        { addresses: ['10.1.0.1'], conditions: { ready: true }, targetRef: { kind: 'Pod', name: pod, namespace } },
      ],
    },
  ];
}

/** `spec.gatewayApi` of the MeshCertificate. */
export function gatewayApiFields({ name, workloadId }: ClusterMesh): object {
  const selector = { matchLabels: { mesh: name } };
  return {
    gateways: { selector },
    services: { selector, namespaces: [appsOf(name)] },
    ...(workloadId === undefined ? {} : { subjectAltNames: [workloadId] }),
  };
}
