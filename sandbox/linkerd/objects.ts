import { stringify } from 'yaml';
import type { KubeObject } from '../../src/objects/objects.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import type { Pod } from './pod.ts';

/** The two ConfigMaps of a control plane that a client outside the mesh reads. */
export function controlPlaneObjects(plane: {
  readonly namespace: string;
  readonly trustDomain: string;
  readonly clusterDomain: string;
  readonly bundle: readonly Certificate[];
}): KubeObject[] {
  const { namespace, trustDomain, clusterDomain, bundle } = plane;
  const values = {
    clusterDomain,
    identityTrustDomain: trustDomain,
    proxy: { opaquePorts: '25,587,3306,4444,5432,6379,9300,11211' },
    proxyInit: { ignoreInboundPorts: '4567,4568' },
  };
  const configMap = (name: string, data: Record<string, string>): KubeObject => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace },
    data,
  });
  return [
    configMap('linkerd-config', { values: stringify(values) }),
    configMap('linkerd-identity-trust-roots', { 'ca-bundle.crt': formatCertificates(bundle) }),
  ];
}

export interface ServiceOptions {
  readonly name: string;
  readonly namespace: string;
  /** The port that clients use. */
  readonly port: number;
  readonly pods: readonly Pick<Pod, 'options' | 'port'>[];
  readonly controlPlane: string;
  /** On the pods, such as `config.linkerd.io/opaque-ports`. */
  readonly annotations?: Readonly<Record<string, string>> | undefined;
  /**
   * Ports of the pods in the API, if they differ from those that they listen on: the sandbox has one loopback for all.
   */
  readonly podPort?: number | undefined;
}

/** The API objects of a Service and its pods, including the EndpointSlice, which a controller would write. */
export function serviceObjects(options: ServiceOptions): KubeObject[] {
  const { name, namespace, port, pods, podPort } = options;
  const podObjects = pods.map(
    (pod): KubeObject => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: pod.options.name,
        namespace: pod.options.namespace,
        labels: {
          app: name,
          ...(pod.options.meshed !== false && { 'linkerd.io/control-plane-ns': options.controlPlane }),
        },
        ...(options.annotations && { annotations: options.annotations }),
      },
      spec: {
        serviceAccountName: pod.options.serviceAccount,
        containers: [{ name: 'app', image: 'app' }],
      },
    }),
  );
  const slices = pods.map(
    (pod, at): KubeObject => ({
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: `${name}-${pod.options.name}`, namespace, labels: { 'kubernetes.io/service-name': name } },
      addressType: 'IPv4',
      ports: [{ name: 'http', port: podPort ?? pod.port, protocol: 'TCP' }],
      endpoints: [
        {
          // Never dialled; API servers refuse a loopback address, where the pod really is.
          addresses: [`10.1.0.${at + 1}`],
          conditions: { ready: true },
          targetRef: { kind: 'Pod', name: pod.options.name, namespace: pod.options.namespace },
        },
      ],
    }),
  );
  const service: KubeObject = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace },
    spec: { selector: { app: name }, ports: [{ name: 'http', port, protocol: 'TCP' }] },
  };
  return [service, ...podObjects, ...slices];
}
