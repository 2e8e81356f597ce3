import { z } from 'zod';
import type { Adapter } from '../../mesh/adapter.ts';
import type { GatewayFields } from './gateway-fields.ts';
import { API_VERSION, KIND } from './mesh-certificate.ts';
import { specSchema } from './spec.ts';

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
