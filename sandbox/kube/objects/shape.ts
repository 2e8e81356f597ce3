import { fieldsIn, isFields, type JsonFields } from './object.ts';

/** How a value merges: whole, field by field, or as a list whose items are identified by keys or by value. */
export type Merge = 'atomic' | 'granular' | 'set' | readonly string[];

/** What server-side apply must know about a type: how the value at a path merges. */
export interface CelShape {
  readonly merge: Merge;
  field(name: string): CelShape;
  readonly item: CelShape;
}

/** Lists of built-in kinds that merge by key, by the name of their field. All others are atomic. */
const BUILT_IN_LISTS: Readonly<Record<string, Merge>> = {
  containers: ['name'],
  initContainers: ['name'],
  env: ['name'],
  volumes: ['name'],
  volumeMounts: ['mountPath'],
  imagePullSecrets: ['name'],
  secrets: ['name'],
  conditions: ['type'],
  ownerReferences: ['uid'],
  finalizers: 'set',
};
const ATOMIC_MAPS = new Set(['selector', 'nodeSelector', 'roleRef', 'resourceFieldRef', 'secretKeyRef', 'fieldRef']);
const PORTS: Readonly<Record<string, Merge>> = { Service: ['port', 'protocol'], EndpointSlice: 'atomic' };

export function builtInShape(kind: string, name = ''): CelShape {
  return {
    merge: name === 'ports' ? (PORTS[kind] ?? ['containerPort', 'protocol']) : listOrMap(name),
    field: (child) => builtInShape(kind, child),
    get item() {
      return builtInShape(kind);
    },
  };
}

function listOrMap(name: string): Merge {
  if (ATOMIC_MAPS.has(name)) return 'atomic';
  return BUILT_IN_LISTS[name] ?? 'granular';
}

/** The shape that a structural schema gives by its `x-kubernetes-` extensions. */
export function schemaShape(schema: JsonFields): CelShape {
  const list = schema['x-kubernetes-list-type'];
  const keys = schema['x-kubernetes-list-map-keys'];
  const merge: Merge =
    list === 'map' && Array.isArray(keys)
      ? keys.map(String)
      : list === 'set'
        ? 'set'
        : schema['x-kubernetes-map-type'] === 'atomic'
          ? 'atomic'
          : 'granular';
  return {
    merge,
    field(name) {
      if (name === 'metadata') return builtInShape('ObjectMeta');
      const own = fieldsIn(schema.properties)[name];
      if (isFields(own)) return schemaShape(own);
      return schemaShape(fieldsIn(schema.additionalProperties));
    },
    get item() {
      return schemaShape(fieldsIn(schema.items));
    },
  };
}
