import { z } from 'zod';
import type { Adapter } from '../mesh/adapter.ts';
import { MeshError } from '../mesh/error.ts';
import { type Issue, issuesOf } from './issue.ts';
import type { GatewayFields } from './schema/gateway-fields.ts';
import { API_VERSION, KIND, type MeshCertificate } from './schema/mesh-certificate.ts';
import { LONGEST_LABEL, labels, namespaceName, undottedName } from './schema/names.ts';
import { type CommonSpec, specSchema } from './schema/spec.ts';

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
export function usedGateways(
  spec: Readonly<Record<string, unknown>>,
  gateways: readonly GatewayFields[],
): readonly GatewayFields[] {
  const given = gateways.filter(({ fields }) => Object.keys(fields).some((field) => spec[field] !== undefined));
  return given.length > 0 ? given : gateways.filter(({ byDefault }) => byDefault);
}

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
