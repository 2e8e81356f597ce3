import type { Kind } from '../objects/kinds.ts';
import type { JsonFields, Meta, Stored } from '../objects/object.ts';
import { admitted } from '../schema/rules.ts';

/** The metadata that a client may set; everything else is the server's. */
const CLIENT_META = ['labels', 'annotations', 'finalizers', 'ownerReferences'] as const;

/**
 * A writer may rewrite field ownership, as kubectl does when it changes to server-side apply; an empty list resets it.
 */
export function withSaidOwners(live: Stored, said: Stored): Stored {
  const { managedFields } = said.metadata;
  if (!Array.isArray(managedFields)) return live;
  return { ...live, metadata: { ...live.metadata, managedFields: managedFields.filter((entry) => entry.manager) } };
}

export function clientMeta(meta: Meta): JsonFields {
  const kept: JsonFields = {};
  for (const name of CLIENT_META) {
    const value = meta[name];
    const empty = value === null || value === undefined || Object.keys(value).length === 0;
    if (!empty) kept[name] = value;
  }
  return kept;
}

export const serverMeta = (meta: Meta): Meta =>
  Object.fromEntries(Object.entries(meta).filter(([name]) => !CLIENT_META.some((own) => own === name))) as Meta;

export function omit(object: Stored, name: string): Stored {
  const { [name]: _, ...rest } = object;
  return rest as Stored;
}

/** An applied configuration without its status, or with only the status. */
function pick(config: Stored, status: boolean): Stored {
  if (!status) return omit(config, 'status');
  const { apiVersion, kind, metadata } = config;
  return {
    apiVersion,
    kind,
    metadata: { name: metadata.name },
    ...(config.status === undefined ? {} : { status: config.status }),
  };
}

/** The part of an applied configuration about this part of the object; defaults are stored but nobody owns them. */
export function claimOf(kind: Kind, config: Stored, subresource: string | undefined): Stored {
  const written = 'stringData' in config ? admitted(kind, config, 'Ignore') : config;
  return kind.status ? pick(written, subresource === 'status') : written;
}

/** The fields whose changes `metadata.generation` counts. */
export function counted(object: Stored, kind: Kind): JsonFields {
  const { metadata: _, status, ...rest } = object;
  return kind.status || status === undefined ? rest : { ...rest, status };
}
