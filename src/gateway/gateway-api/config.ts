import { z } from 'zod';
import {
  type Claim,
  type GatewayFields,
  labels,
  type NamespacedRule,
  namespaceName,
  objectName,
  type PolicyRule,
} from '../../config/schema/mesh-certificate.ts';
import type { PeerName } from '../../mesh/cluster.ts';
import { cel, MOST, rules } from '../../mesh/schema.ts';
import type { Resource } from '../../objects/objects.ts';
import type { Scope } from '../gateway.ts';

/** The most that a BackendTLSPolicy may have; its definition refuses more. */
export const MOST_NAMES = 5;

const NO_LABEL = 'must name at least one label: an empty selector would select everything';

const selector = (what: string) =>
  z
    .strictObject({
      matchLabels: labels()
        .refine((given) => Object.keys(given).length > 0, { error: NO_LABEL })
        .meta(cel('self.size() > 0', NO_LABEL))
        .describe(`Labels, all of which a ${what} must have.`),
    })
    .describe(`Which ${what}s.`);

const VOUCHED = 'needs clientCertificate: Gateway, because only Envoy Gateway reads an EnvoyProxy or a Backend';
const NOBODY = 'needs services or backends: whose identity the gateway verifies';
const NO_GATEWAYS = 'needs gateways, which present the certificate, unless Backends do';
const ONLY_BACKENDS =
  'must have neither gateways nor services with clientCertificate: Backend: Backends present the certificate';

const namespaces = (what: string) =>
  z
    .array(z.union([z.literal('*'), namespaceName()]))
    .min(1)
    .max(MOST.namespaces)
    .optional()
    .describe(what);

const PLACED_IN_BACKENDS =
  "(has(self.clientCertificate) ? self.clientCertificate == 'Backend' : !(has(self.gateways) || has(self.services)))";

/** Where the certificate is named. Without a choice it is Backends, unless the spec has fields that need another place. */
const placeOf = ({
  clientCertificate,
  gateways,
  services,
}: {
  readonly clientCertificate?: 'EnvoyProxy' | 'Gateway' | 'Backend' | undefined;
  readonly gateways?: unknown;
  readonly services?: unknown;
}) => clientCertificate ?? (gateways === undefined && services === undefined ? 'Backend' : 'EnvoyProxy');

const gatewayApi = z
  .strictObject({
    gateways: z
      .strictObject({
        selector: selector('Gateway'),
        namespaces: namespaces(
          'Where Gateways are looked for; "*" for everywhere. Default: in this object\'s namespace. Gateways of other namespaces must let this one in by the annotation meshcert.dev/allow-from. With clientCertificate: Gateway, only Gateways of namespaces that are named here get the certificate; "*" names none.',
        ),
      })
      .optional()
      .describe('The Gateways that present the certificate. Required unless Backends do.'),
    clientCertificate: z
      .enum(['EnvoyProxy', 'Gateway', 'Backend'])
      .optional()
      .describe(
        'Where the certificate is named: spec.tls of each selected Backend, which fails closed and lets several meshes be behind one Gateway; spec.backendTLS of the EnvoyProxy of each Gateway; or spec.tls.backend of the Gateway. Default: Backend if backends alone are selected; EnvoyProxy if gateways or services are.',
      ),
    controllers: z
      .array(z.string().min(1).max(253))
      .max(16)
      .default([])
      .describe(
        'Controllers of GatewayClasses other than Envoy Gateway that may be used. They must support BackendTLSPolicy with subjectAltNames, and spec.tls.backend of a Gateway.',
      ),
    services: z
      .strictObject({
        selector: selector('Service'),
        namespaces: namespaces(
          'Where Services, and the routes to them, are looked for; ["*"] for everywhere. Default: in this object\'s namespace. Services of other namespaces must let this one in by the annotation meshcert.dev/allow-from.',
        ),
        ports: z
          .array(
            z
              .string()
              .max(63)
              .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/, 'must be the name of a port, not its number'),
          )
          .min(1)
          .max(MOST.few)
          .optional()
          .describe('Names of the ports that speak mTLS. Default: every port that has a name.'),
      })
      .optional()
      .describe('The Services whose identity the gateway verifies, one BackendTLSPolicy for each port.'),
    backends: z
      .strictObject({
        selector: selector('Backend'),
        namespaces: namespaces(
          'Where Backends, the Services to which they lead, and the routes to them are looked for, in addition to this object\'s namespace; ["*"] for everywhere. Backends of other namespaces must let this one in by the annotation meshcert.dev/allow-from.',
        ),
      })
      .optional()
      .describe(
        'The Backends of Envoy Gateway whose identity it verifies, one BackendTLSPolicy for each. The control plane of a mesh does not apply a policy for a Backend to its own traffic.',
      ),
    caConfigMapName: objectName()
      .optional()
      .describe(
        'ConfigMap for the trust bundle in each namespace with a selected Service, key ca.crt. Default: <name>-ca.',
      ),
    hostname: z
      .string()
      .max(253)
      .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/, 'must be a DNS name')
      .optional()
      .describe(
        'Server name that the gateway sends. Default: the identity of the pods, if the mesh distinguishes its servers by that, otherwise the DNS name of the Service.',
      ),
    subjectAltNames: z
      .array(z.string().min(1).max(253))
      .min(1)
      .max(MOST_NAMES)
      .optional()
      .describe(
        'SPIFFE IDs or DNS names, one of which an upstream must present, in place of the names of the pods behind each Service.',
      ),
  })
  .refine(({ controllers, clientCertificate }) => controllers.length === 0 || clientCertificate === 'Gateway', {
    error: VOUCHED,
    path: ['controllers'],
  })
  .refine(({ services, backends }) => services !== undefined || backends !== undefined, { error: NOBODY })
  .refine((given) => given.gateways !== undefined || placeOf(given) === 'Backend', { error: NO_GATEWAYS })
  .refine((given) => placeOf(given) !== 'Backend' || (given.gateways === undefined && given.services === undefined), {
    error: ONLY_BACKENDS,
  })
  .meta(
    rules(
      cel(
        "!has(self.controllers) || self.controllers.size() == 0 || (has(self.clientCertificate) && self.clientCertificate == 'Gateway')",
        `controllers ${VOUCHED}`,
      ),
      cel('has(self.services) || has(self.backends)', NOBODY),
      cel(`has(self.gateways) || ${PLACED_IN_BACKENDS}`, NO_GATEWAYS),
      cel(`!${PLACED_IN_BACKENDS} || !(has(self.gateways) || has(self.services))`, ONLY_BACKENDS),
    ),
  )
  .optional()
  .describe('Gateways of the Gateway API that use the certificate, and the Services whose identity they verify.');

/** A MeshCertificate's configuration of Gateway API, with every default filled in. */
export type GatewayApiConfig = NonNullable<z.output<typeof gatewayApi>> & {
  readonly caConfigMapName: string;
  readonly clientCertificate: 'EnvoyProxy' | 'Gateway' | 'Backend';
  /** The spec has no such field any more: where Gateways, Services and Backends were looked for. */
  readonly leftIn?: LeftPlaces | undefined;
};

const leftFields = z.object({
  clientCertificate: z.enum(['EnvoyProxy', 'Gateway', 'Backend']),
  controllers: z.array(z.string()),
  caConfigMapName: z.string(),
  leftIn: z.object({ gateways: z.array(z.string()), services: z.array(z.string()), backends: z.array(z.string()) }),
});

type LeftPlaces = Readonly<z.output<typeof leftFields>['leftIn']>;

const READ = ['get', 'list', 'watch'] as const;
const WRITE = ['create', 'patch', 'delete'] as const;

const merged = (places: readonly string[]): readonly string[] => (places.includes('*') ? ['*'] : [...new Set(places)]);

const gatewayNamespaces = ({ gateways, leftIn }: GatewayApiConfig, own: string): readonly string[] =>
  leftIn?.gateways ?? (gateways ? (gateways.namespaces ?? [own]) : []);

/** Where Gateways are looked for. */
export const gatewayPlaces = (config: GatewayApiConfig, own: string): readonly string[] =>
  merged(gatewayNamespaces(config, own));

/**
 * The other namespaces whose Gateways may name the Secret, by a ReferenceGrant each. `*` names none: whoever may create
 * a Gateway anywhere could select it and consent by himself.
 */
export const grantablePlaces = (config: GatewayApiConfig, own: string): readonly string[] =>
  config.clientCertificate === 'Gateway'
    ? gatewayNamespaces(config, own).filter((place) => place !== own && place !== '*')
    : [];

/** Where Services are looked for. */
export const servicePlaces = ({ services, leftIn }: GatewayApiConfig, own: string): readonly string[] =>
  leftIn?.services ?? (services ? merged(services.namespaces ?? [own]) : []);

/** Where Backends are looked for. */
export const backendPlaces = ({ backends, leftIn }: GatewayApiConfig, own: string): readonly string[] =>
  leftIn?.backends ?? (backends ? merged([own, ...(backends.namespaces ?? [])]) : []);

/** Where our policies are. */
export const policyPlaces = (config: GatewayApiConfig, own: string): readonly string[] =>
  merged([...servicePlaces(config, own), ...backendPlaces(config, own)]);

/** Where routes are looked for. */
export const routePlaces = (config: GatewayApiConfig, own: string): readonly string[] =>
  merged([...policyPlaces(config, own), own]);

/** One scope for each of these places; `*`: for all namespaces. */
export const scopesIn = (places: Iterable<string>, scope: Omit<Scope, 'namespace'>): readonly Scope[] => {
  const all = new Set(places);
  return all.has('*') ? [scope] : [...all].map((namespace) => ({ ...scope, namespace }));
};

export const gatewayApiFields: GatewayFields<GatewayApiConfig> = {
  kind: 'gatewayApi',
  fields: { gatewayApi },
  configure(name, given) {
    const config = given.gatewayApi as NonNullable<z.output<typeof gatewayApi>>;
    return {
      ...config,
      clientCertificate: placeOf(config),
      caConfigMapName: config.caConfigMapName ?? `${name}-ca`,
    };
  },
  left: {
    of: (config, own) => ({
      clientCertificate: config.clientCertificate,
      controllers: config.controllers,
      caConfigMapName: config.caConfigMapName,
      leftIn: {
        gateways: [...new Set(gatewayNamespaces(config, own))],
        services: [...servicePlaces(config, own)],
        backends: [...backendPlaces(config, own)],
      },
    }),
    read: (recorded) => leftFields.safeParse(recorded).data,
  },
  *claims(config, { namespace = '' }): Generator<Claim> {
    const { caConfigMapName } = config;
    const path = ['spec', 'gatewayApi', 'caConfigMapName'];
    for (const place of policyPlaces(config, namespace)) {
      yield { key: `configmap ${place}/${caConfigMapName}`, path, what: `ConfigMap ${caConfigMapName}` };
    }
  },
  *rights(config, { metadata: { namespace = '' } }): Generator<NamespacedRule> {
    const { clientCertificate } = config;
    const rule = (apiGroup: string, resources: string[], verbs: readonly string[], names?: string[]): PolicyRule => ({
      apiGroups: [apiGroup],
      resources,
      ...(names ? { resourceNames: names } : {}),
      verbs,
    });
    // Their controllers say which implementation runs a Gateway, and whether a mesh would take the policies too.
    yield { namespace: '*', rule: rule(STANDARD, ['gatewayclasses'], READ) };
    // Those of its own namespace may name the Secret, whatever is configured now.
    yield { namespace, rule: rule(STANDARD, ['gateways'], READ) };
    yield { namespace, rule: rule(EXTENSIONS, ['envoyproxies', 'backends'], READ) };
    for (const place of gatewayPlaces(config, namespace)) {
      yield { namespace: place, rule: rule(STANDARD, ['gateways'], READ) };
    }
    if (clientCertificate === 'Gateway') {
      for (const place of [namespace, ...grantablePlaces(config, namespace)]) {
        yield { namespace: place, rule: rule(STANDARD, ['gateways'], ['patch']) };
      }
    }
    for (const place of backendPlaces(config, namespace)) {
      yield { namespace: place, rule: rule(EXTENSIONS, ['backends'], READ) };
    }
    if (clientCertificate === 'Backend') {
      yield { namespace, rule: rule(EXTENSIONS, ['backends'], ['patch']) };
    } else {
      yield { namespace, rule: rule(EXTENSIONS, ['envoyproxies'], WRITE) };
    }
    if (grantablePlaces(config, namespace).length > 0) {
      yield { namespace, rule: rule(STANDARD, ['referencegrants'], [...READ, ...WRITE]) };
    }
    for (const place of routePlaces(config, namespace)) {
      yield { namespace: place, rule: rule(STANDARD, ['httproutes', 'grpcroutes'], READ) };
    }
    for (const place of policyPlaces(config, namespace)) {
      yield { namespace: place, rule: rule(STANDARD, ['backendtlspolicies'], [...READ, ...WRITE]) };
      yield { namespace: place, rule: rule('', ['services', 'pods'], READ) };
      yield { namespace: place, rule: rule('discovery.k8s.io', ['endpointslices'], READ) };
      yield { namespace: place, rule: rule('', ['configmaps'], ['create']) };
      const verbs = [...READ, 'patch', 'delete'];
      yield { namespace: place, rule: rule('', ['configmaps'], verbs, [config.caConfigMapName]) };
    }
  },
};

/** The API groups of Gateway API itself and of Envoy Gateway. */
export const STANDARD = 'gateway.networking.k8s.io';
export const EXTENSIONS = 'gateway.envoyproxy.io';

const standard = (kind: string, plural: string, namespaced = true): Resource => ({
  apiVersion: `${STANDARD}/v1`,
  kind,
  plural,
  namespaced,
});
const extension = (kind: string, plural: string): Resource => ({
  apiVersion: `${EXTENSIONS}/v1alpha1`,
  kind,
  plural,
  namespaced: true,
});

export const GATEWAY_API_RESOURCES = {
  policies: standard('BackendTLSPolicy', 'backendtlspolicies'),
  gateways: standard('Gateway', 'gateways'),
  classes: standard('GatewayClass', 'gatewayclasses', false),
  httpRoutes: standard('HTTPRoute', 'httproutes'),
  grpcRoutes: standard('GRPCRoute', 'grpcroutes'),
  // v1 exists since Gateway API 1.5 only.
  grants: { apiVersion: `${STANDARD}/v1beta1`, kind: 'ReferenceGrant', plural: 'referencegrants', namespaced: true },
  envoyProxies: extension('EnvoyProxy', 'envoyproxies'),
  backends: extension('Backend', 'backends'),
} as const satisfies Record<string, Resource>;

const core = (kind: string, plural: string): Resource => ({ apiVersion: 'v1', kind, plural, namespaced: true });

/** Kinds of Kubernetes itself that determine what is written. */
export const CORE_RESOURCES = {
  services: core('Service', 'services'),
  pods: core('Pod', 'pods'),
  configMaps: core('ConfigMap', 'configmaps'),
  endpointSlices: {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    plural: 'endpointslices',
    namespaced: true,
  },
} as const satisfies Record<string, Resource>;

/** Owns the fields of a Gateway, an EnvoyProxy or a Backend by which it presents the certificate. */
export const CLIENT_FIELD_MANAGER = 'meshcert-gateways';
/** Controllers of Envoy Gateway have names that begin so; its administrator chooses the rest. */
export const ENVOY_GATEWAY = `${EXTENSIONS}/`;
/** On a Service: ServiceAccounts, with commas between them, that its pods will have; they may answer before they do. */
export const NEXT_ANNOTATION = 'meshcert.dev/next-service-accounts';

/** A port of a Service by its number, as a route names it. */
export interface ServicePort {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
}

/** A port of a Service, or a Backend, whose identity the gateway verifies. */
export interface PolicyTarget {
  readonly kind: 'policy';
  readonly namespace: string;
  readonly of: 'Service' | 'Backend';
  readonly name: string;
  /** The name of the port of a Service; empty for a Backend: all of its ports. */
  readonly port: string;
  readonly hostname: string;
  /** One of these must be presented; empty: `hostname` must. Sorted. */
  readonly names: readonly PeerName[];
}

/**
 * `reread`: Envoy Gateway reads a Secret again that a Gateway names only if an EnvoyProxy beside it names the Secret
 * too. `grant`: Gateways of this other namespace name the Secret. `revision`: the bundle of this namespace must be
 * written with other bytes than before.
 */
export type GatewayApiTarget =
  | PolicyTarget
  | { readonly kind: 'reread' }
  | { readonly kind: 'grant'; readonly namespace: string }
  | { readonly kind: 'revision'; readonly namespace: string; readonly revision: number };

/**
 * Why a Gateway, a Service or a Backend is not used. Codes of the mesh itself come from its adapter; the rest are shared with
 * other gateways.
 */
export const GATEWAY_API_CODES = [
  'ERR_TARGET_CLASS',
  'ERR_TARGET_NO_PROXY',
  'ERR_TARGET_OVERRIDDEN',
  'ERR_TARGET_FOREIGN_TLS',
  'ERR_TARGET_NAMESPACE',
  'ERR_TARGET_FOREIGN_POLICY',
  'ERR_TARGET_MESH_POLICY',
  'ERR_TARGET_NOT_IN_CLUSTER',
  'ERR_TARGET_PORT_NAME',
  'ERR_TARGET_NO_SERVICE',
  'ERR_TARGET_NO_PORT',
  'ERR_TARGET_NO_ENDPOINTS',
  'ERR_TARGET_NO_POD',
  'ERR_TARGET_NO_ACCOUNT',
  'ERR_TARGET_NO_PEER',
  'ERR_TARGET_TOO_MANY',
  'ERR_TARGET_DISAGREE',
  'ERR_TARGET_UNSEEN',
  'ERR_TARGET_UNSELECTED',
  'ERR_TARGET_NO_CONSENT',
  'ERR_GATEWAY_CRD_MISSING',
] as const;

type GatewayApiCode = (typeof GATEWAY_API_CODES)[number];

/** Why something is not used; the message ends with the next step. */
export interface GatewayApiRefusal {
  readonly code: GatewayApiCode;
  readonly message: string;
}
