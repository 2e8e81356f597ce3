import { CONSENT_ANNOTATION, consents, withConsent } from '../../core/consent.ts';
import type { KubeObject } from '../../core/object.ts';
import { fields, text } from '../../mesh/kube-object.ts';

/** On a Mapping that was moved: its previous state, as JSON, for the way back. */
export const BEFORE_ANNOTATION = 'meshcert.dev/before';
/** Owns the changes to Mappings, and the objects that `onboard` applies. */
export const ONBOARD_FIELD_MANAGER = 'meshcert-onboard';

interface Before {
  /** Absent: was not changed. */
  readonly service?: string;
  readonly tls?: string | null;
  readonly labels?: Readonly<Record<string, string | null>>;
  readonly annotations?: Readonly<Record<string, string | null>>;
}

export interface Move {
  readonly contextName: string;
  /** Labels by which the MeshCertificate selects it. */
  readonly labels: Readonly<Record<string, string>>;
  /** Namespace of the MeshCertificate, which the Mapping allows when it is in another one. */
  readonly namespace: string;
  /** With scheme and port, so that nothing depends on their defaults. */
  readonly service: string;
}

/**
 * The desired Mapping: it changes from its previous state to mTLS in one write, with no intermediate state that the
 * gateway could read. Moving the same Mapping again changes nothing.
 */
export function moved(mapping: KubeObject, { contextName, labels, namespace, service }: Move): KubeObject {
  const spec = fields(mapping.spec);
  const { metadata } = mapping;
  const newLabels = Object.entries(labels).filter(([key, value]) => metadata.labels?.[key] !== value);
  const consent = consents(mapping, namespace)
    ? {}
    : { [CONSENT_ANNOTATION]: withConsent(metadata.annotations?.[CONSENT_ANNOTATION], namespace) };
  const before: Before = {
    ...(spec.service === service ? {} : { service: String(spec.service) }),
    ...(spec.tls === contextName ? {} : { tls: text(spec.tls) ?? null }),
    ...noted('labels', Object.fromEntries(newLabels.map(([key]) => [key, metadata.labels?.[key] ?? null]))),
    ...noted(
      'annotations',
      Object.fromEntries(Object.keys(consent).map((key) => [key, metadata.annotations?.[key] ?? null])),
    ),
  };
  if (Object.keys(before).length === 0) return mapping;
  const unchanged = beforeOf(mapping);
  const note = {
    ...before,
    ...unchanged,
    ...noted('labels', { ...before.labels, ...unchanged?.labels }),
    ...noted('annotations', { ...before.annotations, ...unchanged?.annotations }),
  };
  const annotations = { ...metadata.annotations, ...consent, [BEFORE_ANNOTATION]: JSON.stringify(note) };
  return {
    ...mapping,
    metadata: { ...metadata, labels: { ...metadata.labels, ...labels }, annotations },
    spec: { ...spec, service, tls: contextName },
  };
}

/** Nothing if there is nothing to record. */
const noted = (field: 'labels' | 'annotations', values: Readonly<Record<string, string | null>>): Before =>
  Object.keys(values).length === 0 ? {} : { [field]: values };

/** The minimal content of a server-side apply that makes this change. Conditional on the version that was judged. */
export function movePatch({ apiVersion, kind, metadata, spec }: KubeObject, move: Move): KubeObject {
  const { name, namespace, resourceVersion, annotations } = metadata;
  const { labels } = move;
  const consent = namespace === move.namespace ? undefined : annotations?.[CONSENT_ANNOTATION];
  const { service, tls } = fields(spec);
  return {
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      labels,
      annotations: {
        [BEFORE_ANNOTATION]: annotations?.[BEFORE_ANNOTATION] ?? '{}',
        ...(consent === undefined ? {} : { [CONSENT_ANNOTATION]: consent }),
      },
    },
    spec: { service, tls },
  };
}

/**
 * A merge patch that restores the state before the move, in one write; undefined for a Mapping that was never moved.
 */
export function backPatch(mapping: KubeObject): Readonly<Record<string, unknown>> | undefined {
  const before = beforeOf(mapping);
  if (!before) return undefined;
  const { resourceVersion } = mapping.metadata;
  const spec = {
    ...(before.service === undefined ? {} : { service: before.service }),
    ...(before.tls === undefined ? {} : { tls: before.tls }),
  };
  return {
    metadata: {
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      annotations: { ...before.annotations, [BEFORE_ANNOTATION]: null },
      ...(before.labels ? { labels: before.labels } : {}),
    },
    ...(Object.keys(spec).length > 0 ? { spec } : {}),
  };
}

/** The Mapping after that patch, for display. */
export function movedBack(mapping: KubeObject): KubeObject {
  const patch = backPatch(mapping);
  return patch ? (merged(mapping, patch) as KubeObject) : mapping;
}

function beforeOf({ metadata }: KubeObject): Before | undefined {
  const note = metadata.annotations?.[BEFORE_ANNOTATION];
  try {
    return note === undefined ? undefined : (fields(JSON.parse(note)) as Before);
  } catch {
    return undefined;
  }
}

/** RFC 7396. */
function merged(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const result: Record<string, unknown> = { ...fields(target) };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merged(result[key], value);
  }
  return result;
}
