import { type KubeObject, keyOf, OWNER_LABEL, refOf } from '../../core/object.ts';
import { isMentioned } from '../../gateway/targets/mapping.ts';
import { namespacesBehind, ownNames, type TargetSpec, type TargetWorld } from '../../gateway/targets.ts';
import type { Resource } from '../../kube/api.ts';
import { RESOURCES } from '../../kube/resources.ts';
import type { SharedInformers, View, Watcher } from '../informers/by-kind.ts';

const BACKENDS = {
  services: RESOURCES.services,
  endpointSlices: RESOURCES.endpointSlices,
  pods: RESOURCES.pods,
} as const;

type Backends = Readonly<Record<keyof typeof BACKENDS, View>>;

const NOTHING: ReadonlySet<string> = new Set();
const NOWHERE: ReadonlyMap<string, Backends> = new Map();

/** What a look was about: of a thousand MeshCertificates, each has a few Mappings and contexts. */
interface InformerSelection {
  readonly wish: TargetSpec;
  readonly mappings: readonly KubeObject[];
  readonly contexts: readonly KubeObject[];
}

/** What one MeshCertificate sees of Mappings, its own TLSContexts, and the namespaces behind its Mappings. */
export class Sight implements Disposable {
  readonly #discovery: SharedInformers;
  readonly #watcher: Watcher;
  readonly #mappings: readonly Concerning[];
  readonly #contexts: Concerning;
  readonly #owner: string;
  #behind = NOWHERE;
  #looked: InformerSelection | undefined;

  /** `mappingNamespaces` undefined: all. `owner`: of our contexts. */
  constructor(
    discovery: SharedInformers,
    watcher: Watcher,
    scope: {
      readonly namespace: string;
      readonly mappingNamespaces: readonly string[] | undefined;
      readonly owner: string;
    },
  ) {
    this.#discovery = discovery;
    this.#watcher = watcher;
    this.#owner = scope.owner;
    const everywhere = scope.mappingNamespaces ?? [undefined];
    const concerning = (resource: Resource, namespace: string | undefined) =>
      new Concerning(this, watcher, discovery, resource, namespace);
    this.#mappings = exact(
      [RESOURCES.mappings, RESOURCES.tcpMappings].flatMap((resource: Resource) =>
        everywhere.map((namespace) => concerning(resource, namespace)),
      ),
    );
    this.#contexts = concerning(RESOURCES.tlsContexts, scope.namespace);
  }

  /** Whether all is known that can be: Mappings and contexts, and what lies behind them where it may be seen. */
  get complete(): boolean {
    const behind = [...this.#behind.values()].flatMap((views) => Object.values(views));
    return (
      [...this.#mappings, this.#contexts].every(({ view }) => view.synced) &&
      behind.every((view) => view.synced || view.problem !== undefined)
    );
  }

  /** What stands; opens and closes watches as the Mappings point to other namespaces. */
  world(wish: TargetSpec): TargetWorld {
    const contexts = exact(this.#contexts.view.items().filter((context) => this.#isOurs(context)));
    const ours = ownNames(wish, contexts);
    const mappings = exact(
      this.#mappings.flatMap(({ view }) => view.items().filter((mapping) => isMentioned(mapping, wish, ours))),
    );
    this.#looked = { wish, mappings, contexts };
    this.#look(namespacesBehind(wish, { mappings, contexts }));
    const all = (kind: keyof typeof BACKENDS) => [...this.#behind.values()].flatMap((views) => views[kind].items());
    return {
      mappings,
      contexts,
      services: all('services'),
      endpointSlices: all('endpointSlices'),
      pods: all('pods'),
      unseen: this.#unseen(),
    };
  }

  /** Whether a change of this object is to be told: it concerns us, or did at the last look. */
  heeds(key: string, object: KubeObject | undefined): boolean {
    const looked = this.#looked;
    if (looked?.contexts.some((one) => isAt(one, key, object))) return true;
    if (looked?.mappings.some((one) => isAt(one, key, object))) return true;
    if (object === undefined) return false;
    if (object.kind === RESOURCES.tlsContexts.kind) return this.#isOurs(object);
    return !looked || isMentioned(object, looked.wish, ownNames(looked.wish, looked.contexts));
  }

  [Symbol.dispose](): void {
    for (const { view } of [...this.#mappings, this.#contexts]) view[Symbol.dispose]();
    this.#look(NOTHING);
  }

  #isOurs({ metadata }: KubeObject): boolean {
    return metadata.labels?.[OWNER_LABEL] === this.#owner;
  }

  #unseen(): Map<string, string> {
    const unseen = new Map<string, string>();
    for (const [namespace, views] of this.#behind) {
      const late = Object.values(views).filter((view) => !view.synced);
      const problem = late.find((view) => view.problem)?.problem;
      if (late.length > 0) unseen.set(namespace, problem?.message ?? 'being listed');
    }
    return unseen;
  }

  #look(wanted: ReadonlySet<string>): void {
    const kept = new Map<string, Backends>();
    for (const [namespace, views] of this.#behind) {
      if (wanted.has(namespace)) kept.set(namespace, views);
      else for (const view of Object.values(views)) view[Symbol.dispose]();
    }
    for (const namespace of wanted) {
      if (kept.has(namespace)) continue;
      const view = (resource: Resource) => this.#discovery.view(resource, namespace, this.#watcher);
      kept.set(namespace, {
        services: view(BACKENDS.services),
        endpointSlices: view(BACKENDS.endpointSlices),
        pods: view(BACKENDS.pods),
      });
    }
    this.#behind = kept.size === 0 ? NOWHERE : kept;
  }
}

/** Without the room for more that `filter` leaves: 16 places each. */
const exact = <T>(list: readonly T[]): readonly T[] => [...list];

/** Whether this is what now stands, as `object` or not at all, under the key. */
function isAt(one: KubeObject, key: string, object: KubeObject | undefined): boolean {
  if (!object) return keyOf(refOf(one)) === key;
  const { name, namespace } = one.metadata;
  return name === object.metadata.name && namespace === object.metadata.namespace && one.kind === object.kind;
}

/** A view that tells only of what its sight heeds; and of the first list. */
class Concerning implements Watcher {
  readonly view: View;
  readonly #sight: Sight;
  readonly #watcher: Watcher;
  #listed = false;

  constructor(
    sight: Sight,
    watcher: Watcher,
    discovery: SharedInformers,
    resource: Resource,
    namespace: string | undefined,
  ) {
    this.#sight = sight;
    this.#watcher = watcher;
    this.view = discovery.view(resource, namespace, this);
  }

  changed(keys: ReadonlySet<string>): void {
    const heeded = !this.#listed || [...keys].some((key) => this.#sight.heeds(key, this.view.get(key)));
    if (heeded) this.#watcher.changed(keys);
    this.#listed = true;
  }

  failed(error: Error): void {
    this.#watcher.failed(error);
  }
}
