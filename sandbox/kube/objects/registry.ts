import { BUILT_IN_KINDS, type Kind, type TrustBundleVersion, trustBundleKind } from './kinds.ts';
import { fieldsIn, type JsonFields, type Stored } from './object.ts';
import { schemaShape } from './shape.ts';

/** The kinds that are currently served: the built-in ones and those of the stored definitions. */
export class KindRegistry {
  #kinds = new Map<string, Kind>();

  constructor() {
    for (const kind of BUILT_IN_KINDS) this.#kinds.set(pathOf(kind), kind);
  }

  find(group: string, version: string, plural: string): Kind | undefined {
    return this.#kinds.get(`${group}/${version}/${plural}`);
  }

  all(): Kind[] {
    return [...this.#kinds.values()];
  }

  /** Serves the kinds of a CustomResourceDefinition, in place of its previous ones. */
  define(definition: Stored): void {
    this.forget(definition);
    for (const kind of kindsOf(definition)) this.#kinds.set(pathOf(kind), kind);
  }

  forget(definition: Stored): void {
    const spec = fieldsIn(definition.spec);
    this.#remove(String(spec.group), String(fieldsIn(spec.names).plural));
  }

  /** Serves ClusterTrustBundles in these versions and no other; without any, not at all. */
  serveTrustBundles(versions: readonly TrustBundleVersion[]): void {
    this.#remove('certificates.k8s.io', 'clustertrustbundles');
    for (const kind of versions.map(trustBundleKind)) this.#kinds.set(pathOf(kind), kind);
  }

  #remove(group: string, plural: string): void {
    for (const [path, kind] of this.#kinds) {
      if (kind.group === group && kind.plural === plural) this.#kinds.delete(path);
    }
  }
}

const pathOf = (kind: Kind): string => `${kind.group}/${kind.version}/${kind.plural}`;
const strings = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);

function kindsOf(definition: Stored): Kind[] {
  const spec = fieldsIn(definition.spec);
  const names = fieldsIn(spec.names);
  const versions = Array.isArray(spec.versions) ? spec.versions.map(fieldsIn) : [];
  return versions
    .filter((version) => version.served !== false)
    .map((version) => {
      const schema = fieldsIn(fieldsIn(version.schema).openAPIV3Schema);
      return {
        group: String(spec.group),
        version: String(version.name),
        kind: String(names.kind),
        plural: String(names.plural),
        singular: String(names.singular ?? String(names.kind).toLowerCase()),
        shortNames: strings(names.shortNames),
        categories: strings(names.categories),
        namespaced: spec.scope !== 'Cluster',
        status: fieldsIn(version.subresources).status !== undefined,
        generation: true,
        versionRequired: true,
        virtual: false,
        shape: schemaShape(schema),
        schema,
        columns: columnsOf(version),
      };
    });
}

function columnsOf(version: JsonFields) {
  const columns = version.additionalPrinterColumns;
  if (!Array.isArray(columns)) return undefined;
  return columns.map(fieldsIn).map((column) => ({
    name: String(column.name),
    type: String(column.type),
    jsonPath: String(column.jsonPath),
    ...(typeof column.priority === 'number' ? { priority: column.priority } : {}),
    ...(column.description === undefined ? {} : { description: String(column.description) }),
  }));
}
