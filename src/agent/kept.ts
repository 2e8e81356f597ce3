import { isOurs } from '../core/difference.ts';
import type { KubeObject, ManagedFields } from '../core/object.ts';

/** A mesh has one bundle, or two while its roots overlap; an agent follows some meshes in some namespaces. */
const TEXTS = 64;

/**
 * Makes what is remembered of an observed object: all that is compared, and of the managers only ourselves. Texts that
 * a thousand publications share, such as the bundle, exist once. A private key is never among them.
 */
export function keeping(): (object: KubeObject) => KubeObject {
  const share = sharedTexts();
  const managers = new Map<string, readonly ManagedFields[]>();
  return (object) => {
    const { metadata, data, apiVersion, kind } = object;
    const { managedFields = [], namespace, ...rest } = metadata;
    const ours = managedFields.filter(isOurs).map(withoutItems);
    const print = JSON.stringify(ours);
    const known = managers.get(print) ?? ours;
    if (managers.size < TEXTS) managers.set(print, known);
    return {
      ...object,
      apiVersion: share(apiVersion),
      kind: share(kind),
      metadata: {
        ...rest,
        ...(namespace === undefined ? {} : { namespace: share(namespace) }),
        managedFields: known,
      },
      ...(data === undefined ? {} : { data: sharing(data as Readonly<Record<string, string>>, share) }),
    };
  };
}

function sharing(data: Readonly<Record<string, string>>, share: (text: string) => string): Record<string, string> {
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
