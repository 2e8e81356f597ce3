import { type KubeObject, keyOf, refOf } from '../core/object.ts';
import { isMentioned } from '../gateway/targets/mapping.ts';
import { namespacesBehind, ownNames, type TargetWish, type TargetWorld } from '../gateway/targets.ts';
import type { Resource } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import type { Discovery, View, Watcher } from './discovery.ts';

const BACKENDS = {
  services: RESOURCES.services,
  endpointSlices: RESOURCES.endpointSlices,
  pods: RESOURCES.pods,
} as const;

type Backends = Readonly<Record<keyof typeof BACKENDS, View>>;

/** What one MeshCertificate sees of Mappings, its own TLSContexts, and the namespaces behind its Mappings. */
export class Sight implements Disposable {
  readonly #discovery: Discovery;
  readonly #watcher: Watcher;
  readonly #mappings: readonly View[];
  readonly #contexts: View;
  readonly #isOurs: (context: KubeObject) => boolean;
  readonly #behind = new Map<string, Backends>();
  /** Mappings and contexts that the last look was about: of a thousand MeshCertificates, each has a few. */
  #ofConcern: ReadonlySet<string> = new Set();
  #isMentioned: (mapping: KubeObject) => boolean = () => true;

  /** `mappingNamespaces` undefined: all. */
  constructor(
    discovery: Discovery,
    watcher: Watcher,
    scope: {
      readonly namespace: string;
      readonly mappingNamespaces: readonly string[] | undefined;
      readonly isOurs: (context: KubeObject) => boolean;
    },
  ) {
    this.#discovery = discovery;
    this.#watcher = watcher;
    this.#isOurs = scope.isOurs;
    const everywhere = scope.mappingNamespaces ?? [undefined];
    this.#mappings = [RESOURCES.mappings, RESOURCES.tcpMappings].flatMap((resource: Resource) =>
      everywhere.map((namespace) => this.#concerning(resource, namespace, (mapping) => this.#isMentioned(mapping))),
    );
    this.#contexts = this.#concerning(RESOURCES.tlsContexts, scope.namespace, scope.isOurs);
  }

  /** Whether all is known that can be: Mappings and contexts, and what lies behind them where it may be seen. */
  get complete(): boolean {
    const behind = [...this.#behind.values()].flatMap((views) => Object.values(views));
    return (
      [...this.#mappings, this.#contexts].every((view) => view.synced) &&
      behind.every((view) => view.synced || view.problem !== undefined)
    );
  }

  /** What stands; opens and closes watches as the Mappings point to other namespaces. */
  world(wish: TargetWish): TargetWorld {
    const contexts = this.#contexts.items().filter(this.#isOurs);
    const ours = ownNames(wish, contexts);
    this.#isMentioned = (mapping) => isMentioned(mapping, wish, ours);
    const mappings = this.#mappings.flatMap((view) => view.items().filter(this.#isMentioned));
    this.#ofConcern = new Set([...mappings, ...contexts].map((object) => keyOf(refOf(object))));
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

  [Symbol.dispose](): void {
    for (const view of [...this.#mappings, this.#contexts]) view[Symbol.dispose]();
    this.#look(new Set());
  }

  /** A view that tells only of objects that concern us, or did at the last look; and of the first list. */
  #concerning(resource: Resource, namespace: string | undefined, concerns: (object: KubeObject) => boolean): View {
    const watcher = this.#watcher;
    let listed = false;
    const view = this.#discovery.view(resource, namespace, {
      failed: (error) => watcher.failed(error),
      changed: (keys) => {
        const isConcerned = [...keys].some((key) => {
          const object = view.get(key);
          return this.#ofConcern.has(key) || (object !== undefined && concerns(object));
        });
        if (isConcerned || !listed) watcher.changed(keys);
        listed = true;
      },
    });
    return view;
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
    for (const [namespace, views] of this.#behind) {
      if (wanted.has(namespace)) continue;
      this.#behind.delete(namespace);
      for (const view of Object.values(views)) view[Symbol.dispose]();
    }
    for (const namespace of wanted) {
      if (this.#behind.has(namespace)) continue;
      const view = (resource: Resource) => this.#discovery.view(resource, namespace, this.#watcher);
      this.#behind.set(namespace, {
        services: view(BACKENDS.services),
        endpointSlices: view(BACKENDS.endpointSlices),
        pods: view(BACKENDS.pods),
      });
    }
  }
}
