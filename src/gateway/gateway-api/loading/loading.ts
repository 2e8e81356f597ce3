import { createHash } from 'node:crypto';
import { describe, type KubeObject, keyOf, refOf } from '../../../core/object.ts';
import { fields, listOfFields, text } from '../../../mesh/kube-object.ts';
import type { ExpectedLoad, LiveCondition, Loaded, Loading } from '../../loading.ts';
import { controllerOf, isGateway, presents } from '../routes/client.ts';
import { type GatewayApiConfig, placesOf } from '../spec/config.ts';
import { GATEWAY_API_RESOURCES as KINDS } from '../spec/resources.ts';

/** What the status of objects must say. */
export interface ExpectedStatuses extends ExpectedLoad {
  readonly certificate: Pick<Parameters<typeof presents>[1], 'meta' | 'spec'>;
  /** `keyOf` of our policies. */
  readonly policies: readonly string[];
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
  expected({ meta, spec }, desired) {
    const policies = desired.map(({ object }) => object).filter(({ kind }) => kind === KINDS.policies.kind);
    if (policies.length === 0) return undefined;
    const digest = createHash('sha256').update(JSON.stringify(policies)).digest('hex');
    return { digest, certificate: { meta, spec }, policies: policies.map((policy) => keyOf(refOf(policy))) };
  },
  statuses: {
    scopes({ meta, config }) {
      const places = placesOf(config, meta.namespace);
      return [
        { resource: KINDS.classes, optional: true },
        { resource: KINDS.gateways, namespace: meta.namespace, optional: true },
        { resource: KINDS.envoyProxies, namespace: meta.namespace, optional: true },
        ...places.map((place) => ({
          ...{ resource: KINDS.policies, optional: true },
          ...(place === '*' ? {} : { namespace: place }),
        })),
      ];
    },
    judge: judgeStatuses,
  },
  condition,
  reasons: ['StatusAccepted', 'StatusRefused', 'StatusOutdated', 'StatusAbsent'],
};

function judgeStatuses(objects: readonly KubeObject[], { policies, certificate }: ExpectedStatuses): SeenStatuses {
  const behind = (kind: string) => objects.filter((object) => object.kind === kind);
  const gateways = objects.filter(
    (object) => isGateway(object) && (presents(object, certificate) || hasProxy(object, objects, certificate)),
  );
  const controllers = new Set(gateways.flatMap((gateway) => controllerOf(gateway, { behind }) ?? []));
  const names = new Set(gateways.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
  const byKey = new Map(objects.map((object) => [keyOf(refOf(object)), object]));
  const found = [
    ...gateways.flatMap((gateway) => ofGateway(gateway)),
    ...policies.map((key) => ofPolicy(key, byKey.get(key), controllers, names)),
  ];
  const rank = { stale: 0, absent: 1, live: 2 } as const;
  return (
    found.toSorted((a, b) => rank[a.arrival] - rank[b.arrival])[0] ?? seen('StatusAbsent', 'no policy is expected')
  );
}

function hasProxy(
  gateway: KubeObject,
  objects: readonly KubeObject[],
  certificate: ExpectedStatuses['certificate'],
): boolean {
  const { kind, name } = fields(fields(fields(gateway.spec).infrastructure).parametersRef);
  if (kind !== KINDS.envoyProxies.kind) return false;
  return objects.some((one) => one.kind === kind && one.metadata.name === name && presents(one, certificate));
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
  controllers: ReadonlySet<string>,
  gateways: ReadonlySet<string>,
): SeenStatuses {
  if (!policy) return seen('StatusAbsent', `${key.split('|').slice(1).join(' ')} is not there yet`);
  const title = describe(refOf(policy));
  const { namespace: own = '' } = policy.metadata;
  const ours = listOfFields(fields(policy.status).ancestors).filter(({ controllerName, ancestorRef }) => {
    const { name, namespace } = fields(ancestorRef);
    return controllers.has(String(controllerName)) && gateways.has(`${text(namespace) ?? own}/${String(name)}`);
  });
  if (ours.length === 0) {
    return seen(
      'StatusAbsent',
      `${title} has no status of these Gateways: no route of theirs leads to its Service, or it is not processed yet`,
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
