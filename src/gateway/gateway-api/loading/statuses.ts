import { describe, type KubeObject, keyOf, refOf } from '../../../core/object.ts';
import { fields, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { Arrival } from '../../loading.ts';
import { controllerOf, isGateway, presents, proxyRefOf } from '../routes/client.ts';
import { namedPorts } from '../routes/pods.ts';
import { policyTarget } from '../routes/policies.ts';
import { type Usage, usage } from '../routes/usage.ts';
import { grantablePlaces } from '../spec/config.ts';
import { CORE_RESOURCES as CORE, ENVOY_GATEWAY, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';
import type { ExpectedPublication, SeenPublication } from './expected.ts';

type StatusFields = Readonly<Record<string, unknown>>;

/** Whether a status that this controller wrote for this Gateway is relevant. */
type Counts = (controller: string, gateway: string) => boolean;

/**
 * By the status that the controllers of the Gateways write. It proves that the control plane accepted the policies,
 * never that the data plane uses them: Envoy Gateway shows a broken pair as accepted. A policy that no route uses has no
 * status, and counts only if there is no other.
 */
export function judgeStatuses(objects: readonly KubeObject[], expected: ExpectedPublication): SeenPublication {
  const { policies, certificate, byBackends } = expected;
  const behind = (kind: string) => objects.filter((object) => object.kind === kind);
  const { config, meta } = certificate;
  const places = [meta.namespace, ...grantablePlaces(config, meta.namespace)];
  // Anyone may name the Secret in a Gateway of their own namespace.
  const isNamed = (object: KubeObject) =>
    places.includes(object.metadata.namespace ?? '') && presents(object, certificate);
  const gateways = objects.filter(
    (object) => isGateway(object) && (isNamed(object) || hasProxy(object, behind, certificate)),
  );
  const controllers = new Set(gateways.flatMap((gateway) => controllerOf(gateway, { behind }) ?? []));
  const names = new Set(gateways.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
  const classes = behind(KINDS.classes.kind).map(({ spec }) => String(fields(spec).controllerName));
  const counts: Counts = (controller, gateway) =>
    byBackends
      ? controller.startsWith(ENVOY_GATEWAY) && classes.includes(controller)
      : controllers.has(controller) && names.has(gateway);
  const byKey = new Map(objects.map((object) => [keyOf(refOf(object)), object]));
  const isUsed = usage(certificate, { behind, hidden: () => undefined });
  const judged = policies.map((key) => ofPolicy(key, byKey.get(key), counts));
  const counting = policies.flatMap((key, at) => {
    const [one, policy] = [judged[at], byKey.get(key)];
    if (one?.reason !== 'StatusAbsent') return one ?? [];
    return isNeeded(policy, isUsed, behind) ? [ofRoutes(policy, objects, certificate, counts) ?? one] : [];
  });
  const rank: Record<Arrival, number> = { stale: 0, absent: 1, live: 2, read: 3 };
  const found = [...gateways.flatMap(ofGateway), ...(counting.length > 0 ? counting : judged)];
  const worst = found.toSorted((a, b) => rank[a.arrival] - rank[b.arrival])[0];
  if (worst?.reason !== 'StatusAccepted') return worst ?? seen('StatusAbsent', 'no policy is expected');
  const why = `By their status, the Gateways have accepted ${counting.length} BackendTLSPolicy object(s)`;
  return seen('StatusAccepted', why);
}

/** Whether a route uses the target of a policy; true for a policy that is not there. */
function isNeeded(
  policy: KubeObject | undefined,
  isUsed: Usage,
  behind: (kind: string) => readonly KubeObject[],
): boolean {
  const target = policy && policyTarget(policy);
  if (!target) return true;
  const service = behind(CORE.services.kind).find(
    (one) =>
      target.of === 'Service' && one.metadata.name === target.name && one.metadata.namespace === target.namespace,
  );
  return isUsed(target, service && namedPorts(service).find(({ name }) => name === target.port)?.port);
}

/** Why the routes to the target of a policy lead nowhere, which the policy does not say; undefined: nobody says so. */
function ofRoutes(
  policy: KubeObject | undefined,
  objects: readonly KubeObject[],
  certificate: ExpectedPublication['certificate'],
  counts: Counts,
): SeenPublication | undefined {
  const target = policy && policyTarget(policy);
  if (!target) return undefined;
  const routes = objects.filter(({ kind }) => kind === KINDS.httpRoutes.kind || kind === KINDS.grpcRoutes.kind);
  for (const route of routes) {
    const behind = (kind: string) => (kind === route.kind ? [route] : []);
    if (!usage(certificate, { behind, hidden: () => undefined })(target, undefined)) continue;
    for (const { controllerName, parentRef, conditions } of listOfFields(fields(route.status).parents)) {
      if (!counts(String(controllerName), nameIn(route, parentRef))) continue;
      const problem = problemOf(listOfFields(conditions), route, ['ResolvedRefs']);
      if (problem?.reason === 'StatusRefused') return problem;
    }
  }
  return undefined;
}

/** `namespace/name` of what an object refers to, by default in its own namespace. */
function nameIn({ metadata }: KubeObject, ref: unknown): string {
  const { name, namespace } = fields(ref);
  return `${text(namespace) ?? metadata.namespace ?? ''}/${String(name)}`;
}

function hasProxy(
  gateway: KubeObject,
  behind: (kind: string) => readonly KubeObject[],
  certificate: ExpectedPublication['certificate'],
): boolean {
  const ref = proxyRefOf(gateway, { behind });
  return behind(KINDS.envoyProxies.kind).some(
    (one) => one.metadata.name === ref?.name && one.metadata.namespace === ref.namespace && presents(one, certificate),
  );
}

const ARRIVALS = {
  // Envoy Gateway reports a broken pair as accepted.
  StatusAccepted: 'read',
  StatusRefused: 'stale',
  StatusOutdated: 'stale',
  StatusAbsent: 'absent',
} as const;

const seen = (reason: keyof typeof ARRIVALS, why: string): SeenPublication => ({
  reason,
  why,
  arrival: ARRIVALS[reason],
  certain: false,
  outdated: [],
});

/** Only a Gateway that names a client certificate itself says whether it resolved. */
function ofGateway(gateway: KubeObject): readonly SeenPublication[] {
  const refused = problemOf(listOfFields(fields(gateway.status).conditions), gateway, ['ResolvedRefs']);
  return refused === undefined ? [] : [refused];
}

function ofPolicy(key: string, policy: KubeObject | undefined, counts: Counts): SeenPublication {
  if (!policy) return seen('StatusAbsent', `${key.split('|').slice(1).join(' ')} is not there yet`);
  const title = describe(refOf(policy));
  const ours = listOfFields(fields(policy.status).ancestors).filter(({ controllerName, ancestorRef }) =>
    counts(String(controllerName), nameIn(policy, ancestorRef)),
  );
  if (ours.length === 0) {
    return seen(
      'StatusAbsent',
      `${title} has no status of these Gateways: no route of theirs leads to its target, or it is not processed yet`,
    );
  }
  const problems = ours.flatMap(
    ({ conditions }) => problemOf(listOfFields(conditions), policy, ['Accepted', 'ResolvedRefs'], true) ?? [],
  );
  return problems[0] ?? seen('StatusAccepted', `${title} is accepted`);
}

/** Why these conditions are not all True of the current generation; an absent one counts only if it is required. */
function problemOf(
  conditions: readonly StatusFields[],
  { kind, metadata, apiVersion }: KubeObject,
  types: readonly string[],
  required = false,
): SeenPublication | undefined {
  const title = describe(refOf({ apiVersion, kind, metadata }));
  for (const type of types) {
    const one = conditions.find((condition) => condition.type === type);
    if (!one && !required) continue;
    if (!one) return seen('StatusAbsent', `${title} has no condition ${type}`);
    if (Number(one.observedGeneration ?? 0) < (metadata.generation ?? 0)) {
      return seen('StatusOutdated', `the condition ${type} of ${title} is of an older generation`);
    }
    if (one.status !== 'True') {
      return seen(
        'StatusRefused',
        `${title}: ${type} is ${String(one.status)}, ${String(one.reason)}: ${String(one.message)}`,
      );
    }
  }
  return undefined;
}
