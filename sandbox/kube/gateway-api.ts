import type { JsonFields, Stored } from './objects/object.ts';

const string = { type: 'string' };
const anything = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };
const open = (properties: JsonFields, required: readonly string[] = []): JsonFields => ({
  ...anything,
  properties,
  required,
});
const listOf = (items: JsonFields, bounds: JsonFields): JsonFields => ({ type: 'array', items, ...bounds });
const reference = open({ name: string, namespace: string, kind: string, group: string }, ['name']);

const STANDARD = 'gateway.networking.k8s.io';
const EXTENSIONS = 'gateway.envoyproxy.io';

/** Only the fields that matter to the upstream side are specified; the rest is accepted unchanged. */
const SPECS: readonly {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly spec: JsonFields;
  readonly scope?: string;
}[] = [
  {
    ...{ group: STANDARD, version: 'v1', kind: 'GatewayClass', plural: 'gatewayclasses', scope: 'Cluster' },
    spec: open({ controllerName: string }, ['controllerName']),
  },
  {
    ...{ group: STANDARD, version: 'v1', kind: 'Gateway', plural: 'gateways' },
    spec: open({ gatewayClassName: string }, ['gatewayClassName']),
  },
  { group: STANDARD, version: 'v1', kind: 'HTTPRoute', plural: 'httproutes', spec: anything },
  { group: STANDARD, version: 'v1', kind: 'GRPCRoute', plural: 'grpcroutes', spec: anything },
  {
    ...{ group: STANDARD, version: 'v1', kind: 'BackendTLSPolicy', plural: 'backendtlspolicies' },
    spec: open(
      {
        targetRefs: listOf(open({ group: string, kind: string, name: string, sectionName: string }, ['name']), {
          minItems: 1,
          maxItems: 16,
        }),
        validation: open(
          {
            caCertificateRefs: listOf(reference, { maxItems: 8 }),
            hostname: { type: 'string', minLength: 1, maxLength: 253 },
            subjectAltNames: listOf(open({ type: string, uri: string, hostname: string }, ['type']), { maxItems: 5 }),
          },
          ['hostname'],
        ),
      },
      ['targetRefs', 'validation'],
    ),
  },
  {
    ...{ group: STANDARD, version: 'v1beta1', kind: 'ReferenceGrant', plural: 'referencegrants' },
    spec: open(
      {
        from: listOf(open({ group: string, kind: string, namespace: string }), { minItems: 1, maxItems: 16 }),
        to: listOf(open({ group: string, kind: string, name: string }), { minItems: 1, maxItems: 16 }),
      },
      ['from', 'to'],
    ),
  },
  { group: EXTENSIONS, version: 'v1alpha1', kind: 'EnvoyProxy', plural: 'envoyproxies', spec: anything },
  {
    ...{ group: EXTENSIONS, version: 'v1alpha1', kind: 'Backend', plural: 'backends' },
    spec: open({ endpoints: { type: 'array', items: anything, minItems: 1, maxItems: 256 } }),
  },
  {
    ...{ group: EXTENSIONS, version: 'v1alpha1', kind: 'BackendTrafficPolicy', plural: 'backendtrafficpolicies' },
    spec: anything,
  },
];

/** The kinds of Gateway API and of Envoy Gateway as CustomResourceDefinitions. */
export function gatewayApiDefinitions(): Stored[] {
  return SPECS.map(({ group, version, kind, plural, spec, scope = 'Namespaced' }) => ({
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      // The API server requires it of every group below k8s.io.
      annotations: { 'api-approved.kubernetes.io': 'unapproved, only a part of the real definition' },
    },
    spec: {
      group,
      scope,
      names: { kind, plural, singular: kind.toLowerCase(), listKind: `${kind}List` },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          schema: { openAPIV3Schema: { type: 'object', properties: { spec, status: anything } } },
          subresources: { status: {} },
        },
      ],
    },
  }));
}
