import { createHash } from 'node:crypto';
import { describe, type KubeObject, keyOf, refOf } from '../../../core/object.ts';
import { fields, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { ExpectedLoad, LiveCondition, Loaded, Loading } from '../../loading.ts';
import { controllerOf, isGateway, presents, proxyRefOf } from '../routes/client.ts';
import { type GatewayApiConfig, gatewayPlaces, policyPlaces, scopesIn } from '../spec/config.ts';
import { ENVOY_GATEWAY, GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';

/** What the status of objects must say. */
export interface ExpectedStatuses extends ExpectedLoad {
  readonly certificate: Pick<Parameters<typeof presents>[1], 'meta' | 'spec'>;
  /** `keyOf` of our policies. */
  readonly policies: readonly string[];
  /** Backends present the certificate: every Gateway of Envoy Gateway that leads to one counts. */
  readonly byBackends: boolean;
}

export interface SeenStatuses extends Loaded {
  readonly reason: 'StatusAccepted' | 'StatusRefused' | 'StatusOutdated' | 'StatusAbsent';
  /** For people. */
  readonly why: string;
}

type StatusFields = Readonly<Record<string, unknown>>;

/**
 * By the status that the controllers of the Gateways write. It proves that the control plane accepted the policies,
 * never that the data plane uses them: Envoy Gateway shows a broken pair as accepted.
 */
export const gatewayApiLoading: Loading<GatewayApiConfig, ExpectedStatuses, SeenStatuses> = {
  expected({ meta, spec, config }, desired) {
    const policies = desired.map(({ object }) => object).filter(({ kind }) => kind === KINDS.policies.kind);
    if (policies.length === 0) return undefined;
    const digest = createHash('sha256').update(JSON.stringify(policies)).digest('hex');
    const byBackends = config.clientCertificate === 'Backend';
    return { digest, certificate: { meta, spec }, byBackends, policies: policies.map((one) => keyOf(refOf(one))) };
  },
  statuses: {
    scopes({ meta: { namespace: own }, config }) {
      return [
        { resource: KINDS.classes, optional: true },
        ...scopesIn([own, ...gatewayPlaces(config, own)], { resource: KINDS.gateways, optional: true }),
        { resource: KINDS.envoyProxies, namespace: own, optional: true },
        ...scopesIn(policyPlaces(config, own), { resource: KINDS.policies, optional: true }),
      ];
    },
    judge: judgeStatuses,
  },
  condition,
  reasons: ['StatusAccepted', 'StatusRefused', 'StatusOutdated', 'StatusAbsent'],
};

function judgeStatuses(objects: readonly KubeObject[], expected: ExpectedStatuses): SeenStatuses {
  const { policies, certificate, byBackends } = expected;
  const behind = (kind: string) => objects.filter((object) => object.kind === kind);
  const gateways = objects.filter(
    (object) => isGateway(object) && (presents(object, certificate) || hasProxy(object, behind, certificate)),
  );
  const controllers = new Set(gateways.flatMap((gateway) => controllerOf(gateway, { behind }) ?? []));
  const names = new Set(gateways.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
  const classes = behind(KINDS.classes.kind).map(({ spec }) => String(fields(spec).controllerName));
  const counts = (controller: string, gateway: string) =>
    byBackends
      ? controller.startsWith(ENVOY_GATEWAY) && classes.includes(controller)
      : controllers.has(controller) && names.has(gateway);
  const byKey = new Map(objects.map((object) => [keyOf(refOf(object)), object]));
  const found = [
    ...gateways.flatMap((gateway) => ofGateway(gateway)),
    ...policies.map((key) => ofPolicy(key, byKey.get(key), counts)),
  ];
  const rank = { stale: 0, absent: 1, live: 2 } as const;
  return (
    found.toSorted((a, b) => rank[a.arrival] - rank[b.arrival])[0] ?? seen('StatusAbsent', 'no policy is expected')
  );
}

function hasProxy(
  gateway: KubeObject,
  behind: (kind: string) => readonly KubeObject[],
  certificate: ExpectedStatuses['certificate'],
): boolean {
  const ref = proxyRefOf(gateway, { behind });
  return behind(KINDS.envoyProxies.kind).some(
    (one) => one.metadata.name === ref?.name && one.metadata.namespace === ref.namespace && presents(one, certificate),
  );
}

const ARRIVALS = {
  StatusAccepted: 'live',
  StatusRefused: 'stale',
  StatusOutdated: 'stale',
  StatusAbsent: 'absent',
} as const;

const seen = (reason: SeenStatuses['reason'], why: string): SeenStatuses => ({
  ...{ reason, why },
  arrival: ARRIVALS[reason],
  certain: false,
});

/** Only a Gateway that names a client certificate itself says whether it resolved. */
function ofGateway(gateway: KubeObject): readonly SeenStatuses[] {
  const refused = problemOf(listOfFields(fields(gateway.status).conditions), gateway, ['ResolvedRefs']);
  return refused === undefined ? [] : [refused];
}

function ofPolicy(
  key: string,
  policy: KubeObject | undefined,
  counts: (controller: string, gateway: string) => boolean,
): SeenStatuses {
  if (!policy) return seen('StatusAbsent', `${key.split('|').slice(1).join(' ')} is not there yet`);
  const title = describe(refOf(policy));
  const { namespace: own = '' } = policy.metadata;
  const ours = listOfFields(fields(policy.status).ancestors).filter(({ controllerName, ancestorRef }) => {
    const { name, namespace } = fields(ancestorRef);
    return counts(String(controllerName), `${text(namespace) ?? own}/${String(name)}`);
  });
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
): SeenStatuses | undefined {
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

function condition(found: SeenStatuses | { readonly failure: string }, { policies }: ExpectedStatuses): LiveCondition {
  if ('failure' in found) return { status: 'Unknown', reason: 'StatusAbsent', message: found.failure };
  if (found.arrival === 'live') {
    const message = `By their status, the Gateways have accepted ${policies.length} BackendTLSPolicy object(s). A status does not show whether the proxies use the certificate; only a request does.`;
    return { status: 'True', reason: 'StatusAccepted', message };
  }
  return { status: 'False', reason: found.reason, message: `${found.why}.` };
}
