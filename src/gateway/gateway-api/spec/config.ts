import { z } from 'zod';
import type { Claim, GatewayFields, NamespacedRule, PolicyRule } from '../../../config/schema/gateway-fields.ts';
import { labels, namespaceName, objectName } from '../../../config/schema/names.ts';
import { cel } from '../../../mesh/schema/cel.ts';

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

const VOUCHED = 'needs clientCertificate: Gateway, because only Envoy Gateway reads an EnvoyProxy';

const gatewayApi = z
  .strictObject({
    gateways: z
      .strictObject({ selector: selector('Gateway') })
      .describe("The Gateways, in this object's namespace, that present the certificate."),
    clientCertificate: z
      .enum(['EnvoyProxy', 'Gateway'])
      .default('EnvoyProxy')
      .describe(
        'Where the certificate is named: spec.backendTLS of the EnvoyProxy of each Gateway, or spec.tls.backend of the Gateway.',
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
        namespaces: z
          .array(z.union([z.literal('*'), namespaceName()]))
          .min(1)
          .optional()
          .describe(
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
          .optional()
          .describe('Names of the ports that speak mTLS. Default: every port that has a name.'),
      })
      .describe('The Services whose identity the gateway verifies, one BackendTLSPolicy for each port.'),
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
  .meta(
    cel(
      "!has(self.controllers) || self.controllers.size() == 0 || (has(self.clientCertificate) && self.clientCertificate == 'Gateway')",
      `controllers ${VOUCHED}`,
    ),
  )
  .optional()
  .describe('Gateways of the Gateway API that use the certificate, and the Services whose identity they verify.');

/** A MeshCertificate's configuration of Gateway API, with every default filled in. */
export type GatewayApiConfig = NonNullable<z.output<typeof gatewayApi>> & { readonly caConfigMapName: string };

const READ = ['get', 'list', 'watch'] as const;
const STANDARD = 'gateway.networking.k8s.io';

/** Where Services are looked for. */
export const placesOf = ({ services }: GatewayApiConfig, own: string): readonly string[] =>
  services.namespaces?.includes('*') ? ['*'] : (services.namespaces ?? [own]);

export const gatewayApiFields: GatewayFields<GatewayApiConfig> = {
  kind: 'gatewayApi',
  fields: { gatewayApi },
  configure(name, given) {
    const config = given.gatewayApi as NonNullable<z.output<typeof gatewayApi>>;
    return { ...config, caConfigMapName: config.caConfigMapName ?? `${name}-ca` };
  },
  *claims(config, { namespace = '' }): Generator<Claim> {
    const { caConfigMapName } = config;
    const path = ['spec', 'gatewayApi', 'caConfigMapName'];
    for (const place of placesOf(config, namespace)) {
      yield { key: `configmap ${place}/${caConfigMapName}`, path, what: `ConfigMap ${caConfigMapName}` };
    }
  },
  *rights(config, { metadata: { namespace = '' } }): Generator<NamespacedRule> {
    const rule = (apiGroup: string, resources: string[], verbs: readonly string[], names?: string[]): PolicyRule => ({
      apiGroups: [apiGroup],
      resources,
      ...(names ? { resourceNames: names } : {}),
      verbs,
    });
    // Their controllers say which implementation runs a Gateway, and whether a mesh would take the policies too.
    yield { namespace: '*', rule: rule(STANDARD, ['gatewayclasses'], READ) };
    yield { namespace, rule: rule(STANDARD, ['gateways'], [...READ, 'patch']) };
    const proxies = [...READ, 'create', 'patch', 'delete'];
    yield { namespace, rule: rule('gateway.envoyproxy.io', ['envoyproxies'], proxies) };
    const places = placesOf(config, namespace);
    for (const place of places.includes('*') ? places : new Set([...places, namespace])) {
      yield { namespace: place, rule: rule(STANDARD, ['httproutes', 'grpcroutes'], READ) };
    }
    for (const place of places) {
      const write = ['create', 'patch', 'delete'];
      yield { namespace: place, rule: rule(STANDARD, ['backendtlspolicies'], [...READ, ...write]) };
      yield { namespace: place, rule: rule('', ['services', 'pods'], READ) };
      yield { namespace: place, rule: rule('discovery.k8s.io', ['endpointslices'], READ) };
      yield { namespace: place, rule: rule('', ['configmaps'], ['create']) };
      const verbs = [...READ, 'patch', 'delete'];
      yield { namespace: place, rule: rule('', ['configmaps'], verbs, [config.caConfigMapName]) };
    }
  },
};
