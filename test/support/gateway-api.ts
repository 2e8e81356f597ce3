import { fields, type KubeObject } from '../../src/objects/objects.ts';

/** Objects of Gateway API and of the Services behind it, as their users write them. */

const STANDARD = 'gateway.networking.k8s.io/v1';
export const LABELS = { mesh: 'istio' };

export const SPEC = {
  gateways: { selector: { matchLabels: LABELS } },
  services: { selector: { matchLabels: LABELS }, namespaces: ['shop'] },
} as const;

interface Meta {
  readonly namespace?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export const object = (apiVersion: string, kind: string, name: string, spec: object, meta: Meta = {}): KubeObject => ({
  ...{ apiVersion, kind, spec },
  metadata: { name, ...meta },
});

export const gatewayClass = (
  name = 'eg',
  controllerName = 'gateway.envoyproxy.io/gatewayclass-controller',
  parametersRef?: object,
) => object(STANDARD, 'GatewayClass', name, { controllerName, parametersRef });

/** In the namespace of the MeshCertificate. */
export const gateway = (spec: object = {}, meta: Meta = {}) =>
  object(
    ...([STANDARD, 'Gateway', 'edge'] as const),
    {
      gatewayClassName: 'eg',
      listeners: [{ name: 'http', protocol: 'HTTP', port: 80, allowedRoutes: { namespaces: { from: 'All' } } }],
      infrastructure: { parametersRef: { group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy', name: 'proxy' } },
      ...spec,
    },
    { namespace: 'emissary', labels: LABELS, ...meta },
  );

export const envoyProxy = (spec: object = {}) =>
  object('gateway.envoyproxy.io/v1alpha1', 'EnvoyProxy', 'proxy', spec, { namespace: 'emissary' });

/** Selected, in the namespace of the MeshCertificate; it leads to the Service `web` in `shop`. */
export const backend = (spec: object = {}, meta: Meta = {}, name = 'web') =>
  object(
    ...(['gateway.envoyproxy.io/v1alpha1', 'Backend', name] as const),
    { endpoints: [{ fqdn: { hostname: 'web.shop.svc.cluster.local', port: 443 } }], ...spec },
    { namespace: 'emissary', labels: LABELS, ...meta },
  );

/** The MeshCertificate whose Backends present the certificate. */
export const BACKENDS = {
  clientCertificate: 'Backend',
  backends: { selector: { matchLabels: LABELS }, namespaces: ['shop'] },
} as const;

export const clientCertificateRef = { group: '', kind: 'Secret', name: 'istio-identity', namespace: 'emissary' };

/** Selected, in a namespace that consents. */
export const service = (spec: object = {}, meta: Meta = {}, name = 'web') =>
  object(
    ...(['v1', 'Service', name] as const),
    { ports: [{ name: 'https', port: 443, targetPort: 8443 }], selector: { app: name }, ...spec },
    { namespace: 'shop', labels: LABELS, annotations: { 'meshcert.dev/allow-from': 'emissary' }, ...meta },
  );

export const pod = (name: string, serviceAccountName: string | undefined = 'web', app = 'web') =>
  object('v1', 'Pod', name, { serviceAccountName }, { namespace: 'shop', labels: { app } });

export const slice = (pods: readonly string[], of = 'web'): KubeObject => ({
  ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4' },
  metadata: { name: `${of}-1`, namespace: 'shop', labels: { 'kubernetes.io/service-name': of } },
  ports: [{ name: 'https', port: 8443 }],
  endpoints: pods.map((name, at) => ({
    addresses: [`10.0.0.${at + 1}`],
    targetRef: { kind: 'Pod', name, namespace: 'shop' },
  })),
});

export const httpRoute = (name = 'web', port = 443, namespace = 'shop') =>
  object(
    ...([STANDARD, 'HTTPRoute', name] as const),
    { parentRefs: [{ name: 'edge', namespace: 'emissary' }], rules: [{ backendRefs: [{ name: 'web', port }] }] },
    { namespace },
  );

export const backendRoute = (name = 'web', namespace = 'emissary'): KubeObject => {
  const route = httpRoute(name, 443, 'shop');
  const ref = { group: 'gateway.envoyproxy.io', kind: 'Backend', name, namespace };
  return { ...route, spec: { rules: [{ backendRefs: [ref] }] } };
};

/** Somebody else's. */
export const policy = (ref: object, meta: Meta = {}) =>
  object(
    ...([STANDARD, 'BackendTLSPolicy', 'theirs'] as const),
    {
      targetRefs: [{ group: '', kind: 'Service', name: 'web', ...ref }],
      validation: { caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'ca' }], hostname: 'web' },
    },
    { namespace: 'shop', ...meta },
  );

export const without = (one: KubeObject, ...keys: readonly ('labels' | 'annotations')[]): KubeObject => ({
  ...one,
  metadata: Object.fromEntries(
    Object.entries(one.metadata).filter(([key]) => !(keys as readonly string[]).includes(key)),
  ) as unknown as KubeObject['metadata'],
});

/** The subject alternative names of a policy. */
export const namesOf = (one: KubeObject | undefined): readonly string[] => {
  const names = fields(fields(one?.spec).validation).subjectAltNames;
  return (Array.isArray(names) ? names : []).map((name) => String(fields(name).uri ?? fields(name).hostname));
};
