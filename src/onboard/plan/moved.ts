import { isDeepStrictEqual } from 'node:util';
import { CONSENT_ANNOTATION, consents, withConsent } from '../../core/consent.ts';
import { type KubeObject, preconditionOf } from '../../core/object.ts';
import { fields } from '../../mesh/kube-object.ts';
import type { OnboardableGateway } from '../discover/gateway.ts';

/** On a route that was moved: its previous state, as JSON, for the way back. */
export const BEFORE_ANNOTATION = 'meshcert.dev/before';
/** Owns the changes to routes, and the objects that `onboard` applies. */
export const ONBOARD_FIELD_MANAGER = 'meshcert-onboard';

type Previous = Readonly<Record<string, string | null>>;

/** Labels and annotations, and beside them the fields of `spec`; absent: was not changed; null: was not there. */
interface Before {
  readonly labels?: Previous;
  readonly annotations?: Previous;
  readonly [field: string]: unknown;
}

export interface Move {
  /** Labels by which the MeshCertificate selects it. */
  readonly labels: Readonly<Record<string, string>>;
  /** Namespace of the MeshCertificate, which the route allows when it is in another one. */
  readonly namespace: string;
  /** Fields of `spec`. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** The gateway knows the way back, so nothing but these fields is written. */
  readonly bare?: boolean | undefined;
}

/**
 * The desired route: it changes from its previous state to mTLS in one write, with no intermediate state that the
 * gateway could read. Moving the same route again changes nothing.
 */
export function moved(route: KubeObject, { labels, namespace, fields: wanted, bare }: Move): KubeObject {
  const spec = fields(route.spec);
  const { metadata } = route;
  if (bare) return { ...route, spec: { ...spec, ...wanted } };
  const newLabels = Object.entries(labels).filter(([key, value]) => metadata.labels?.[key] !== value);
  const changed = Object.keys(wanted).filter((key) => !isDeepStrictEqual(spec[key], wanted[key]));
  const consent = consents(route, namespace)
    ? {}
    : { [CONSENT_ANNOTATION]: withConsent(metadata.annotations?.[CONSENT_ANNOTATION], namespace) };
  const before: Before = {
    ...Object.fromEntries(changed.map((key) => [key, spec[key] ?? null])),
    ...noted('labels', Object.fromEntries(newLabels.map(([key]) => [key, metadata.labels?.[key] ?? null]))),
    ...noted(
      'annotations',
      Object.fromEntries(Object.keys(consent).map((key) => [key, metadata.annotations?.[key] ?? null])),
    ),
  };
  if (Object.keys(before).length === 0) return route;
  const unchanged = beforeOf(route);
  const note = {
    ...before,
    ...unchanged,
    ...noted('labels', { ...before.labels, ...unchanged?.labels }),
    ...noted('annotations', { ...before.annotations, ...unchanged?.annotations }),
  };
  const annotations = { ...metadata.annotations, ...consent, [BEFORE_ANNOTATION]: JSON.stringify(note) };
  return {
    ...route,
    metadata: { ...metadata, labels: { ...metadata.labels, ...labels }, annotations },
    ...(Object.keys(wanted).length === 0 ? {} : { spec: { ...spec, ...wanted } }),
  };
}

/** Nothing if there is nothing to record. */
const noted = (field: 'labels' | 'annotations', values: Previous): Before =>
  Object.keys(values).length === 0 ? {} : { [field]: values };

/** The minimal content of a server-side apply that makes this change. Conditional on the version that was judged. */
export function movePatch(object: KubeObject, move: Move): KubeObject {
  const { apiVersion, kind, metadata, spec } = object;
  const { name, namespace, annotations } = metadata;
  const { labels } = move;
  const wanted = Object.keys(move.fields).map((key) => [key, fields(spec)[key]]);
  const consent = namespace === move.namespace ? undefined : annotations?.[CONSENT_ANNOTATION];
  return {
    apiVersion,
    kind,
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...preconditionOf(object),
      ...(move.bare ? {} : { labels, annotations: noteOf(annotations, consent) }),
    },
    ...(wanted.length === 0 ? {} : { spec: Object.fromEntries(wanted) }),
  };
}

const noteOf = (annotations: KubeObject['metadata']['annotations'], consent: string | undefined) => ({
  [BEFORE_ANNOTATION]: annotations?.[BEFORE_ANNOTATION] ?? '{}',
  ...(consent === undefined ? {} : { [CONSENT_ANNOTATION]: consent }),
});

/**
 * A merge patch that restores the state before the move, in one write; undefined for a route that was never moved.
 */
export function backPatch(route: KubeObject): Readonly<Record<string, unknown>> | undefined {
  const before = beforeOf(route);
  if (!before) return undefined;
  const { resourceVersion } = route.metadata;
  const { labels, annotations, ...spec } = before;
  return {
    metadata: {
      ...(resourceVersion === undefined ? {} : { resourceVersion }),
      annotations: { ...annotations, [BEFORE_ANNOTATION]: null },
      ...(labels ? { labels } : {}),
    },
    ...(Object.keys(spec).length > 0 ? { spec } : {}),
  };
}

/** The same for a route that was led to stand-ins; undefined: it leads to none of these. */
export function backFrom(
  standIns: readonly KubeObject[],
  route: KubeObject,
  { onboarding }: OnboardableGateway,
): Readonly<Record<string, unknown>> | undefined {
  const spec = onboarding.standIns?.restored(route, standIns);
  const { resourceVersion } = route.metadata;
  return spec && { ...(resourceVersion === undefined ? {} : { metadata: { resourceVersion } }), spec };
}

/** The route after that patch, for display. */
export function movedBack(route: KubeObject, patch = backPatch(route)): KubeObject {
  return patch ? (merged(route, patch) as KubeObject) : route;
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
