import { type KubeObject, keyOf, refOf } from '../../core/object.ts';
import type { ObservedObjects, Routes } from '../../gateway/gateway.ts';
import type { RouteInput, Scope } from '../../gateway/input.ts';
import type { SharedInformers, View, Watcher } from '../informers/by-kind.ts';

/** A view of what a scope names. */
interface Scoped {
  readonly scope: Scope;
  readonly view: View;
}

const NOTHING: readonly Scope[] = [];
const NOWHERE: ReadonlyMap<string, Scoped> = new Map();

/** The inputs of one observation: of a thousand MeshCertificates, each has a few routes and objects of its own. */
interface InformerSelection {
  readonly input: RouteInput<unknown>;
  readonly routes: readonly KubeObject[];
  readonly own: readonly KubeObject[];
}

/**
 * One MeshCertificate's view of routes, of its own objects of the gateway's kinds, and of the objects behind its
 * routes.
 */
export class RouteInformer implements Disposable {
  readonly #discovery: SharedInformers;
  readonly #watcher: Watcher;
  readonly #rules: Pick<Routes<unknown, unknown>, 'concern' | 'behind'>;
  readonly #routes: readonly Concerning[];
  readonly #own: readonly Scoped[];
  #behind = NOWHERE;
  #looked: InformerSelection | undefined;

  /** `owner`: the label of our objects. */
  constructor(
    discovery: SharedInformers,
    watcher: Watcher,
    rules: Routes<unknown, unknown>,
    input: RouteInput<unknown>,
    owner: string,
  ) {
    this.#discovery = discovery;
    this.#watcher = watcher;
    this.#rules = rules;
    const { routes, own } = rules.scopes(input);
    this.#routes = exact(routes.map((scope) => new Concerning(this.#matchesRoute, watcher, discovery, scope)));
    this.#own = exact(
      own.map((scope) => {
        const { resource, namespace, name } = scope;
        const view = discovery.view(resource, namespace, watcher, { name, bare: true, optional: true, owner });
        return { scope, view };
      }),
    );
  }

  /**
   * Whether everything is known that can be: routes and own objects, and the objects behind them if reading those is
   * allowed.
   */
  get complete(): boolean {
    return (
      [...this.#routes, ...this.#own].every(({ view }) => view.synced) &&
      [...this.#behind.values()].every(({ view }) => view.synced || view.problem !== undefined)
    );
  }

  /** The observed objects; opens and closes watches as the routes point to other namespaces. */
  observe(input: RouteInput<unknown>): ObservedObjects {
    const own = exact(this.#own.flatMap(({ view }) => view.items()));
    const concerns = this.#rules.concern(input, own);
    const routes = exact(this.#routes.flatMap(({ view }) => view.items().filter(concerns)));
    this.#looked = { input, routes, own };
    this.#look(this.#rules.behind(input, { routes, own }));
    const behind = [...this.#behind.values()];
    const all = [...behind, ...this.#routes, ...this.#own];
    return {
      routes,
      own,
      behind: (kind) => behind.flatMap(({ scope, view }) => (scope.resource.kind === kind ? view.items() : [])),
      unseen: this.#unseen(),
      hidden: (kind, namespace) => hidden(behind, kind, namespace),
      unserved: new Set(all.flatMap(({ scope, view }) => (view.unserved ? [scope.resource.kind] : []))),
    };
  }

  [Symbol.dispose](): void {
    for (const { view } of [...this.#routes, ...this.#own]) view[Symbol.dispose]();
    this.#look(NOTHING);
  }

  /** Whether a change of this route is relevant: the route concerns us, or did at the last observation. */
  readonly #matchesRoute = (key: string, object: KubeObject | undefined): boolean => {
    const looked = this.#looked;
    if (looked?.routes.some((one) => isAt(one, key, object))) return true;
    if (object === undefined) return false;
    return !looked || this.#rules.concern(looked.input, looked.own)(object);
  };

  #unseen(): Map<string, string> {
    const unseen = new Map<string, string>();
    const late = [...this.#behind.values()].filter(({ view }) => !view.synced);
    for (const { scope, view } of late) {
      const { namespace = '' } = scope;
      if (view.problem || !unseen.has(namespace)) unseen.set(namespace, view.problem?.message ?? 'being listed');
    }
    return unseen;
  }

  #look(wanted: readonly Scope[]): void {
    const scopes = new Map(wanted.map((scope) => [idOf(scope), scope]));
    const current = new Map<string, Scoped>();
    for (const [id, behind] of this.#behind) {
      if (scopes.has(id)) current.set(id, behind);
      else behind.view[Symbol.dispose]();
    }
    for (const [id, scope] of scopes) {
      if (current.has(id)) continue;
      const { resource, namespace, name } = scope;
      current.set(id, {
        scope,
        view: this.#discovery.view(resource, namespace, this.#watcher, { name, optional: true }),
      });
    }
    this.#behind = current.size === 0 ? NOWHERE : current;
  }
}

/** Without the spare capacity that `filter` leaves: 16 slots each. */
const exact = <T>(list: readonly T[]): readonly T[] => [...list];

const idOf = ({ resource, namespace, name }: Scope): string =>
  [resource.apiVersion, resource.plural, namespace, name].join('/');

function hidden(behind: readonly Scoped[], kind: string, namespace: string | undefined): string | undefined {
  const covering = behind.filter(
    ({ scope }) => scope.resource.kind === kind && (scope.namespace === undefined || scope.namespace === namespace),
  );
  if (covering.length === 0) return 'not observed';
  const late = covering.find(({ view }) => !view.synced);
  return late && (late.view.problem?.message ?? 'being listed');
}

/** Whether this is the current state under the key: equal to `object`, or absent. */
function isAt(one: KubeObject, key: string, object: KubeObject | undefined): boolean {
  if (!object) return keyOf(refOf(one)) === key;
  const { name, namespace } = one.metadata;
  return name === object.metadata.name && namespace === object.metadata.namespace && one.kind === object.kind;
}

type Matches = (key: string, object: KubeObject | undefined) => boolean;

/** A watcher that passes on only the changes that concern us, and the first list. */
class Concerning implements Watcher {
  readonly scope: Scope;
  readonly view: View;
  readonly #matches: Matches;
  readonly #watcher: Watcher;
  #listed = false;

  constructor(matches: Matches, watcher: Watcher, discovery: SharedInformers, scope: Scope) {
    const { resource, namespace, name } = scope;
    this.scope = scope;
    this.#matches = matches;
    this.#watcher = watcher;
    this.view = discovery.view(resource, namespace, this, { name, optional: true });
  }

  changed(keys: ReadonlySet<string>): void {
    const concerned = !this.#listed || [...keys].some((key) => this.#matches(key, this.view.get(key)));
    if (concerned) this.#watcher.changed(keys);
    this.#listed = true;
  }

  failed(error: Error): void {
    this.#watcher.failed(error);
  }
}
