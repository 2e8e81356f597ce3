import { fields, type KubeObject, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { StandInRequest, StandIns } from '../../onboarding.ts';
import { secretField } from '../objects/desired.ts';
import { standInName } from '../objects/names.ts';
import { portOf } from '../routes/backends.ts';
import { isBackend } from '../routes/client.ts';
import { dialledPort } from '../routes/pods.ts';
import { backendsIn, withBackends } from '../routes/usage.ts';
import { ENVOY_GATEWAY, EXTENSIONS, GATEWAY_API_RESOURCES as KINDS, STANDARD } from '../spec/resources.ts';
import type { ServicePort } from '../spec/target.ts';
import { backendOf, behindIn, STANDS_FOR_ANNOTATION, serviceOf, servicePortOf, standsFor } from './targets.ts';

/** A Backend for each port of a Service that a route names, and ReferenceGrants where routes are in other namespaces. */
export const standIns: StandIns = {
  resources: [KINDS.backends, KINDS.grants],
  objects(routes, request) {
    const { gatewayObjects } = request.objects;
    const targets = new Map(
      routes.flatMap((route) => usesOf(route, gatewayObjects)).map(({ target }) => [standInName(target), target]),
    );
    // Others may lead there already, of another Gateway too.
    const users = gatewayObjects
      .filter(isHttpRoute)
      .flatMap((route) =>
        usesOf(route, gatewayObjects).filter(({ backend }) => backend?.metadata.namespace === request.namespace),
      );
    const all = [...users, ...routes.flatMap((route) => usesOf(route, gatewayObjects))];
    return [...targets]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, target]) => {
        const from = all.filter((use) => standInName(use.target) === name).map(({ namespace }) => namespace);
        const others = [...new Set(from)].filter((namespace) => namespace !== request.namespace).sort();
        return [backendFor(name, target, request), ...grantsFor(name, others, request)];
      });
  },
  redirected(route, { namespace: home }) {
    const { namespace = '' } = route.metadata;
    return changed(route, (ref) => {
      const target = servicePortOf(ref, namespace);
      if (!target) return ref;
      const { group: _, kind: __, name: ___, namespace: ____, port: _____, ...rest } = ref;
      const place = namespace === home ? {} : { namespace: home };
      return { group: EXTENSIONS, kind: KINDS.backends.kind, name: standInName(target), ...place, ...rest };
    });
  },
  restored(route, objects) {
    const { namespace = '' } = route.metadata;
    return changed(route, (ref) => {
      const backend = backendOf(ref, namespace, objects);
      const target = backend && standsFor(backend);
      if (!target) return ref;
      const { group: _, kind: __, name: ___, namespace: ____, port: _____, ...rest } = ref;
      const place = target.namespace === namespace ? {} : { namespace: target.namespace };
      return { group: '', kind: 'Service', name: target.name, ...place, port: target.port, ...rest };
    });
  },
  pending: (object) => (isBackend(object) ? pendingBackend(object) : pendingRoute(object)),
};

interface TargetUse {
  readonly target: ServicePort;
  /** Of the route. */
  readonly namespace: string;
  /** The Backend by which it leads there; absent: by the Service. */
  readonly backend?: KubeObject | undefined;
}

const isHttpRoute = ({ kind }: KubeObject): boolean => kind === KINDS.httpRoutes.kind;

const usesOf = ({ metadata: { namespace = '' }, spec }: KubeObject, objects: readonly KubeObject[]): TargetUse[] =>
  backendsIn(spec).flatMap((ref) => {
    const backend = backendOf(ref, namespace, objects);
    const target = servicePortOf(ref, namespace) ?? (backend && standsFor(backend));
    return target ? [{ target, namespace, backend }] : [];
  });

function changed({ spec }: KubeObject, change: Parameters<typeof withBackends>[1]) {
  const { rules } = fields(spec);
  let changes = 0;
  const next = withBackends(rules, (ref) => {
    const result = change(ref);
    if (result !== ref) changes += 1;
    return result;
  });
  return changes === 0 ? undefined : { rules: next };
}

/**
 * It names the certificate from the beginning, so that one that is deleted and created again never leads anywhere
 * without it: Envoy Gateway refuses a Backend that has the certificate and no policy.
 */
function backendFor(name: string, target: ServicePort, request: StandInRequest): KubeObject {
  const { namespace, labels, secretName, objects } = request;
  const hostname = `${target.name}.${target.namespace}.svc.cluster.local`;
  const annotations = { [STANDS_FOR_ANNOTATION]: `${target.namespace}/${target.name}:${target.port}` };
  const { apiVersion, kind } = KINDS.backends;
  return {
    apiVersion,
    kind,
    metadata: { name, namespace, labels, annotations },
    spec: {
      endpoints: [{ fqdn: { hostname, port: portAt(target, objects) } }],
      tls: { clientCertificateRef: secretField({ meta: request, spec: { secretName } }) },
    },
  };
}

/** The name of a headless Service leads to its pods, so their port counts. */
function portAt(target: ServicePort, objects: StandInRequest['objects']): number {
  const service = serviceOf(target, objects);
  const named = service && portOf(service, target.port);
  if (!service || !named || 'code' in named) return target.port;
  return dialledPort(service, named, behindIn(target.namespace, objects));
}

/** The most that a ReferenceGrant may have; its definition refuses more. */
const MOST_ENTRIES = 16;

function grantsFor(name: string, namespaces: readonly string[], { namespace, labels }: StandInRequest): KubeObject[] {
  const { apiVersion, kind } = KINDS.grants;
  const to = [{ group: EXTENSIONS, kind: KINDS.backends.kind, name }];
  return Array.from({ length: Math.ceil(namespaces.length / MOST_ENTRIES) }, (_, at) => ({
    apiVersion,
    kind,
    metadata: { name: at === 0 ? name : `${name}.${at + 1}`, namespace, labels },
    spec: {
      from: namespaces
        .slice(at * MOST_ENTRIES, (at + 1) * MOST_ENTRIES)
        .map((one) => ({ group: STANDARD, kind: KINDS.httpRoutes.kind, namespace: one })),
      to,
    },
  }));
}

const title = ({ kind, metadata }: KubeObject): string => `${kind} ${metadata.namespace}/${metadata.name}`;

/** It has no status before a route leads to it. */
function pendingBackend(backend: KubeObject): ReturnType<StandIns['pending']> {
  const refused = conditionsOf(backend.status).find(({ type, status }) => type === 'Accepted' && status === 'False');
  return refused && { why: `${title(backend)} to be accepted: ${String(refused.message)}`, refused: true };
}

/** A status of an earlier generation says nothing. */
function pendingRoute(route: KubeObject): ReturnType<StandIns['pending']> {
  const { generation = 0 } = route.metadata;
  const parents = listOfFields(fields(route.status).parents).filter(({ controllerName }) =>
    text(controllerName)?.startsWith(ENVOY_GATEWAY),
  );
  const wanted = parents.flatMap((parent) => {
    const conditions = conditionsOf(parent);
    return ['Accepted', 'ResolvedRefs'].map((type) => conditions.find((one) => one.type === type));
  });
  const isCurrent = (one: (typeof wanted)[number]) => Number(one?.observedGeneration ?? -1) >= generation;
  if (wanted.length === 0 || !wanted.every(isCurrent)) {
    return { why: `Envoy Gateway to take ${title(route)}`, refused: false };
  }
  const found = wanted.find((one) => one?.status !== 'True');
  const why = `${title(route)} to be accepted: ${String(found?.reason)}: ${String(found?.message)}`;
  return found && { why, refused: true };
}

const conditionsOf = (status: unknown) => listOfFields(fields(status).conditions);
