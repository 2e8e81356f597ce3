import { z } from 'zod';
import type { Adapter } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import {
  API_VERSION,
  type Claim,
  type CommonSpec,
  type GatewayFields,
  KIND,
  LONGEST_LABEL,
  labels,
  type MeshCertificate,
  namespaceName,
  specSchema,
  undottedName,
} from './schema/mesh-certificate.ts';

const any = () => z.unknown().optional();

const metadataSchema = z.strictObject({
  name: undottedName(),
  namespace: namespaceName().optional(),
  labels: labels().optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  ...Object.fromEntries(
    [
      'creationTimestamp',
      'deletionGracePeriodSeconds',
      'deletionTimestamp',
      'finalizers',
      'generateName',
      'generation',
      'managedFields',
      'ownerReferences',
      'resourceVersion',
      'selfLink',
      'uid',
    ].map((field) => [field, any()]),
  ),
});

export type Validation =
  | { readonly ok: true; readonly value: MeshCertificate }
  | { readonly ok: false; readonly issues: readonly Issue[]; readonly code?: string };

type Validate = (object: unknown) => Validation;

const validators = new WeakMap<readonly Adapter[], WeakMap<readonly GatewayFields[], Validate>>();

/**
 * One validator for custom resources and for documents in files, bound to all adapters and gateways. The same lists get
 * the same one: building its schema takes longer than validating an object.
 */
export function validator(adapters: readonly Adapter[], gateways: readonly GatewayFields[]): Validate {
  const known = validators.get(adapters) ?? new WeakMap<readonly GatewayFields[], Validate>();
  validators.set(adapters, known);
  const validate = known.get(gateways) ?? newValidator(adapters, gateways);
  known.set(gateways, validate);
  return validate;
}

function newValidator(adapters: readonly Adapter[], gateways: readonly GatewayFields[]): Validate {
  const meshes = adapters.map((adapter) => adapter.mesh);
  const schema = z.strictObject({
    apiVersion: z.literal(API_VERSION),
    kind: z.literal(KIND),
    metadata: metadataSchema,
    spec: specSchema(adapters, gateways),
    status: any(),
  });
  return (object) => {
    const parsed = schema.safeParse(object, { reportInput: true });
    const issues = parsed.success ? [] : issuesOf(parsed.error, schema);
    const mesh = meshOf(object, meshes, issues);
    if (!parsed.success || mesh === undefined) return { ok: false, issues };
    const { metadata, spec, ...rest } = parsed.data;
    const given: CommonSpec & Record<string, unknown> = spec;
    const value: MeshCertificate = {
      ...rest,
      metadata: metadata as MeshCertificate['metadata'],
      spec: normalise(metadata.name, given, { name: mesh, config: given[mesh] }, gateways),
    };
    issues.push(...crossCheck(value, adapters));
    if (issues.length > 0) return { ok: false, issues };
    const failure = adapterFailure(value, adapters);
    return failure ? { ok: false, ...failure } : { ok: true, value };
  };
}

/** An adapter's derived values must not fail later, where other MeshCertificates would be affected. */
function adapterFailure({ metadata, spec }: MeshCertificate, adapters: readonly Adapter[]) {
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  const host = { namespace: metadata.namespace ?? 'default' };
  try {
    adapter?.expect(spec.mesh.config, host);
    adapter?.needs(spec.mesh.config, host);
    adapter?.tlsFor?.(spec.mesh.config);
    return undefined;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    return { code: error.code, issues: [{ path: ['spec', spec.mesh.name], message: error.message }] };
  }
}

/** Checks one object. */
export function validateObject(
  object: unknown,
  adapters: readonly Adapter[],
  gateways: readonly GatewayFields[],
): Validation {
  return validator(adapters, gateways)(object);
}

/** The gateways whose fields a spec has; without any, those that are used by default. */
export function usedGateways<G extends GatewayFields>(
  spec: Readonly<Record<string, unknown>>,
  gateways: readonly G[],
): readonly G[] {
  const given = gateways.filter((one) => isNamed(one, spec));
  return given.length > 0 ? given : gateways.filter(({ byDefault }) => byDefault);
}

/** Whether a spec has a field of this gateway. */
export const isNamed = ({ fields }: GatewayFields, spec: Readonly<Record<string, unknown>>): boolean =>
  Object.keys(fields).some((field) => spec[field] !== undefined);

function normalise(
  name: string,
  spec: CommonSpec & Record<string, unknown>,
  mesh: MeshCertificate['spec']['mesh'],
  gateways: readonly GatewayFields[],
): MeshCertificate['spec'] {
  const used = usedGateways(spec, gateways);
  return {
    mesh,
    secretName: spec.secretName ?? `${name}-identity`,
    caSecretName: spec.caSecretName ?? `${name}-ca`,
    crlSecretName: spec.trust.crl ? (spec.crlSecretName ?? `${name}-crl`) : undefined,
    configMapName: spec.configMapName,
    gateways: Object.fromEntries(used.map(({ kind, configure }) => [kind, configure(name, spec)])),
    labels: spec.labels,
    renewal: spec.renewal,
    trust: {
      retainMs: spec.trust.retain,
      holdMs: spec.trust.hold,
      withdrawn: spec.trust.withdrawn.map((fingerprint) => fingerprint.replaceAll(':', '').toLowerCase()),
    },
    probe: spec.probe,
    upstreams: upstreamsOf(spec.upstreams),
    paused: spec.paused,
    deletionPolicy: spec.deletionPolicy,
  };
}

function upstreamsOf({ enabled, interval, ...rest }: CommonSpec['upstreams']): MeshCertificate['spec']['upstreams'] {
  return enabled ? { ...rest, intervalMs: interval } : undefined;
}

/** Adds an issue unless exactly one mesh is named; a mistyped mesh was reported already. */
function meshOf(object: unknown, meshes: readonly string[], issues: Issue[]): string | undefined {
  const spec = (object as { spec?: unknown } | null | undefined)?.spec;
  if (typeof spec !== 'object' || spec === null) return undefined;
  const found = meshes.filter((mesh) => (spec as Record<string, unknown>)[mesh] !== undefined);
  if (found.length === 1) return found[0];
  const mistyped = issues.some((issue) => meshes.some((mesh) => issue.message.endsWith(`did you mean "${mesh}"?`)));
  if (!mistyped) {
    issues.push({
      path: ['spec'],
      message: `exactly one of ${meshes.join(', ')} must be set, found ${found.length === 0 ? 'none' : found.join(' and ')}`,
    });
  }
  return undefined;
}

function crossCheck({ metadata, spec }: MeshCertificate, adapters: readonly Adapter[]): Issue[] {
  const issues: Issue[] = [];
  const { crlSecretName } = spec;
  if (crlSecretName !== undefined && [spec.secretName, spec.caSecretName].includes(crlSecretName)) {
    const message = 'must differ from secretName and caSecretName';
    issues.push({ path: ['spec', 'crlSecretName'], message });
  }
  if (crlSecretName !== undefined && adapters.find(({ mesh }) => mesh === spec.mesh.name)?.revokes !== true) {
    const message = `must not be set: meshcert reads no CRLs from ${spec.mesh.name}`;
    issues.push({ path: ['spec', 'trust', 'crl'], message });
  }
  if (spec.secretName === spec.caSecretName) {
    const message = 'must differ from secretName: the gateway would use the leaf as its trust bundle';
    issues.push({ path: ['spec', 'caSecretName'], message });
  }
  const owner = `${metadata.namespace ?? ''}.${metadata.name}`;
  if (owner.length > LONGEST_LABEL) {
    const message = `namespace and name together must be at most ${LONGEST_LABEL - 1} characters: they make a label`;
    issues.push({ path: ['metadata', 'name'], message });
  }
  return issues;
}

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
function issuesOf(error: z.ZodError, schema: z.ZodType, prefix: Issue['path'] = []): Issue[] {
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
function suggest(word: string, known: readonly string[]): string {
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

/**
 * The candidate that a mistyped word most likely meant, or undefined when none is close: at most a third of the
 * word's letters may differ, and letter case never counts.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const limit = Math.max(1, Math.floor(word.length / 3));
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const candidate of candidates) {
    const d = distance(word.toLowerCase(), candidate.toLowerCase());
    if (d < bestDistance) [best, bestDistance] = [candidate, d];
  }
  return best;
}

/** Edits between two words, where two swapped neighbours count as one (optimal string alignment). */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, (before[j - 2] ?? 0) + 1);
      row.push(cost);
    }
    [before, previous] = [previous, row];
  }
  return previous[b.length] ?? 0;
}

/** Two MeshCertificates that would write the same object; `later` is the one to refuse. */
export interface Conflict extends Issue {
  readonly later: MeshCertificate;
  readonly earlier: MeshCertificate;
}

/** Finds the names that two MeshCertificates both claim, in the order given. */
export function conflicts(all: readonly MeshCertificate[], gateways: readonly GatewayFields[]): Conflict[] {
  const owners = new Map<string, MeshCertificate>();
  const found: Conflict[] = [];
  for (const one of all) {
    for (const { key, path, what } of claims(one, gateways)) {
      const earlier = owners.get(key);
      if (earlier === undefined) owners.set(key, one);
      else if (earlier !== one)
        found.push({
          later: one,
          earlier,
          path,
          message: `${what} already belongs to MeshCertificate ${nameOf(earlier)}`,
        });
    }
  }
  return found;
}

const nameOf = ({ metadata }: MeshCertificate): string =>
  metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`;

function* claims({ metadata, spec }: MeshCertificate, gateways: readonly GatewayFields[]): Generator<Claim> {
  const namespace = metadata.namespace ?? '';
  const self = { path: ['metadata', 'name'], what: `the name ${metadata.name}` };
  yield { key: `self ${namespace}/${metadata.name}`, ...self };
  const secrets = [
    'secretName',
    'caSecretName',
    ...(spec.crlSecretName === undefined ? [] : (['crlSecretName'] as const)),
  ] as const;
  for (const field of secrets) {
    yield { key: `secret ${namespace}/${spec[field]}`, path: ['spec', field], what: `Secret ${spec[field]}` };
  }
  if (spec.configMapName !== undefined) {
    const what = `ConfigMap ${spec.configMapName}`;
    yield { key: `configmap ${namespace}/${spec.configMapName}`, path: ['spec', 'configMapName'], what };
  }
  for (const gateway of gateways) {
    const config = spec.gateways[gateway.kind];
    if (config !== undefined) yield* gateway.claims(config, metadata);
  }
}
