import { z } from 'zod';
import { nearest } from './nearest.ts';

/** One thing wrong with an object; the path is that of the field, from the object's root. */
export interface Issue {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/** `spec.listed.ids[0]`, as kubectl and the API server write paths. */
export function formatPath(path: Issue['path']): string {
  let text = '';
  for (const part of path) {
    if (typeof part === 'number') text += `[${part}]`;
    else if (/^[A-Za-z_][\w-]*$/.test(part)) text += text === '' ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}

/** A zod error in our words: unknown fields one by one, with the field that was probably meant. */
export function issuesOf(error: z.ZodError, schema: z.ZodType, prefix: Issue['path'] = []): Issue[] {
  const shape = shapeOf(schema);
  return error.issues.flatMap((issue) => translate(issue, shape, prefix));
}

/** Describing a schema takes longer than validating an object. */
const shapes = new WeakMap<z.ZodType, ZodShape>();

function shapeOf(schema: z.ZodType): ZodShape {
  const known = shapes.get(schema);
  if (known) return known;
  const shape: ZodShape = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  shapes.set(schema, shape);
  return shape;
}

interface ZodShape {
  properties?: Record<string, ZodShape | boolean>;
  items?: unknown;
  additionalProperties?: ZodShape | boolean;
  anyOf?: (ZodShape | boolean)[];
  oneOf?: (ZodShape | boolean)[];
}

function translate(issue: z.core.$ZodIssue, shape: ZodShape, prefix: Issue['path']): Issue[] {
  const here = issue.path.filter((part): part is string | number => typeof part !== 'symbol');
  const path = [...prefix, ...here];
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = fieldsAt([shape], here);
      return issue.keys.map((key) => ({ path: [...path, key], message: `unknown field ${suggest(key, known)}` }));
    }
    case 'invalid_value': {
      const allowed = issue.values.map(String);
      const word = typeof issue.input === 'string' && allowed.length > 1 ? issue.input : undefined;
      const found = word === undefined ? undefined : nearest(word, allowed);
      return [
        { path, message: `expected ${oneOf(allowed)}${found === undefined ? '' : `; did you mean "${found}"?`}` },
      ];
    }
    case 'invalid_union': {
      const branches = issue.errors.toSorted((a, b) => a.length - b.length);
      return (
        branches[0]?.flatMap((inner) => translate(inner, narrow(shape, here), path)) ?? [
          { path, message: issue.message },
        ]
      );
    }
    case 'invalid_type':
      return [{ path, message: issue.input === undefined && isMissing(issue) ? 'is required' : tidy(issue.message) }];
    default:
      return [{ path, message: tidy(issue.message) }];
  }
}

const isMissing = (issue: z.core.$ZodIssue): boolean => / received undefined$/.test(issue.message);

const tidy = (message: string): string =>
  message.replace(/^Invalid (input|string): /, '').replace(/, received /, ', found ');

const oneOf = (values: readonly string[]): string =>
  values.length === 1 ? `"${values[0]}"` : `one of ${values.map((value) => `"${value}"`).join(', ')}`;

/** `"secretNam"; did you mean "secretName"?`, or the possible values. */
export function suggest(word: string, known: readonly string[]): string {
  const meant = nearest(word, known);
  if (meant !== undefined) return `"${word}"; did you mean "${meant}"?`;
  return known.length === 0 ? `"${word}"` : `"${word}"; supported: ${known.join(', ')}`;
}

const narrow = (shape: ZodShape, path: Issue['path']): ZodShape => ({ anyOf: walk([shape], path) });

function fieldsAt(shapes: readonly ZodShape[], path: Issue['path']): string[] {
  return [...new Set(walk(shapes, path).flatMap((shape) => Object.keys(shape.properties ?? {})))];
}

function walk(shapes: readonly ZodShape[], path: Issue['path']): ZodShape[] {
  let level = shapes.flatMap(branchesOf);
  for (const part of path) {
    level = level
      .flatMap((shape) => {
        const next = typeof part === 'number' ? shape.items : (shape.properties?.[part] ?? shape.additionalProperties);
        return typeof next === 'object' && next !== null ? [next as ZodShape] : [];
      })
      .flatMap(branchesOf);
  }
  return level;
}

function branchesOf(shape: ZodShape): ZodShape[] {
  const branches = [...(shape.anyOf ?? []), ...(shape.oneOf ?? [])].filter((one) => typeof one === 'object');
  return [shape, ...branches.flatMap(branchesOf)];
}
