import { KIND } from '../config/schema/mesh-certificate.ts';
import { describe, type KubeObject, keyOf, type ObjectRef } from '../core/object.ts';
import { gateways } from '../gateways.ts';
import type { Kube, Resource } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { fields, text } from '../mesh/kube-object.ts';

export interface LiveObjects {
  readonly objects: readonly KubeObject[];
  /** Kinds that were read completely. */
  readonly whole: ReadonlySet<string>;
  /** The only namespaces that were read; absent: all. */
  readonly namespaces?: readonly string[] | undefined;
  /** Kinds that were read wherever they were requested; if namespaces are given, not in others. */
  readonly listed: ReadonlySet<string>;
  /** Kinds that the API server does not know. */
  readonly absent: ReadonlySet<string>;
  /** What was refused, in sentences. */
  readonly skipped: readonly string[];
}

const diagnoses = gateways.flatMap(({ diagnosis }) => diagnosis ?? []);

const LISTED: readonly Resource[] = [
  ...diagnoses.flatMap(({ resources }) => resources),
  RESOURCES.meshCertificates,
  RESOURCES.deployments,
  RESOURCES.daemonSets,
  RESOURCES.services,
  RESOURCES.namespaces,
  RESOURCES.pods,
];

/** Never listed: only those are fetched, by name, that an object of a gateway or a MeshCertificate names. */
const FETCHED = ['Secret', 'ConfigMap'];

/** Reads what the checks ask for; read-only. */
export async function readCluster(
  kube: Kube,
  namespaces: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<LiveObjects> {
  const objects: KubeObject[] = [];
  const whole = new Set<string>();
  const listed = new Set<string>();
  const absent = new Set<string>();
  const skipped: string[] = [];
  for (const resource of LISTED) {
    try {
      objects.push(...(await listIn(kube, resource, namespaces, signal)));
      listed.add(resource.kind);
      if (!namespaces) whole.add(resource.kind);
    } catch (error) {
      const reason = skippable(error);
      // A kind that the cluster does not serve has no objects.
      if (reason === 'absent') absent.add(resource.kind);
      if (reason === 'absent' && !namespaces) whole.add(resource.kind);
      else if (reason === 'refused') skipped.push(`${resource.plural} could not be read: ${(error as Error).message}`);
    }
  }
  const named = new Map(namedBy(objects).map((ref) => [keyOf(ref), ref]));
  const refused = new Set<string>();
  for (const ref of named.values()) {
    try {
      const found = await kube.get(ref, signal);
      if (found) objects.push(found);
    } catch (error) {
      skippable(error);
      refused.add(ref.kind);
      skipped.push(`${describe(ref)} could not be read: ${(error as Error).message}`);
    }
  }
  for (const kind of FETCHED.filter((one) => !refused.has(one))) {
    whole.add(kind);
    listed.add(kind);
  }
  return { objects, whole, namespaces, listed, absent, skipped };
}

/** Gateways and agents may run in another namespace than the objects they serve, so all namespaces are searched. */
async function listIn(
  kube: Kube,
  resource: Resource,
  namespaces: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<readonly KubeObject[]> {
  if (!namespaces || !resource.namespaced) return (await kube.list(resource, {}, signal)).items;
  if (resource === RESOURCES.deployments || resource === RESOURCES.daemonSets) {
    try {
      return (await kube.list(resource, {}, signal)).items;
    } catch (error) {
      if (skippable(error) === 'absent') throw error;
    }
  }
  const lists = await Promise.all(namespaces.map((namespace) => kube.list(resource, { namespace }, signal)));
  return lists.flatMap(({ items }) => items);
}

function skippable(error: unknown): 'absent' | 'refused' {
  if (error instanceof KubeError && error.status === 404) return 'absent';
  if (error instanceof KubeError && error.status === 403) return 'refused';
  throw error;
}

function namedBy(objects: readonly KubeObject[]): ObjectRef[] {
  return objects.flatMap((object) => {
    const { namespace } = object.metadata;
    const own = object.kind === KIND ? namesIn(object) : [];
    return [
      ...own.map((name) => ({ apiVersion: 'v1', kind: 'Secret', namespace, name })),
      ...diagnoses.flatMap((one) => one.objectsToRead(object)),
    ];
  });
}

function namesIn(object: KubeObject): string[] {
  const spec = fields(object.spec);
  const { name } = object.metadata;
  return [text(spec.secretName) ?? `${name}-identity`, text(spec.caSecretName) ?? `${name}-ca`];
}
