import { fieldsIn, isFields, type JsonFields } from '../objects/object.ts';
import type { Cause } from '../objects/status.ts';
import { type CelRule, compileRule } from './cel.ts';

/** There are few rules, and they are evaluated at every write. A rule with unsupported syntax is skipped. */
const compiled = new WeakMap<JsonFields, CelRule | undefined>();

/** The rules of the schema's `x-kubernetes-validations` that the value breaks; to be called once its shape is valid. */
export function brokenRules(value: unknown, schema: JsonFields, before?: unknown, path = ''): Cause[] {
  if (value === undefined || value === null) return [];
  const causes: Cause[] = rulesOf(schema)
    .filter((rule) => !holds(rule, value, before))
    .map((rule) => ({
      reason: 'FieldValueInvalid',
      message: `Invalid value: ${JSON.stringify(schema.type ?? 'object')}: ${String(rule.message ?? `failed rule: ${String(rule.rule)}`)}`,
      field: path === '' ? '<nil>' : path,
    }));
  if (Array.isArray(value)) {
    const items = fieldsIn(schema.items);
    return causes.concat(value.flatMap((item, index) => brokenRules(item, items, undefined, `${path}[${index}]`)));
  }
  if (!isFields(value)) return causes;
  const properties = fieldsIn(schema.properties);
  for (const [name, field] of Object.entries(value)) {
    const own = properties[name] ?? schema.additionalProperties;
    if (isFields(own))
      causes.push(...brokenRules(field, own, fieldsIn(before)[name], path === '' ? name : `${path}.${name}`));
  }
  return causes;
}

export function hasRules(schema: JsonFields): boolean {
  if (rulesOf(schema).length > 0) return true;
  const below = [...Object.values(fieldsIn(schema.properties)), schema.items, schema.additionalProperties];
  return below.some((one) => isFields(one) && hasRules(one));
}

function rulesOf(schema: JsonFields): JsonFields[] {
  const rules = schema['x-kubernetes-validations'];
  return Array.isArray(rules) ? rules.map((rule) => rule as JsonFields) : [];
}

function holds(rule: JsonFields, value: unknown, before: unknown): boolean {
  if (!compiled.has(rule)) compiled.set(rule, readable(String(rule.rule)));
  const test = compiled.get(rule);
  if (!test || (before === undefined && /\boldSelf\b/.test(String(rule.rule)))) return true;
  return test({ self: value, oldSelf: before }) === true;
}

function readable(text: string): CelRule | undefined {
  try {
    return compileRule(text);
  } catch {
    return undefined;
  }
}
