import { z } from 'zod';
import type { PublicationStatus } from '../../core/status.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { API_VERSION, type GatewayFields, KIND, specSchema, statusSchema } from './mesh-certificate.ts';

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

/** A JSON schema (draft 2020-12) of a MeshCertificate document, for editors and for linters of pull requests. */
export function jsonSchema(adapters: readonly Adapter[], gateways: readonly GatewayFields[]): Record<string, unknown> {
  const meshes = adapters.map(({ mesh }) => ({ required: [mesh] }));
  const spec = withoutKubernetes(
    z.toJSONSchema(specSchema(adapters, gateways), { io: 'input', unrepresentable: 'any' }),
  );
  delete spec.$schema;
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: KIND,
    type: 'object',
    required: ['apiVersion', 'kind', 'metadata', 'spec'],
    properties: {
      apiVersion: { const: API_VERSION },
      kind: { const: KIND },
      metadata: {
        type: 'object',
        required: ['name'],
        properties: {
          name: { type: 'string', pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$', maxLength: 63 },
          namespace: { type: 'string' },
        },
      },
      spec: { ...spec, oneOf: meshes },
      status: { type: 'object' },
    },
    additionalProperties: false,
  };
}

function withoutKubernetes<T>(value: T): T & Record<string, unknown> {
  const text = JSON.stringify(value, (key, inner) => (key.startsWith('x-kubernetes-') ? undefined : inner));
  return JSON.parse(text);
}

/** A Kubernetes structural schema: the part of OpenAPI v3 that a CustomResourceDefinition may use. */
export interface Structural {
  type?: string;
  description?: string;
  properties?: Record<string, Structural>;
  required?: string[];
  items?: Structural;
  additionalProperties?: Structural;
  [keyword: string]: unknown;
}

interface JsonSchema {
  type?: string;
  format?: string;
  enum?: unknown[];
  required?: string[];
  properties?: Record<string, JsonSchema>;
  items?: JsonSchema;
  additionalProperties?: JsonSchema | boolean;
  const?: unknown;
  allOf?: JsonSchema[];
  anyOf?: JsonSchema[];
  oneOf?: JsonSchema[];
  [keyword: string]: unknown;
}

/** The keywords that the API server keeps; all others are dropped. */
const KEYWORDS = new Set([
  ...['type', 'description', 'default', 'enum', 'pattern', 'nullable', 'required'],
  ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  ...['minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties', 'maxProperties'],
]);
const FORMATS = new Set(['date-time', 'int32', 'int64']);

/** The structural schema of a zod schema's input. */
export function structural(schema: z.ZodType): Structural {
  return convert(z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input', unrepresentable: 'any' }) as JsonSchema);
}

function convert(source: JsonSchema): Structural {
  const { anyOf, oneOf, allOf, ...own } = source;
  const branches = anyOf ?? oneOf;
  const flat = branches ? merge(own, branches) : own;
  const result: Structural = {};
  for (const [keyword, value] of Object.entries(allOf ? Object.assign({}, flat, ...allOf) : flat)) {
    if (KEYWORDS.has(keyword) || keyword.startsWith('x-kubernetes-')) result[keyword] = value;
  }
  if (typeof flat.format === 'string' && FORMATS.has(flat.format)) result.format = flat.format;
  if (flat.const !== undefined) result.enum = [flat.const];
  if (result.type === 'integer' && result.format === undefined) {
    result.format = 'int64';
    // Bounds of exact integers in JavaScript; next to int64 they only make `kubectl explain` longer.
    if (result.maximum === Number.MAX_SAFE_INTEGER) delete result.maximum;
    if (result.minimum === Number.MIN_SAFE_INTEGER) delete result.minimum;
  }
  if (flat.properties) {
    result.properties = Object.fromEntries(Object.entries(flat.properties).map(([name, one]) => [name, convert(one)]));
  } else if (typeof flat.additionalProperties === 'object') {
    result.additionalProperties = convert(flat.additionalProperties);
  }
  if (flat.items) result.items = convert(flat.items);
  if (result.type === undefined) result['x-kubernetes-preserve-unknown-fields'] = true;
  return result;
}

/**
 * Merges branches: the properties of all of them, of which only those are required that every branch requires. The
 * agent checks which of them go together; a structural schema cannot have types inside `oneOf`.
 */
function merge(own: JsonSchema, branches: readonly JsonSchema[]): JsonSchema {
  const objects = branches.filter((branch) => branch.type === 'object');
  if (objects.length < branches.length) return mergeScalars(own, branches);
  const properties: Record<string, JsonSchema> = {};
  for (const branch of objects) {
    for (const [name, one] of Object.entries(branch.properties ?? {})) {
      const before = properties[name];
      properties[name] = before === undefined ? one : mergeScalars({ ...before, ...one }, [before, one]);
    }
  }
  const required = (objects[0]?.required ?? []).filter((name) => objects.every((one) => one.required?.includes(name)));
  return { ...own, type: 'object', properties, ...(required.length > 0 ? { required } : {}) };
}

function mergeScalars(own: JsonSchema, branches: readonly JsonSchema[]): JsonSchema {
  const values = branches.map((branch) => (branch.const === undefined ? branch.enum : [branch.const]));
  const types = new Set(branches.map(({ type }) => type));
  const [type] = types;
  const { const: _, enum: __, ...rest } = own;
  if (types.size !== 1 || type === undefined) return rest;
  if (values.every(Array.isArray)) return { ...rest, type, enum: [...new Set(values.flat())] };
  const longest = Math.max(...branches.map(longestOf));
  return { ...rest, type, ...(type === 'string' && Number.isFinite(longest) ? { maxLength: longest } : {}) };
}

/** Infinity: without a bound. */
const longestOf = ({ maxLength, const: one, enum: several = [one] }: JsonSchema): number =>
  typeof maxLength === 'number'
    ? maxLength
    : Math.max(...several.map((value) => (typeof value === 'string' ? value.length : Number.POSITIVE_INFINITY)));
