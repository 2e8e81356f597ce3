import { type KubeObject, UID_ANNOTATION } from '../object.ts';

/** Whether the agent wrote an object, so that its content can be relied on. */
export type OriginProof = (object: KubeObject) => boolean;

/**
 * True if a writer who may update this object has written it. Label and field manager prove nothing, since any user who
 * may create objects chooses them. The uid, however, is chosen by the API server when the object is created, so only a
 * later write can put it into an annotation.
 */
export const provesOrigin: OriginProof = ({ metadata }) =>
  metadata.uid !== undefined && metadata.annotations?.[UID_ANNOTATION] === metadata.uid;

/**
 * The same, and true for the objects with these uids: the agent created them, and has them in memory or in the status
 * of the MeshCertificate, which only the agent may write. This saves the second write of each new Secret.
 */
export const provenBy =
  (created: ReadonlySet<string>): OriginProof =>
  (object) =>
    provesOrigin(object) || (object.metadata.uid !== undefined && created.has(object.metadata.uid));

/** The object to be written over `live`: a Secret carries its own uid. */
export function withOrigin(wanted: KubeObject, { metadata }: KubeObject): KubeObject {
  if (wanted.kind !== 'Secret' || metadata.uid === undefined) return wanted;
  const annotations = { ...wanted.metadata.annotations, [UID_ANNOTATION]: metadata.uid };
  return { ...wanted, metadata: { ...wanted.metadata, annotations } };
}

/**
 * Metadata that is not content: the object's name, fields that are compared one by one, fields that the API server
 * sets.
 */
const NOT_FOREIGN = new Set([
  ...['name', 'namespace', 'labels', 'annotations'],
  ...['uid', 'resourceVersion', 'generation', 'creationTimestamp', 'managedFields', 'selfLink'],
]);

export interface Removal {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly data?: Readonly<Record<string, null>>;
}

/**
 * The merge patch that removes from `live` what `wanted` does not have: further keys, labels, annotations, owner
 * references, finalizers. Undefined if there is nothing to remove. For an object that was created under our manager's
 * name.
 */
export function removalOfForeign(live: KubeObject, wanted: KubeObject): Removal | undefined {
  const metadata: Record<string, unknown> = {};
  for (const name of Object.keys(live.metadata)) if (!NOT_FOREIGN.has(name)) metadata[name] = null;
  const labels = nulls(live.metadata.labels, wanted.metadata.labels);
  const annotations = nulls(live.metadata.annotations, wanted.metadata.annotations);
  const data = nulls(live.data, wanted.data);
  if (labels) metadata.labels = labels;
  if (annotations) metadata.annotations = annotations;
  if (!data && Object.keys(metadata).length === 0) return undefined;
  return { metadata, ...(data ? { data } : {}) };
}

function nulls(live: unknown, wanted: unknown): Readonly<Record<string, null>> | undefined {
  const names = Object.keys(live ?? {}).filter((name) => !Object.hasOwn(wanted ?? {}, name));
  return names.length === 0 ? undefined : Object.fromEntries(names.map((name) => [name, null]));
}
