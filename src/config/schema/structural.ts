import { z } from 'zod';

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
