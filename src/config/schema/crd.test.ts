import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { adapters } from '../../../adapters/index.ts';
import { toyMeshes } from '../../../test/support/toy-meshes.ts';
import { gateways } from '../../gateways.ts';
import { customResourceDefinition, jsonSchema, type Structural, structural } from './crd.ts';
import { specSchema } from './mesh-certificate.ts';

// biome-ignore lint/suspicious/noExplicitAny: a manifest is walked freely
const crd = customResourceDefinition(toyMeshes, gateways) as any;
const version = crd.spec.versions[0];
const schema: Structural = version.schema.openAPIV3Schema;

function* walk(node: Structural, path: string): Generator<[string, Structural]> {
  yield [path, node];
  for (const [name, inner] of Object.entries(node.properties ?? {})) yield* walk(inner, `${path}.${name}`);
  if (node.items) yield* walk(node.items, `${path}[]`);
  if (node.additionalProperties) yield* walk(node.additionalProperties, `${path}{}`);
}

test('the schema is structural: every node has a type, and none forbids unknown fields', () => {
  for (const [path, node] of walk(schema, '')) {
    assert.ok(node.type !== undefined || node['x-kubernetes-preserve-unknown-fields'], path);
    for (const keyword of ['anyOf', 'oneOf', 'allOf', 'const', '$ref', '$schema', 'propertyNames']) {
      assert.ok(!(keyword in node), `${path} has ${keyword}`);
    }
    assert.notEqual(node.additionalProperties as unknown, false, path);
    assert.ok(!(node.properties && node.additionalProperties), path);
  }
});

test('every string, list and map has a bound, so that no object can keep the agent busy', () => {
  const definition = customResourceDefinition(adapters, gateways) as typeof crd;
  const unbounded = [...walk(definition.spec.versions[0].schema.openAPIV3Schema, '')].flatMap(([path, node]) => {
    // The API server limits these by itself.
    if (['.apiVersion', '.kind'].includes(path)) return [];
    const isBounded = {
      string: Number.isInteger(node.maxLength) || Array.isArray(node.enum),
      array: Number.isInteger(node.maxItems),
      object: !node.additionalProperties || Number.isInteger(node.maxProperties),
    };
    return isBounded[node.type as keyof typeof isBounded] === false ? [`${path}: ${node.type}`] : [];
  });
  assert.deepEqual(unbounded, []);
});

test('exactly one mesh is a rule of the API server too', () => {
  assert.deepEqual(schema.properties?.spec?.['x-kubernetes-validations'], [
    {
      rule: '[has(self.istio), has(self.consul)].filter(set, set).size() == 1',
      message: 'exactly one of istio, consul must be set',
    },
    {
      rule: '!has(self.secretName) || !has(self.caSecretName) || self.secretName != self.caSecretName',
      message: 'caSecretName must differ from secretName: the gateway would use the leaf as its trust bundle',
    },
  ]);
});

test('each refinement that the API server can check has an equivalent rule there', () => {
  const rules = [...walk(schema, '')].flatMap(([path, node]) => {
    const list = (node['x-kubernetes-validations'] ?? []) as { rule: string }[];
    return list.length > 0 ? [path] : [];
  });
  assert.deepEqual(rules.sort(), [
    '',
    '.spec',
    '.spec.caSecretName',
    '.spec.crlSecretName',
    '.spec.gatewayApi',
    '.spec.gatewayApi.backends.selector.matchLabels',
    '.spec.gatewayApi.gateways.selector.matchLabels',
    '.spec.gatewayApi.services.selector.matchLabels',
    '.spec.labels',
    '.spec.mappings.selector.matchLabels',
    '.spec.renewal',
    '.spec.secretName',
    '.spec.tlsContext',
  ]);
});

test('no field of the spec has a default: an older agent would refuse those that it does not know', () => {
  const defaults = [...walk(schema.properties?.spec ?? {}, 'spec')].filter(([, node]) => 'default' in node);
  assert.deepEqual(defaults, []);
  assert.equal(structural(specSchema(toyMeshes, gateways)).properties?.deletionPolicy?.default, 'Retain');
});

test('every field of ours has a description for kubectl explain', () => {
  for (const [path, node] of walk(schema.properties?.spec ?? {}, 'spec')) {
    if (/^spec\.(istio|consul)/.test(path) || /[\]}]$/.test(path)) continue;
    assert.ok(node.description, `${path} has no description`);
  }
});

test('the columns of kubectl get are those that users need first', () => {
  const names = version.additionalPrinterColumns.map(({ name }: { name: string }) => name);
  assert.deepEqual(names, ['Mesh', 'Identity', 'Ready', 'Reason', 'Not-After', 'Renewal', 'Age']);
});

test('a union becomes the properties of all its branches, required where all require them', () => {
  const union = z.discriminatedUnion('by', [
    z.strictObject({ by: z.literal('name'), name: z.string() }),
    z.strictObject({ by: z.literal('id'), id: z.string().optional(), name: z.string() }),
  ]);
  assert.deepEqual(structural(union), {
    type: 'object',
    required: ['by', 'name'],
    properties: {
      by: { type: 'string', enum: ['name', 'id'] },
      name: { type: 'string' },
      id: { type: 'string' },
    },
  });
  assert.deepEqual(structural(z.union([z.string(), z.number()])), { 'x-kubernetes-preserve-unknown-fields': true });
  assert.deepEqual(structural(z.record(z.string(), z.string())), {
    type: 'object',
    additionalProperties: { type: 'string' },
  });
});

test('the JSON schema for editors knows the meshes and no Kubernetes fields', () => {
  const text = JSON.stringify(jsonSchema(toyMeshes, gateways));
  assert.doesNotMatch(text, /x-kubernetes/);
  assert.match(text, /"oneOf":\[{"required":\["istio"\]},{"required":\["consul"\]}\]/);
});
