import { createHash } from 'node:crypto';
import { describe, fields, type KubeObject, keyOf, listOfFields, refOf, text } from '../../objects/objects.ts';
import type {
  Arrival,
  ExpectedLoad,
  GatewayInput,
  LiveCondition,
  Loaded,
  Loading,
  LoadingRequest,
} from '../gateway.ts';
import { decodeData } from '../publication.ts';
import {
  CORE_RESOURCES as CORE,
  CORE_RESOURCES,
  ENVOY_GATEWAY,
  type GatewayApiConfig,
  gatewayPlaces,
  grantablePlaces,
  GATEWAY_API_RESOURCES as KINDS,
  policyPlaces,
  routePlaces,
  scopesIn,
} from './config.ts';
import { REVISION_ANNOTATION, revisionOf } from './objects.ts';
import { namedPorts, policyTarget, type Usage, usage } from './policies.ts';
import { controllerOf, isGateway, presents, proxyRefOf } from './routes.ts';

/** Different from the field manager of publications: a nudge must not look like a write of a publication. */
const NUDGE_FIELD_MANAGER = 'meshcert-nudge';

function condition(found: SeenPublication | { readonly failure: string }): LiveCondition {
  if ('failure' in found) return { status: 'Unknown', reason: 'StatusAbsent', message: found.failure };
  const { arrival, reason, why } = found;
  if (arrival === 'live') return { status: 'True', reason, message: `${why}.` };
  if (arrival !== 'read') return { status: 'False', reason, message: `${why}.` };
  const message = `${why}. A status does not show whether the proxies use the certificate; only a request does.`;
  return { status: 'Unknown', reason, message };
}

/** What statuses and proxies must show. */
interface ExpectedPublication extends ExpectedLoad {
  readonly certificate: GatewayInput<GatewayApiConfig>;
  /** `keyOf` of our policies. */
  readonly policies: readonly string[];
  /** Backends present the certificate: every Gateway of Envoy Gateway that leads to one counts. */
  readonly byBackends: boolean;
  /** How Envoy Gateway names the pair. */
  readonly pairName: string;
  /** The namespace of each bundle, by the names that Envoy Gateway gives it: one for each policy. */
  readonly bundleNames: ReadonlyMap<string, string>;
  /** The certificates of each, by the name that Envoy Gateway gives it; `comparable`. */
  readonly certificates: ReadonlyMap<string, string>;
}

/** The reasons of the condition Live; docs/runbook.md has an entry for each. */
const LIVE_REASONS = [
  ...(['ProxyLoaded', 'ProxyOutdated'] as const),
  ...(['StatusAccepted', 'StatusRefused', 'StatusOutdated', 'StatusAbsent'] as const),
] as const;

interface SeenPublication extends Loaded {
  readonly reason: (typeof LIVE_REASONS)[number];
  /** For people. */
  readonly why: string;
  /** Namespaces whose bundle a proxy has not loaded. */
  readonly outdated: readonly string[];
}

/** Two texts are the same certificates if they differ in white space alone. */
const comparable = (pem: string): string => pem.replace(/\s+/g, '');

/** Undefined while no policy is published. */
function expectedPublication(
  certificate: GatewayInput<GatewayApiConfig>,
  desired: readonly { readonly object: KubeObject }[],
): ExpectedPublication | undefined {
  const { meta, spec, config } = certificate;
  const objects = desired.map(({ object }) => object);
  const policies = objects.filter(({ kind }) => kind === KINDS.policies.kind);
  if (policies.length === 0) return undefined;
  const pairName = `${meta.namespace}/${spec.secretName}`;
  const pair = objects.find(({ kind, metadata }) => kind === 'Secret' && metadata.name === spec.secretName);
  const chain = (pair && decodeData(pair)['tls.crt']) ?? '';
  const bundles = new Map(
    objects
      .filter(
        ({ kind, metadata }) => kind === CORE_RESOURCES.configMaps.kind && metadata.name === config.caConfigMapName,
      )
      .map(({ metadata, data }) => [metadata.namespace ?? '', text(fields(data)['ca.crt']) ?? '']),
  );
  const bundleNames = new Map(
    policies.map(({ metadata: { name, namespace = '' } }) => [`${name}/${namespace}-ca`, namespace]),
  );
  const certificates = new Map([
    [pairName, comparable(chain)],
    ...[...bundleNames].map(([name, namespace]) => [name, comparable(bundles.get(namespace) ?? '')] as const),
  ]);
  const digest = createHash('sha256')
    .update(JSON.stringify([policies, [...certificates]]))
    .digest('hex');
  return {
    digest,
    certificate,
    pairName,
    bundleNames,
    certificates,
    byBackends: config.clientCertificate === 'Backend',
    policies: policies.map((policy) => keyOf(refOf(policy))),
  };
}

/** The certificates that a proxy has loaded: an Envoy that refuses an update keeps and shows the ones before. */
const SECRETS = '/config_dump?resource=dynamic_active_secrets';

/** Envoy's admin interface; a URL without a path gets that of the secrets. */
function secretsRequest(given: string): readonly LoadingRequest[] {
  const url = new URL(given);
  return [{ url: url.pathname === '/' && url.search === '' ? new URL(SECRETS, url) : url }];
}

/**
 * By the secrets of one proxy. It uses some of the policies, as its routes need them; undefined: it uses none. Throws
 * for any other answer.
 */
function judgeSecrets([answer]: readonly unknown[], expected: ExpectedPublication): SeenPublication | undefined {
  if (answer === undefined) return undefined;
  const { configs } = fields(answer);
  // An empty list is absent from Envoy's answer.
  if (configs !== undefined && !Array.isArray(configs)) throw new TypeError('the answer is no config dump of Envoy');
  if (configs === undefined && Object.keys(fields(answer)).length > 0) {
    throw new TypeError('the answer has no configs; ask the admin interface of Envoy');
  }
  const loaded = new Map(
    listOfFields(configs).flatMap(({ name, secret }) => (text(name) ? [[String(name), secret]] : [])),
  );
  const { pairName, bundleNames, certificates } = expected;
  const found = [pairName, ...bundleNames.keys()].filter((name) => loaded.has(name));
  if (!found.includes(pairName) || found.length === 1) return undefined;
  const old = found.filter((name) => comparable(certificatesOf(loaded.get(name))) !== certificates.get(name));
  const seen = { certain: true, outdated: old.flatMap((name) => bundleNames.get(name) ?? []) };
  if (old.length === 0) {
    const why = `Envoy has loaded the pair and ${found.length - 1} trust bundle(s)`;
    return { ...seen, arrival: 'live', reason: 'ProxyLoaded', why };
  }
  const why = `Envoy has not loaded the current ${old.join(', ')}; its log, and that of Envoy Gateway, say why it refused an update`;
  return { ...seen, arrival: 'stale', reason: 'ProxyOutdated', why };
}

/** The PEM of a pair or of a bundle. */
function certificatesOf(secret: unknown): string {
  const { tls_certificate: pair, validation_context: bundle } = fields(secret);
  const { inline_bytes: bytes, inline_string: plain } = fields(
    fields(pair).certificate_chain ?? fields(bundle).trusted_ca,
  );
  return text(plain) ?? Buffer.from(text(bytes) ?? '', 'base64').toString();
}

type StatusFields = Readonly<Record<string, unknown>>;

/** Whether a status that this controller wrote for this Gateway is relevant. */
type Counts = (controller: string, gateway: string) => boolean;

/**
 * By the status that the controllers of the Gateways write. It proves that the control plane accepted the policies,
 * never that the data plane uses them: Envoy Gateway shows a broken pair as accepted. A policy that no route uses has no
 * status, and counts only if there is no other.
 */
function judgeStatuses(objects: readonly KubeObject[], expected: ExpectedPublication): SeenPublication {
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

/** By the status of policies and Gateways, and by the secrets of a proxy if its admin interface can be asked. */
export const gatewayApiLoading: Loading<GatewayApiConfig, ExpectedPublication, SeenPublication> = {
  expected: expectedPublication,
  answers: { requests: secretsRequest, judge: judgeSecrets },
  statuses: {
    scopes({ meta: { namespace: own }, config }) {
      return [
        { resource: KINDS.classes },
        ...scopesIn([own, ...gatewayPlaces(config, own)], { resource: KINDS.gateways }),
        { resource: KINDS.envoyProxies, namespace: own },
        ...scopesIn(policyPlaces(config, own), { resource: KINDS.policies }),
        // They say which policies are used: the others have no status.
        ...scopesIn(policyPlaces(config, own), { resource: CORE_RESOURCES.services }),
        ...[KINDS.httpRoutes, KINDS.grpcRoutes].flatMap((resource) => scopesIn(routePlaces(config, own), { resource })),
      ];
    },
    judge: judgeStatuses,
  },
  condition,
  reasons: LIVE_REASONS,
  // Envoy Gateway does not send a bundle again that a proxy refused together with a broken Secret of somebody else's,
  // not even when the same bytes are written; other bytes do.
  nudge(desired, _, __, { outdated }) {
    return desired
      .map(({ object }) => object)
      .filter(
        ({ kind, metadata }) => kind === CORE_RESOURCES.configMaps.kind && outdated.includes(metadata.namespace ?? ''),
      )
      .map((bundle) => ({
        ref: refOf(bundle),
        patch: { metadata: { annotations: { [REVISION_ANNOTATION]: String(revisionOf(bundle) + 1) } } },
        fieldManager: NUDGE_FIELD_MANAGER,
      }));
  },
};
