import { fields, type KubeObject, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { TargetRefusal, Workload } from '../../../mesh/targeting.ts';
import type { RouteObjects } from '../../onboarding.ts';
import { missing, portOf } from '../routes/backends.ts';
import { isBackend } from '../routes/client.ts';
import { type BehindServices, workloadsBehind } from '../routes/pods.ts';
import { backendsIn } from '../routes/usage.ts';
import { CORE_RESOURCES as CORE, EXTENSIONS, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { ServicePort } from '../spec/target.ts';

/** On a Backend: the port of a Service for which it stands, `<namespace>/<service>:<port>`. */
export const STANDS_FOR_ANNOTATION = 'meshcert.dev/stands-for';

type Ref = Readonly<Record<string, unknown>>;

/** The port of the Service that a Backend stands in for; undefined: it was not made for that. */
export function standsFor({ metadata: { annotations } }: KubeObject): ServicePort | undefined {
  const [, namespace, name, port] = /^([^/]+)\/([^/:]+):(\d+)$/.exec(annotations?.[STANDS_FOR_ANNOTATION] ?? '') ?? [];
  return namespace && name ? { namespace, name, port: Number(port) } : undefined;
}

/** The port of a Service that a reference names; undefined: it names something else. */
export function servicePortOf(ref: Ref, routeNamespace: string): ServicePort | undefined {
  const { group = '', kind = CORE.services.kind, name, namespace, port } = ref;
  const target = text(name);
  if (group !== '' || kind !== CORE.services.kind || target === undefined) return undefined;
  return { namespace: text(namespace) ?? routeNamespace, name: target, port: Number(port ?? 0) };
}

/** The Backend that a reference names. */
export function backendOf(ref: Ref, routeNamespace: string, objects: readonly KubeObject[]): KubeObject | undefined {
  if (ref.group !== EXTENSIONS || ref.kind !== KINDS.backends.kind) return undefined;
  const namespace = text(ref.namespace) ?? routeNamespace;
  return objects.find(
    (one) => isBackend(one) && one.metadata.name === ref.name && one.metadata.namespace === namespace,
  );
}

/** The ports of Services that a route leads to, by itself or by Backends that stand in for them; or what else it leads to. */
export function targetsOf(route: KubeObject, objects: readonly KubeObject[]): readonly ServicePort[] | TargetRefusal {
  const { namespace = '' } = route.metadata;
  const found = new Map<string, ServicePort>();
  for (const ref of backendsIn(route.spec)) {
    const backend = backendOf(ref, namespace, objects);
    const target = servicePortOf(ref, namespace) ?? (backend && standsFor(backend));
    if (!target) {
      const what = `${text(ref.kind) ?? CORE.services.kind} ${text(ref.name) ?? ''}`;
      const message = `it leads to ${what}, which onboard did not create and which is no Service; select it by its labels (docs/gateway-api.md, "Backends"), or lead the route to the Service`;
      return { code: 'ERR_TARGET_UNSELECTED', message };
    }
    found.set(titleOf(target), target);
  }
  return [...found.values()];
}

export const titleOf = ({ namespace, name, port }: ServicePort): string => `${name}.${namespace}:${port}`;

export const serviceOf = ({ namespace, name }: ServicePort, { services }: Pick<RouteObjects, 'services'>) =>
  services.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);

export function behindIn(namespace: string, { pods, endpointSlices }: RouteObjects): BehindServices {
  const inPlace = ({ metadata }: KubeObject) => metadata.namespace === namespace;
  return { pods: pods.filter(inPlace), slices: endpointSlices.filter(inPlace) };
}

/** HTTP/2 without TLS: a Backend needs other settings for it. */
const H2C = 'kubernetes.io/h2c';

/** The pods behind these targets. */
export function answeringAt(
  targets: readonly ServicePort[],
  objects: RouteObjects,
): readonly Workload[] | TargetRefusal {
  const found = new Map<string, Workload>();
  for (const target of targets) {
    const service = serviceOf(target, objects);
    if (!service) return missing(target);
    const port = portOf(service, target.port);
    if ('code' in port) return port;
    const { appProtocol } = listOfFields(fields(service.spec).ports).find((one) => one.port === target.port) ?? {};
    if (appProtocol === H2C) return http2(`port ${target.port} of Service ${target.namespace}/${target.name}`);
    const pods = workloadsBehind(service, port, behindIn(target.namespace, objects));
    if ('code' in pods) return pods;
    for (const { workload } of pods) found.set(`${workload.namespace}/${workload.name}`, workload);
  }
  return [...found.values()];
}

export const http2 = (what: string): TargetRefusal => ({
  code: 'ERR_TARGET_PROTOCOL',
  message: `${what} needs HTTP/2, for which onboard makes no Backend; write it by hand (docs/gateway-api.md, "Backends")`,
});
