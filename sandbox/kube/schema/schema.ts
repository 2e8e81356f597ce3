import { fieldsIn, isFields, type JsonFields } from '../objects/object.ts';
import type { Cause } from '../objects/status.ts';

const PRESERVE = 'x-kubernetes-preserve-unknown-fields';
const INT_OR_STRING = 'x-kubernetes-int-or-string';

/** A copy without the fields that the structural schema does not know; `dropped` collects their paths. */
export function pruned(value: unknown, schema: JsonFields, dropped: string[] = [], path = ''): unknown {
  if (Array.isArray(value)) {
    const items = fieldsIn(schema.items);
    return value.map((item, index) => pruned(item, items, dropped, `${path}[${index}]`));
  }
  if (!isFields(value)) return value;
  const properties = fieldsIn(schema.properties);
  const result: JsonFields = {};
  for (const [name, field] of Object.entries(value)) {
    const place = path === '' ? name : `${path}.${name}`;
    const own = properties[name] ?? schema.additionalProperties;
    if (path === '' && (name === 'metadata' || name === 'apiVersion' || name === 'kind')) result[name] = field;
    else if (isFields(own)) result[name] = pruned(field, own, dropped, place);
    else if (own === true || schema[PRESERVE] === true) result[name] = field;
    else dropped.push(place);
  }
  return result;
}

/** A copy with the schema's defaults filled in. */
export function defaulted(value: unknown, schema: JsonFields): unknown {
  if (Array.isArray(value)) return value.map((item) => defaulted(item, fieldsIn(schema.items)));
  if (!isFields(value)) return value;
  const result: JsonFields = { ...value };
  for (const [name, property] of Object.entries(fieldsIn(schema.properties))) {
    const own = fieldsIn(property);
    if (result[name] === undefined && own.default !== undefined) result[name] = structuredClone(own.default);
    if (result[name] !== undefined) result[name] = defaulted(result[name], own);
  }
  if (isFields(schema.additionalProperties)) {
    for (const name of Object.keys(result)) result[name] = defaulted(result[name], schema.additionalProperties);
  }
  return result;
}

/** How the value violates the schema, worded like the API server. */
export function violations(value: unknown, schema: JsonFields, path = ''): Cause[] {
  const place = path === '' ? '<nil>' : path;
  const bad = (reason: string, message: string): Cause => ({ reason, message, field: place });
  if (value === null && schema.nullable === true) return [];
  const causes: Cause[] = [];
  const type = typeOf(value);
  if (schema[INT_OR_STRING] === true) {
    if (type !== 'integer' && type !== 'string') return [wrongType(place, 'integer,string', type)];
  } else if (typeof schema.type === 'string' && !fits(type, schema.type)) {
    return [wrongType(place, schema.type, type)];
  }
  if (Array.isArray(schema.enum) && !schema.enum.includes(value)) {
    const allowed = schema.enum.map((one) => JSON.stringify(one)).join(', ');
    causes.push(
      bad('FieldValueNotSupported', `Unsupported value: ${JSON.stringify(value)}: supported values: ${allowed}`),
    );
  }
  if (typeof value === 'string') causes.push(...stringLimits(value, schema, place, bad));
  if (typeof value === 'number') causes.push(...numberLimits(value, schema, place, bad));
  if (Array.isArray(value)) {
    if (typeof schema.maxItems === 'number' && value.length > schema.maxItems) {
      causes.push(bad('FieldValueTooMany', `Too many: ${value.length}: must have at most ${schema.maxItems} items`));
    }
    if (typeof schema.minItems === 'number' && value.length < schema.minItems) {
      causes.push(
        bad(
          'FieldValueInvalid',
          `Invalid value: ${value.length}: ${path} in body should have at least ${schema.minItems} items`,
        ),
      );
    }
    const items = fieldsIn(schema.items);
    causes.push(...value.flatMap((item, index) => violations(item, items, `${path}[${index}]`)));
  }
  if (isFields(value)) causes.push(...objectViolations(value, schema, path));
  return causes;
}

type Bad = (reason: string, message: string) => Cause;

function stringLimits(value: string, schema: JsonFields, place: string, bad: Bad): Cause[] {
  const causes: Cause[] = [];
  const quoted = JSON.stringify(value);
  if (typeof schema.pattern === 'string' && !new RegExp(schema.pattern, 'u').test(value)) {
    causes.push(
      bad('FieldValueInvalid', `Invalid value: ${quoted}: ${place} in body should match '${schema.pattern}'`),
    );
  }
  if (typeof schema.maxLength === 'number' && value.length > schema.maxLength) {
    causes.push(bad('FieldValueTooLong', `Too long: may not be more than ${schema.maxLength} bytes`));
  }
  if (typeof schema.minLength === 'number' && value.length < schema.minLength) {
    causes.push(
      bad(
        'FieldValueInvalid',
        `Invalid value: ${quoted}: ${place} in body should be at least ${schema.minLength} chars long`,
      ),
    );
  }
  return causes;
}

/** The API server prints limits without their fraction. */
function numberLimits(value: number, schema: JsonFields, place: string, bad: Bad): Cause[] {
  const causes: Cause[] = [];
  if (typeof schema.maximum === 'number' && value > schema.maximum) {
    causes.push(
      bad(
        'FieldValueInvalid',
        `Invalid value: ${value}: ${place} in body should be less than or equal to ${Math.trunc(schema.maximum)}`,
      ),
    );
  }
  if (typeof schema.minimum === 'number' && value < schema.minimum) {
    causes.push(
      bad(
        'FieldValueInvalid',
        `Invalid value: ${value}: ${place} in body should be greater than or equal to ${Math.trunc(schema.minimum)}`,
      ),
    );
  }
  return causes;
}

function objectViolations(value: JsonFields, schema: JsonFields, path: string): Cause[] {
  const causes: Cause[] = [];
  const within = (name: string) => (path === '' ? name : `${path}.${name}`);
  for (const name of Array.isArray(schema.required) ? schema.required.map(String) : []) {
    if (value[name] === undefined)
      causes.push({ reason: 'FieldValueRequired', message: 'Required value', field: within(name) });
  }
  const properties = fieldsIn(schema.properties);
  for (const [name, field] of Object.entries(value)) {
    if (path === '' && name === 'metadata') continue;
    const own = properties[name] ?? schema.additionalProperties;
    if (isFields(own)) causes.push(...violations(field, own, within(name)));
  }
  return causes;
}

function wrongType(field: string, wanted: string, found: string): Cause {
  const message = `Invalid value: "${found}": ${field} in body must be of type ${wanted}: "${found}"`;
  return { reason: 'FieldValueTypeInvalid', message, field };
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}

const fits = (found: string, wanted: string): boolean =>
  found === wanted || (wanted === 'number' && found === 'integer');
