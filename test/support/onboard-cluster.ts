import { stringify } from 'yaml';
import type { KubeObject, ObjectMeta } from '../../src/objects/objects.ts';
import { ONBOARD_FIELD_MANAGER } from '../../src/onboard/moves.ts';
import type { AgentObjects } from '../../src/onboard/offboard.ts';
import { isOnboarded, type OnboardSnapshot } from '../../src/onboard/snapshot.ts';

type Labels = Readonly<Record<string, string>>;

const object = (apiVersion: string, kind: string, metadata: ObjectMeta, rest: object = {}): KubeObject => ({
  apiVersion,
  kind,
  metadata,
  ...rest,
});

export const namespace = (name: string, labels: Labels = {}): KubeObject => object('v1', 'Namespace', { name, labels });

const configMap = (name: string, of: string, data: Labels): KubeObject =>
  object('v1', 'ConfigMap', { name, namespace: of }, { data });

interface WorkloadOptions {
  readonly kind?: 'Deployment' | 'DaemonSet' | 'StatefulSet';
  readonly name: string;
  readonly namespace: string;
  readonly labels?: Labels;
  readonly annotations?: Labels;
  readonly image: string;
  readonly args?: readonly string[];
  readonly env?: Labels;
  readonly serviceAccount?: string;
}

export function workload(request: WorkloadOptions): KubeObject {
  const { kind = 'Deployment', name, namespace, labels = { app: name }, annotations = {}, image, args = [] } = request;
  const env = Object.entries(request.env ?? {}).map(([key, value]) => ({ name: key, value }));
  const container = { name, image, args, env };
  const spec = {
    ...(kind === 'StatefulSet' ? { serviceName: name } : {}),
    selector: { matchLabels: labels },
    template: {
      metadata: { labels, annotations },
      spec: {
        containers: [container],
        ...(request.serviceAccount ? { serviceAccountName: request.serviceAccount } : {}),
      },
    },
  };
  return object('apps/v1', kind, { name, namespace, labels }, { spec });
}

export const gateway = (changes: Partial<WorkloadOptions> = {}): KubeObject =>
  workload({
    name: 'emissary-ingress',
    namespace: 'emissary',
    labels: { 'app.kubernetes.io/name': 'emissary-ingress' },
    image: 'ghcr.io/emissary-ingress/emissary:4.1.0',
    serviceAccount: 'emissary-ingress',
    ...changes,
  });

export function istiod(revision = 'default', changes: Partial<WorkloadOptions> = {}): KubeObject[] {
  const name = revision === 'default' ? 'istiod' : `istiod-${revision}`;
  const labels = { app: 'istiod', 'istio.io/rev': revision };
  const image = 'docker.io/istio/pilot:1.27.1-distroless';
  return [
    workload({ name, namespace: 'istio-system', labels, image, ...changes }),
    service(name, 'istio-system', [{ name: 'https-dns', port: 15012 }]),
    configMap(revision === 'default' ? 'istio' : `istio-${revision}`, 'istio-system', {
      mesh: stringify({ trustDomain: 'cluster.local' }),
    }),
  ];
}

export const linkerdConfig = (values: object = {}): KubeObject =>
  configMap('linkerd-config', 'linkerd', {
    values: stringify({ clusterDomain: 'cluster.local', identityTrustDomain: 'cluster.local', ...values }),
  });

export function consulServer({ tls = false, acls = false } = {}): KubeObject[] {
  const ports = tls ? { grpc: -1, grpc_tls: 8502 } : { grpc: 8502, grpc_tls: -1 };
  const files: Record<string, string> = {
    'server.json': JSON.stringify({ datacenter: 'dc1', domain: 'consul', ports }),
    ...(acls ? { 'acl-config.json': JSON.stringify({ acl: { enabled: true, default_policy: 'deny' } }) } : {}),
  };
  return [
    workload({
      kind: 'StatefulSet',
      name: 'consul-server',
      namespace: 'consul',
      labels: { app: 'consul', component: 'server', release: 'consul' },
      image: 'hashicorp/consul:1.21.0',
    }),
    service('consul-server', 'consul', [
      { name: tls ? 'https' : 'http', port: tls ? 8501 : 8500 },
      { name: 'grpc', port: 8502 },
    ]),
    configMap('consul-server-config', 'consul', files),
  ];
}

export const service = (
  name: string,
  of: string,
  ports: readonly { readonly name: string; readonly port: number }[],
): KubeObject => object('v1', 'Service', { name, namespace: of }, { spec: { selector: { app: name }, ports } });

export type AppMesh = 'istio' | 'linkerd' | 'consul' | 'ambient' | 'none';

const MARKS: Readonly<Record<AppMesh, { labels?: Labels; annotations?: Labels; sidecar?: string }>> = {
  istio: { annotations: { 'sidecar.istio.io/status': '{}' }, sidecar: 'istio-proxy' },
  linkerd: { labels: { 'linkerd.io/control-plane-ns': 'linkerd' }, sidecar: 'linkerd-proxy' },
  consul: { labels: { 'consul.hashicorp.com/connect-inject-status': 'injected' }, sidecar: 'consul-dataplane' },
  ambient: { annotations: { 'ambient.istio.io/redirection': 'enabled' } },
  none: {},
};

/** A Service of one ready pod, in a mesh or in none. */
export function app(mesh: AppMesh, name: string, of: string, port = 80): KubeObject[] {
  const pod = `${name}-0`;
  const { labels = {}, annotations = {}, sidecar } = MARKS[mesh];
  const containers = [name, ...(sidecar ? [sidecar] : [])].map((one) => ({ name: one, image: one }));
  return [
    service(name, of, [{ name: 'http', port }]),
    object(
      'v1',
      'Pod',
      { name: pod, namespace: of, labels: { app: name, ...labels }, annotations },
      { spec: { serviceAccountName: name, containers } },
    ),
    object(
      'discovery.k8s.io/v1',
      'EndpointSlice',
      { name: `${name}-1`, namespace: of, labels: { 'kubernetes.io/service-name': name } },
      {
        addressType: 'IPv4',
        ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
        endpoints: [
          {
            addresses: ['10.0.0.7'],
            conditions: { ready: true },
            targetRef: { kind: 'Pod', name: pod, namespace: of },
          },
        ],
      },
    ),
  ];
}

export const mapping = (name: string, of: string, spec: object, metadata: Partial<ObjectMeta> = {}): KubeObject =>
  object(
    'getambassador.io/v3alpha1',
    'Mapping',
    { name, namespace: of, ...metadata },
    { spec: { hostname: '*', prefix: `/${name}/`, ...spec } },
  );

const STANDARD = 'gateway.networking.k8s.io/v1';

/** A Gateway and its class, of Envoy Gateway unless another controller is given. */
export const gatewayApi = (
  name = 'edge',
  of = 'emissary',
  controllerName = 'gateway.envoyproxy.io/gatewayclass-controller',
): KubeObject[] => [
  object(STANDARD, 'GatewayClass', { name: controllerName.split('/')[0] ?? '' }, { spec: { controllerName } }),
  object(STANDARD, 'Gateway', { name, namespace: of }, { spec: { gatewayClassName: controllerName.split('/')[0] } }),
];

/** Of the Gateway `edge` in `emissary`; each target is `SERVICE:PORT` of the route's namespace. */
export const httpRoute = (name: string, of: string, targets: readonly string[], more: object = {}): KubeObject =>
  object(
    STANDARD,
    'HTTPRoute',
    { name, namespace: of },
    {
      spec: {
        parentRefs: [{ name: 'edge', namespace: 'emissary' }],
        rules: targets.map((target) => ({
          matches: [{ path: { type: 'PathPrefix', value: `/${name}` } }],
          backendRefs: [{ name: target.split(':')[0], port: Number(target.split(':')[1]), weight: 1 }],
        })),
        ...more,
      },
    },
  );

/** The snapshot of a cluster with these objects. */
export function snapshotOf(objects: readonly KubeObject[], changes: Partial<OnboardSnapshot> = {}): OnboardSnapshot {
  const of = (...kinds: readonly string[]) => objects.filter(({ kind }) => kinds.includes(kind));
  return {
    namespaces: of('Namespace'),
    workloads: of('Deployment', 'DaemonSet', 'StatefulSet'),
    services: of('Service'),
    configMaps: of('ConfigMap'),
    gatewayWorkloads: of('Deployment').filter((one) => JSON.stringify(one).includes('/emissary:')),
    directories: new Map(),
    gatewayObjects: objects.filter(
      ({ apiVersion, kind }) => kind === 'Service' || /^(getambassador\.io|gateway\.)/.test(apiVersion),
    ),
    meshCertificates: of('MeshCertificate'),
    defined: true,
    pods: of('Pod'),
    endpointSlices: of('EndpointSlice'),
    leases: of('Lease'),
    certificates: new Map(),
    rights: of('Role', 'ClusterRole', 'RoleBinding', 'ClusterRoleBinding').filter(isOnboarded),
    bindings: of('RoleBinding', 'ClusterRoleBinding'),
    unseen: [],
    unserved: new Set(),
    ...changes,
  };
}

/** An object as the API server returns it after `onboard` applied it. */
export const applied = (one: KubeObject): KubeObject => ({
  ...one,
  metadata: {
    ...one.metadata,
    managedFields: [{ manager: ONBOARD_FIELD_MANAGER, operation: 'Apply', fieldsV1: { 'f:metadata': {} } }],
  },
});

/** An agent of which `offboard` has nothing to take away. */
export const nothingElse: AgentObjects = { needed: () => undefined, observed: [], lease: undefined };
