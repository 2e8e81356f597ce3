import { fieldsIn, type JsonFields, type Stored } from './object.ts';
import type { KindRegistry } from './registry.ts';
import type { Change, Store } from './store.ts';

const RESOURCE = 'apiextensions.k8s.io/customresourcedefinitions';

/** Serves a defined kind as soon as its definition is stored, and reports that in the definition's status. */
export class Definitions {
  readonly #store: Store;
  readonly #registry: KindRegistry;

  constructor(store: Store, registry: KindRegistry) {
    this.#store = store;
    this.#registry = registry;
    store.subscribe(RESOURCE, (change) => this.#follow(change));
  }

  #follow({ type, object }: Change): void {
    if (type === 'DELETED') {
      this.#registry.forget(object);
      this.#dropInstances(object);
      return;
    }
    this.#registry.define(object);
    if (fieldsIn(object.status).acceptedNames === undefined)
      this.#store.put(RESOURCE, { ...object, status: accepted(object) });
  }

  #dropInstances(definition: Stored): void {
    const { group, names } = fieldsIn(definition.spec);
    const resource = `${String(group)}/${String(fieldsIn(names).plural)}`;
    for (const instance of this.#store.list(resource)) this.#store.remove(resource, instance);
  }
}

function accepted(definition: Stored): JsonFields {
  const spec = fieldsIn(definition.spec);
  const versions = Array.isArray(spec.versions) ? spec.versions.map(fieldsIn) : [];
  const condition = (type: string, reason: string, message: string) => ({
    type,
    status: 'True',
    reason,
    message,
    lastTransitionTime: definition.metadata.creationTimestamp,
  });
  return {
    acceptedNames: spec.names,
    storedVersions: versions.filter((version) => version.storage === true).map((version) => version.name),
    conditions: [
      condition('NamesAccepted', 'NoConflicts', 'no conflicts found'),
      condition('Established', 'InitialNamesAccepted', 'the initial names have been accepted'),
    ],
  };
}
