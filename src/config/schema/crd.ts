import type { PublicationStatus } from '../../core/status.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { GatewayFields } from './gateway-fields.ts';
import { API_VERSION, KIND } from './mesh-certificate.ts';
import { specSchema } from './spec.ts';
import { statusSchema } from './status.ts';
import { type Structural, structural } from './structural.ts';

const [GROUP = '', VERSION = ''] = API_VERSION.split('/');

const column = (name: string, jsonPath: string, description: string, more: object = {}) => ({
  name,
  type: 'string',
  jsonPath,
  description,
  ...more,
});

/**
 * The status of a resource that no agent has seen. Tools that compare observedGeneration with the generation (Flux, Helm
 * 4, kpt) then wait for an agent; without it they would take such a resource for finished.
 */
const UNREPORTED = {
  observedGeneration: -1,
  mesh: '',
  roots: [],
  mappings: [],
  targets: [],
  rotations: 0,
  conditions: [],
} satisfies PublicationStatus;

/**
 * The API server writes a default into each object that it returns. An agent of an older version refuses the fields that
 * it does not know, so after a rollback it would rotate nothing. The agent fills the defaults in by itself.
 */
function withoutDefaults({ default: _, ...schema }: Structural): Structural {
  const { properties, items, additionalProperties } = schema;
  const entries = Object.entries(properties ?? {}).map(([name, one]) => [name, withoutDefaults(one)] as const);
  return {
    ...schema,
    ...(properties ? { properties: Object.fromEntries(entries) } : {}),
    ...(items ? { items: withoutDefaults(items) } : {}),
    ...(additionalProperties ? { additionalProperties: withoutDefaults(additionalProperties) } : {}),
  };
}

/** The CustomResourceDefinition of MeshCertificate, with the configuration of these adapters in it. */
export function customResourceDefinition(
  adapters: readonly Adapter[],
  gateways: readonly GatewayFields[],
): Record<string, unknown> {
  const meshes = adapters.map(({ mesh }) => mesh);
  const spec = withoutDefaults(structural(specSchema(adapters, gateways)));
  spec.description = 'Which mesh issues the certificate, and what is published for the gateway.';
  spec['x-kubernetes-validations'] = [
    {
      rule: `[${meshes.map((mesh) => `has(self.${mesh})`).join(', ')}].filter(set, set).size() == 1`,
      message: `exactly one of ${meshes.join(', ')} must be set`,
    },
    {
      rule: '!has(self.secretName) || !has(self.caSecretName) || self.secretName != self.caSecretName',
      message: 'caSecretName must differ from secretName: the gateway would use the leaf as its trust bundle',
    },
  ];
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `meshcertificates.${GROUP}` },
    spec: {
      group: GROUP,
      scope: 'Namespaced',
      names: {
        kind: KIND,
        listKind: `${KIND}List`,
        plural: 'meshcertificates',
        singular: 'meshcertificate',
        shortNames: ['mcert'],
        categories: ['meshcert'],
      },
      versions: [
        {
          name: VERSION,
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: [
            column('Mesh', '.status.mesh', 'Which mesh issues the certificate'),
            column('Identity', '.status.id', 'SPIFFE ID or DNS name of the published leaf'),
            column('Ready', '.status.conditions[?(@.type=="Ready")].status', 'Whether a valid pair is published'),
            column('Reason', '.status.conditions[?(@.type=="Degraded")].reason', 'What is wrong', { priority: 1 }),
            column('Not-After', '.status.notAfter', 'When the leaf expires'),
            column('Renewal', '.status.renewalTime', 'When the leaf is renewed'),
            column('Age', '.metadata.creationTimestamp', 'Since when this object exists', { type: 'date' }),
          ],
          schema: {
            openAPIV3Schema: {
              type: 'object',
              description:
                'The certificate of a service mesh that an API gateway uses towards the workloads of that mesh.',
              required: ['spec'],
              properties: {
                apiVersion: { type: 'string' },
                kind: { type: 'string' },
                metadata: { type: 'object' },
                spec,
                status: { ...structural(statusSchema), default: UNREPORTED },
              },
              'x-kubernetes-validations': [
                {
                  rule: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$') && size(self.metadata.name) <= 63",
                  message:
                    'metadata.name must have no dots and at most 63 characters: it names Secrets and objects of the gateway',
                },
              ],
            },
          },
        },
      ],
    },
  };
}
