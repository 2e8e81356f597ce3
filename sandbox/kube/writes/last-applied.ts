import { isFields, type JsonFields, type Stored } from '../objects/object.ts';
import type { CelShape } from '../objects/shape.ts';
import type { ApiError } from '../objects/status.ts';
import { claimedBy, printPath } from './field-set.ts';

const ANNOTATION = 'kubectl.kubernetes.io/last-applied-configuration';
/** The field manager of `kubectl apply --server-side`. */
const KUBECTL = 'kubectl';

/**
 * Whether kubectl may take the conflicting fields over: all of them are in the configuration that kubectl itself
 * applied client-side before. This lets `apply --server-side` follow `apply` without force.
 */
export function mayTakeOver(live: Stored, manager: string, shape: CelShape, refusal: ApiError): boolean {
  const applied = lastApplied(live);
  if (manager !== KUBECTL || !applied) return false;
  const own = new Set([...claimedBy(applied, shape)].map(printPath));
  const causes = refusal.details.causes;
  return Array.isArray(causes) && causes.every((cause) => own.has(String((cause as JsonFields).field)));
}

/** Updates the annotation while kubectl applies on the server, so that client-side apply can follow again. */
export function withLastApplied(object: Stored, manager: string, config: Stored): Stored {
  if (manager !== KUBECTL || !lastApplied(object)) return object;
  const text = `${JSON.stringify(sorted(config))}\n`;
  const annotations = { ...object.metadata.annotations, [ANNOTATION]: text };
  return { ...object, metadata: { ...object.metadata, annotations } };
}

function lastApplied(object: Stored): JsonFields | undefined {
  const text = object.metadata.annotations?.[ANNOTATION];
  if (text === undefined) return undefined;
  const config: unknown = JSON.parse(text);
  return isFields(config) ? config : undefined;
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isFields(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, field]) => [name, sorted(field)]),
  );
}
