import { type KubeObject, type ManagedFields, refOf } from '../../core/object.ts';
import { isOurs } from '../../core/plan/difference.ts';
import { type OriginProof, removalOfForeign, withOrigin } from '../../core/plan/origin.ts';
import type { Kube, WriteOptions } from '../../kube/api.ts';

/**
 * Server-side apply removes only fields that the manager's *apply* owns, and an object that we created by POST is owned
 * by its *update*. If that is still the case, ownership is moved before the first apply that drops a field. Returns the
 * object after the move, or undefined if nothing was needed.
 */
export async function reclaimFields(
  kube: Kube,
  live: KubeObject,
  wanted: KubeObject,
  isProven: OriginProof,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  if (options.dryRun) return undefined;
  if (wanted.kind === 'Secret' && !isProven(live)) return takeOver(kube, live, wanted, options, signal);
  if (!dropsField(createdIn(live)?.fieldsV1 ?? {}, wanted)) return undefined;
  // The observed object lists only our field manager; the write needs the whole list.
  const whole = await kube.get(refOf(live), signal);
  const metadata = { ...live.metadata, managedFields: whole?.metadata.managedFields ?? [] };
  return ownByApply(kube, { ...live, metadata }, options, signal);
}

/**
 * Somebody else may have created it under our manager's name: fields that we would not have written are removed before
 * the object becomes ours.
 */
async function takeOver(
  kube: Kube,
  live: KubeObject,
  wanted: KubeObject,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const removal = removalOfForeign(live, wanted);
  if (!removal) return undefined;
  const { resourceVersion } = live.metadata;
  const patch = { ...removal, metadata: { ...removal.metadata, resourceVersion } };
  return kube.merge(refOf(live), patch, options, signal);
}

/**
 * Converts the ownership of what we created to our apply, as if an apply had created it: a later apply then has one
 * manager fewer to compare with, which saves a tenth of its cost in the API server. A Secret receives its own uid in
 * the same write. `whole` includes all managers. Returns the object after the write, or undefined if nothing was
 * needed.
 */
export async function ownByApply(
  kube: Kube,
  whole: KubeObject,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const created = createdIn(whole);
  if (!created) return undefined;
  const { resourceVersion, managedFields: all = [] } = whole.metadata;
  const managedFields = all
    .filter((entry) => !(isOurs(entry) && entry.operation === 'Apply'))
    .map((entry) => (entry === created ? { ...entry, operation: 'Apply' as const } : entry));
  const { annotations } = withOrigin({ ...whole, metadata: { name: whole.metadata.name } }, whole).metadata;
  return kube.merge(refOf(whole), { metadata: { annotations, managedFields, resourceVersion } }, options, signal);
}

function createdIn({ metadata }: KubeObject): ManagedFields | undefined {
  return metadata.managedFields?.find((entry) => isOurs(entry) && entry.operation === 'Update');
}

/** True when the field set names a field that the wanted object lacks. */
function dropsField(fields: Readonly<Record<string, unknown>>, wanted: unknown): boolean {
  return Object.entries(fields).some(([name, below]) => {
    if (!name.startsWith('f:')) return false;
    const value = (wanted as Record<string, unknown> | null | undefined)?.[name.slice(2)];
    if (value === undefined) return true;
    return typeof below === 'object' && below !== null && dropsField(below as Record<string, unknown>, value);
  });
}
