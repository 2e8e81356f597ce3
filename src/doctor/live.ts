import { KIND } from '../config/schema/mesh-certificate.ts';
import { type KubeObject, keyOf, type ObjectRef } from '../core/object.ts';
import { gateways } from '../gateways.ts';
import type { Kube, Resource } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import { fields, text } from '../mesh/kube-object.ts';

export interface LiveObjects {
  readonly objects: readonly KubeObject[];
  /** Kinds that were read completely. */
  readonly whole: ReadonlySet<string>;
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

/**
 * Reads what the checks ask for; read-only. Secrets are never listed: only those are fetched, by name, that
 * an object of a gateway or a MeshCertificate names.
 */
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
  const secrets = new Map(secretRefs(objects).map((ref) => [keyOf(ref), ref]));
  let refused = false;
  for (const ref of secrets.values()) {
    try {
      const secret = await kube.get(ref, signal);
      if (secret) objects.push(secret);
    } catch (error) {
      skippable(error);
      refused = true;
      skipped.push(`Secret ${ref.namespace}/${ref.name} could not be read: ${(error as Error).message}`);
    }
  }
  if (!refused) {
    whole.add('Secret');
    listed.add('Secret');
  }
  return { objects, whole, listed, absent, skipped };
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

function secretRefs(objects: readonly KubeObject[]): ObjectRef[] {
  return objects.flatMap((object) => {
    const { namespace = '' } = object.metadata;
    const own = object.kind === KIND ? namesIn(object).map((name) => ({ namespace, name })) : [];
    const uses = [...own, ...diagnoses.flatMap((one) => one.secretsToRead(object))];
    return uses.map((use) => ({ apiVersion: 'v1', kind: 'Secret', ...use }));
  });
}

function namesIn(object: KubeObject): string[] {
  const spec = fields(object.spec);
  const { name } = object.metadata;
  return [text(spec.secretName) ?? `${name}-identity`, text(spec.caSecretName) ?? `${name}-ca`];
}
