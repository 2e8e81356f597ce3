import type { KubeObject } from '../../../core/object.ts';
import type { TargetRefusal, Workload } from '../../../mesh/targeting.ts';
import type { ServiceName } from './service-name.ts';

interface ServiceSpec {
  readonly type?: string;
  readonly clusterIP?: string;
  readonly externalName?: string;
  readonly ports?: readonly { readonly name?: string; readonly port: number }[];
}

interface Endpoint {
  readonly conditions?: { readonly ready?: boolean | null };
  readonly targetRef?: { readonly kind?: string; readonly namespace?: string; readonly name?: string };
}

interface Slice extends KubeObject {
  readonly ports?: readonly { readonly name?: string | null; readonly port?: number | null }[] | null;
  readonly endpoints?: readonly Endpoint[] | null;
}

/** A pod that serves a Service, and the port of the pod that does. */
export interface Answering {
  readonly workload: Workload;
  readonly port: number;
}

interface World {
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
}

const isNamed = (object: KubeObject, { name, namespace }: ServiceName) =>
  object.metadata.name === name && object.metadata.namespace === namespace;

/** The ready pods behind a port of a Service, or those that are not ready if no pod is. */
export function podsBehind(of: ServiceName, port: number, world: World): Answering[] | TargetRefusal {
  const title = `Service ${of.namespace}/${of.name}`;
  const service = world.services.find((object) => isNamed(object, of));
  if (!service) {
    const message = `${title} does not exist; create it, or correct the Mapping's service`;
    return { code: 'ERR_TARGET_NO_SERVICE', message };
  }
  const spec = (service.spec ?? {}) as ServiceSpec;
  if (spec.type === 'ExternalName') {
    const message = `${title} is an alias of ${spec.externalName}, which is outside the cluster; use the Service that has the pods`;
    return { code: 'ERR_TARGET_NOT_IN_CLUSTER', message };
  }
  const headless = spec.clusterIP === 'None';
  const servicePort = spec.ports?.find((candidate) => candidate.port === port);
  if (!servicePort && !headless) {
    const known = spec.ports?.map((candidate) => candidate.port).join(', ') ?? '';
    return { code: 'ERR_TARGET_NO_PORT', message: `${title} has no port ${port} but ${known}; use one of these` };
  }
  const slices = (world.endpointSlices as readonly Slice[]).filter(
    ({ metadata }) =>
      metadata.namespace === of.namespace && metadata.labels?.['kubernetes.io/service-name'] === of.name,
  );
  const answering = slices.flatMap((slice) => {
    const slicePort = slice.ports?.find((candidate) => (candidate.name ?? '') === (servicePort?.name ?? ''))?.port;
    const podPort = headless ? port : slicePort;
    return podPort == null ? [] : (slice.endpoints ?? []).map((endpoint) => ({ endpoint, port: podPort }));
  });
  if (answering.length === 0) {
    return { code: 'ERR_TARGET_NO_ENDPOINTS', message: `${title} has no endpoints on port ${port}; start its pods` };
  }
  const ready = answering.filter(({ endpoint }) => endpoint.conditions?.ready !== false);
  const chosen = ready.length > 0 ? ready : answering;
  const pods = new Map(world.pods.map((pod) => [`${pod.metadata.namespace}/${pod.metadata.name}`, pod]));
  const found: Answering[] = [];
  for (const { endpoint, port: podPort } of chosen) {
    const ref = endpoint.targetRef;
    const pod = ref?.kind === 'Pod' ? pods.get(`${ref.namespace ?? of.namespace}/${ref.name}`) : undefined;
    if (!pod) {
      const what = ref ? `${ref.kind} ${ref.name}, which is not a visible pod` : 'an address without a pod';
      const message = `${title} has the endpoint ${what}; its identity is unknown, so list the target in the MeshCertificate and name its context in the Mapping`;
      return { code: 'ERR_TARGET_NO_POD', message };
    }
    found.push({ workload: workloadOf(pod), port: podPort });
  }
  return found;
}

function workloadOf(pod: KubeObject): Workload {
  const spec = (pod.spec ?? {}) as { serviceAccountName?: string };
  return {
    name: pod.metadata.name,
    namespace: pod.metadata.namespace ?? '',
    serviceAccount: spec.serviceAccountName || 'default',
    labels: pod.metadata.labels ?? {},
    annotations: pod.metadata.annotations ?? {},
  };
}
