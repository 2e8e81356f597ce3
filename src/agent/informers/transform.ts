import type { KubeObject, ManagedFields } from '../../core/object.ts';
import { isOurs } from '../../core/plan/difference.ts';

/** A mesh has one bundle, or two while its roots overlap; an agent follows some meshes in some namespaces. */
const TEXTS = 64;

/**
 * Makes what is remembered of an observed object: all that is compared, and of the managers only ourselves. What a
 * thousand publications have in common, such as the bundle, exists once. A private key is never among that.
 */
export function objectTransform(): (object: KubeObject) => KubeObject {
  const shareText = sharedTexts();
  return (object) => {
    const { data } = object;
    // What differs in each object and is never compared.
    const { creationTimestamp: _, ...metadata } = object.metadata;
    const managedFields = (metadata.managedFields ?? []).filter(isOurs).map(withoutItems);
    const kept = { ...object, metadata: { ...metadata, managedFields } };
    return data === undefined
      ? kept
      : { ...kept, data: sharedData(data as Readonly<Record<string, string>>, shareText) };
  };
}

function sharedData(data: Readonly<Record<string, string>>, share: (text: string) => string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(data).map(([name, value]) => [name, name === 'tls.key' ? value : share(value)]),
  );
}

/** Which items of lists somebody owns is of no use here, and names an owner by its uid. */
function withoutItems({ manager, operation, fieldsV1 }: ManagedFields): ManagedFields {
  return { manager, operation, ...(fieldsV1 === undefined ? {} : { fieldsV1: namedOf(fieldsV1) }) };
}

function namedOf(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const named = Object.entries(fields).filter(([name]) => name.startsWith('f:'));
  return Object.fromEntries(
    named.map(([name, below]) => {
      const inner = typeof below === 'object' && below !== null ? namedOf(below as Record<string, unknown>) : below;
      return [name, inner];
    }),
  );
}

/** The newest few. */
function sharedTexts(): (text: string) => string {
  const known = new Map<string, string>();
  return (text) => {
    const shared = known.get(text) ?? text;
    known.delete(text);
    known.set(text, shared);
    const [oldest] = known.keys();
    if (known.size > TEXTS && oldest !== undefined) known.delete(oldest);
    return shared;
  };
}
