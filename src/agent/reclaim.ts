import { isOurs } from '../core/difference.ts';
import { type KubeObject, type ManagedFields, refOf } from '../core/object.ts';
import type { Kube, WriteOptions } from '../kube/api.ts';

/**
 * Server-side apply removes only fields that the manager's *apply* owns, and an object that we created by POST is
 * owned by its *update*. Before the first apply that drops a field, ownership is moved over. Returns the object as
 * it then stands, or undefined where nothing had to be done.
 */
export async function reclaimFields(
  kube: Kube,
  live: KubeObject,
  wanted: KubeObject,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  if (options.dryRun || !dropsField(createdIn(live)?.fieldsV1 ?? {}, wanted)) return undefined;
  // What is observed names only us; the whole list is written back.
  const whole = await kube.get(refOf(live), signal);
  const created = whole && createdIn(whole);
  if (!created) return undefined;
  const { metadata } = whole;
  const managedFields = (metadata.managedFields ?? [])
    .filter((entry) => !(isOurs(entry) && entry.operation === 'Apply'))
    .map((entry) => (entry === created ? { ...entry, operation: 'Apply' as const } : entry));
  return kube.merge(
    refOf(live),
    { metadata: { managedFields, resourceVersion: live.metadata.resourceVersion } },
    options,
    signal,
  );
}

function createdIn({ metadata }: KubeObject): ManagedFields | undefined {
  return metadata.managedFields?.find((entry) => isOurs(entry) && entry.operation === 'Update');
}

/** True when the field set names something that the wanted object lacks. */
function dropsField(fields: Readonly<Record<string, unknown>>, wanted: unknown): boolean {
  return Object.entries(fields).some(([name, below]) => {
    if (!name.startsWith('f:')) return false;
    const value = (wanted as Record<string, unknown> | null | undefined)?.[name.slice(2)];
    if (value === undefined) return true;
    return typeof below === 'object' && below !== null && dropsField(below as Record<string, unknown>, value);
  });
}
