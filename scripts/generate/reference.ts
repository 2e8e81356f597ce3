import { type Structural, structural } from '../../src/config/schema/crd.ts';
import {
  API_VERSION,
  type GatewayFields,
  KIND,
  specSchema,
  statusSchema,
} from '../../src/config/schema/mesh-certificate.ts';

import type { Adapter } from '../../src/mesh/adapter.ts';

/** docs/reference/mesh-certificate.md: every field with its type, default and meaning. */
export function renderReference(adapters: readonly Adapter[], gateways: readonly GatewayFields[]): string {
  const spec = structural(specSchema(adapters, gateways));
  const meshes = adapters.map(({ mesh }) => mesh);
  const common = Object.fromEntries(Object.entries(spec.properties ?? {}).filter(([name]) => !meshes.includes(name)));
  const sections = meshes.map((mesh) => {
    const schema = spec.properties?.[mesh] ?? {};
    return `## spec.${mesh}\n\n${schema.description ?? ''}\n\n${table(schema, `${mesh}.`)}`;
  });
  return `# ${KIND}

Generated from the schema by \`npm run gen\`. \`apiVersion: ${API_VERSION}\`, \`kind: ${KIND}\`, short name \`mcert\`.
The same document is a custom resource and a document in the file of \`meshcert agent --config\`.
Durations are written as in Go: \`8h\`, \`1h30m\`, \`500ms\`.

## spec

Exactly one of ${meshes.map((mesh) => `\`${mesh}\``).join(', ')} is set; see below for each.

${table({ properties: common }, '')}
${sections.join('\n')}
## status

${table(structural(statusSchema), '')}`;
}

function table(schema: Structural, prefix: string): string {
  const rows = [...fields(schema, prefix)].map(
    ({ path, type, fallback, text }) => `| \`${path}\` | ${type} | ${fallback} | ${cell(text)} |`,
  );
  return `| field | type | default | meaning |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}

interface Field {
  readonly path: string;
  readonly type: string;
  readonly fallback: string;
  readonly text: string;
}

function* fields(schema: Structural, prefix: string): Generator<Field> {
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const path = `${prefix}${name}`;
    const required = schema.required?.includes(name) ?? false;
    yield { path, type: typeOf(field), fallback: fallbackOf(field, required), text: field.description ?? '' };
    if (field.properties) yield* fields(field, `${path}.`);
    else if (field.items?.properties) yield* fields(field.items, `${path}[].`);
  }
}

function typeOf(field: Structural): string {
  if (Array.isArray(field.enum)) return field.enum.map((value) => `\`${value}\``).join(' \\| ');
  if (field.type === 'array') return `list of ${typeOf(field.items ?? {})}`;
  if (field.additionalProperties) return `map of ${typeOf(field.additionalProperties)}`;
  if (field.format === 'date-time') return 'time';
  if (field.type === 'string' && String(field.pattern).includes('(ns|us|µs|ms|s|m|h)')) return 'duration';
  return field.type ?? 'any';
}

function fallbackOf(field: Structural, required: boolean): string {
  if (required) return 'required';
  if (field.default === undefined || field.type === 'object' || field.type === 'array') return '';
  return `\`${String(field.default)}\``;
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '&lt;');
