import { createHash } from 'node:crypto';
import { z } from 'zod';
import { consents } from '../../src/core/consent.ts';
import type {
  ExpectedLoad,
  Gateway,
  GatewayInput,
  Loaded,
  Loading,
  RouteInput,
  RouteVerdict,
} from '../../src/gateway/gateway.ts';
import { ownLabels } from '../../src/gateway/publication.ts';
import { fields, type KubeObject, type ObjectRef, type Resource, text } from '../../src/objects/objects.ts';

import { formatCertificates } from '../../src/pki/certificate.ts';

export interface ToyConfig {
  readonly selector: Readonly<Record<string, string>>;
  readonly namespaces: readonly string[];
}

/** A service that selected routes lead to; each has a policy beside it. */
export interface ToyTarget {
  readonly namespace: string;
  readonly service: string;
}

const resource = (kind: string, plural: string): Resource => ({
  apiVersion: 'toy.test/v1',
  kind,
  plural,
  namespaced: true,
});

export const TOY = {
  clients: resource('ToyClient', 'toyclients'),
  policies: resource('ToyPolicy', 'toypolicies'),
  routes: resource('ToyRoute', 'toyroutes'),
} as const;

const schema = z.strictObject({
  selector: z.record(z.string(), z.string()).describe('Which routes.'),
  namespaces: z.array(z.string()).default([]).describe('Where routes are looked for.'),
});

const refOf = ({ apiVersion, kind }: Resource, namespace: string, name: string): ObjectRef => {
  return { apiVersion, kind, namespace, name };
};
const policyName = (input: GatewayInput<ToyConfig>, service: string) => `${input.meta.name}-${service}`;
const clientRef = ({ meta }: GatewayInput<ToyConfig>) => refOf(TOY.clients, meta.namespace, meta.name);

function verdictOf(route: KubeObject, input: RouteInput<ToyConfig>, own: ReadonlySet<string>): RouteVerdict {
  const spec = fields(route.spec);
  const { namespace = '' } = route.metadata;
  const service = text(spec.service) ?? '';
  const uses = text(spec.policy);
  const object = refOf(TOY.policies, namespace, policyName(input, service));
  const selected = isSelected(route, input.config);
  const dependsOn =
    uses !== undefined && own.has(`${namespace}/${uses}`) ? refOf(TOY.policies, namespace, uses) : undefined;
  const common = { route, service, selected, uses, dependsOn };
  if (selected && !consents(route, input.meta.namespace)) {
    const message = 'it has not consented; annotate it';
    return { ...common, outcome: { code: 'ERR_TARGET_NO_CONSENT', message, reason: message } };
  }
  const change = { fields: { spec: { policy: object.name } }, fieldManager: 'meshcert-toy' };
  return { ...common, outcome: { target: { object, change, isSet: uses === object.name } } };
}

const isSelected = ({ metadata }: KubeObject, { selector }: ToyConfig): boolean =>
  Object.entries(selector).every(([key, value]) => metadata.labels?.[key] === value);

interface ToyExpected extends ExpectedLoad {
  readonly name: string;
}

/** The status of its ToyClient that a gateway writes after it has loaded the pair. */
export const toyDigest = (certificate: unknown): string =>
  createHash('sha256').update(String(certificate)).digest('hex');

const loading: Loading<ToyConfig, ToyExpected> = {
  expected({ meta, spec }, desired) {
    const pair = desired.find(({ object }) => object.metadata.name === spec.secretName)?.object;
    return pair && { digest: toyDigest(fields(pair.data)['tls.crt']), name: meta.name };
  },
  statuses: {
    scopes: ({ meta }) => [{ resource: TOY.clients, namespace: meta.namespace }],
    judge(objects, { name, digest }): Loaded {
      const status = fields(objects.find(({ metadata }) => metadata.name === name)?.status);
      if (status.loaded === undefined) return { arrival: 'absent', certain: false };
      return { arrival: status.loaded === digest ? 'live' : 'stale', certain: false };
    },
  },
  condition(found) {
    if ('failure' in found) return { status: 'Unknown', reason: 'GatewaySilent', message: found.failure };
    return found.arrival === 'live'
      ? { status: 'True', reason: 'ToyLoaded', message: 'The status of the ToyClient names the pair.' }
      : { status: 'False', reason: 'ToyLate', message: `The status of the ToyClient is ${found.arrival}.` };
  },
  reasons: ['ToyLoaded', 'ToyLate'],
};

/**
 * A gateway that differs from Emissary in everything in which a second one may differ: its objects are in several
 * namespaces, routes set another field, it needs no gap between writes, and a status shows what it has loaded.
 */
export const toyGateway: Gateway<ToyConfig, ToyTarget> = {
  kind: 'toy',
  title: 'the toy gateway',
  fields: { toy: schema.optional() },
  configure: (_name, given) => given.toy as ToyConfig,
  *claims(_config, { name, namespace }) {
    yield { key: `toyclient ${namespace}/${name}`, path: ['metadata', 'name'], what: `ToyClient ${name}` };
  },
  *rights({ namespaces }, { metadata: { namespace = '' } }) {
    const apiGroups = ['toy.test'];
    for (const place of new Set([namespace, ...namespaces])) {
      const resources = ['toyclients', 'toypolicies'];
      yield {
        namespace: place,
        rule: { apiGroups, resources, verbs: ['get', 'list', 'watch', 'create', 'patch', 'delete'] },
      };
      const verbs = ['get', 'list', 'watch', 'patch'];
      yield { namespace: place, rule: { apiGroups, resources: ['toyroutes'], verbs } };
    }
  },
  resources: Object.values(TOY),
  secretNameProblem: (name) => (name === 'toy' ? 'the Secret name toy is reserved; choose another' : undefined),
  desired(input) {
    const { meta, spec, bundle, targets } = input;
    const labels = ownLabels(meta, spec.labels);
    const client = {
      ...{ apiVersion: TOY.clients.apiVersion, kind: TOY.clients.kind },
      metadata: { name: meta.name, namespace: meta.namespace, labels },
      spec: { secret: spec.secretName },
    };
    const policies = (targets ?? []).map(({ namespace, service }) => ({
      ...{ apiVersion: TOY.policies.apiVersion, kind: TOY.policies.kind },
      metadata: { name: policyName(input, service), namespace, labels },
      spec: { service, roots: formatCertificates(bundle) },
    }));
    return [client, ...policies];
  },
  references: (input) => [
    clientRef(input),
    ...(input.targets ?? []).map(({ namespace, service }) =>
      refOf(TOY.policies, namespace, policyName(input, service)),
    ),
  ],
  routes: {
    scopes({ meta, config }) {
      const places = [...new Set([meta.namespace, ...config.namespaces])];
      const everywhere = (one: Resource) => places.map((namespace) => ({ resource: one, namespace }));
      return { routes: everywhere(TOY.routes), own: [...everywhere(TOY.clients), ...everywhere(TOY.policies)] };
    },
    concern(input, own) {
      const names = new Set(own.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
      return (route) =>
        isSelected(route, input.config) || names.has(`${route.metadata.namespace}/${text(fields(route.spec).policy)}`);
    },
    behind: () => [],
    judge(input, { routes, own }) {
      const policies = own.filter(({ kind }) => kind === TOY.policies.kind);
      const names = new Set(policies.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`));
      const verdicts = routes.map((route) => verdictOf(route, input, names));
      const needed = new Map<string, ToyTarget>();
      for (const { route, selected, service, outcome } of verdicts) {
        const { namespace = '' } = route.metadata;
        if (selected && 'target' in outcome) needed.set(`${namespace}/${service}`, { namespace, service });
      }
      const targets = [...needed].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, target]) => target);
      return { verdicts, targets };
    },
    identities: () => [],
  },
  batchGapMs: 0,
  secretsNamedBy({ kind, metadata, spec }) {
    const name = kind === TOY.clients.kind ? text(fields(spec).secret) : undefined;
    return name === undefined ? [] : [{ namespace: metadata.namespace ?? '', name }];
  },
  definitions: 'the definitions of the toy',
  wording: {
    everything: 'ToyRoutes',
    release: 'spec.policy of a ToyRoute',
    orphan: 'deleted what no ToyRoute needs',
    missing: 'ToyRoutes get plaintext',
    reasons: ['ToyRoutesUse', 'ToyRoutesLeft'],
    referenced: (routes, left) =>
      left.length > 0
        ? { status: 'False', reason: 'ToyRoutesLeft', message: `${left[0]?.state}: ${left[0]?.message}` }
        : { status: 'True', reason: 'ToyRoutesUse', message: `${routes.length} ToyRoute(s) use it.` },
  },
  loading: loading as Loading<ToyConfig>,
};

export const toyDefinitions = (): readonly object[] =>
  Object.values(TOY).map(({ kind, plural }) => {
    const open = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
    return {
      apiVersion: 'apiextensions.k8s.io/v1',
      kind: 'CustomResourceDefinition',
      metadata: { name: `${plural}.toy.test` },
      spec: {
        group: 'toy.test',
        scope: 'Namespaced',
        names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
        versions: [
          {
            name: 'v1',
            served: true,
            storage: true,
            schema: { openAPIV3Schema: { type: 'object', properties: { spec: open, status: open } } },
            subresources: { status: {} },
          },
        ],
      },
    };
  });
