import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { type KubeObject, keyOf, type ObjectRef, refOf } from '../../core/object.ts';
import type { Desired } from '../../core/plan/plan.ts';
import { codedProblem, type Problem } from '../../core/problem.ts';
import { publicationRefs } from '../../gateway/desired.ts';
import type { GatewayUse } from '../../gateway/gateway.ts';
import type { ObjectInformers, ObjectView, ObjectWatcher } from '../informers/by-object.ts';

/** One reconciler's view of its own objects; follows the objects that routes add and remove. */
export class PublicationView implements Disposable {
  readonly #observer: ObjectInformers;
  readonly #watcher: Required<ObjectWatcher>;
  #interest: ObjectView | undefined;

  constructor(observer: ObjectInformers, watcher: Required<ObjectWatcher>) {
    this.#observer = observer;
    this.#watcher = watcher;
  }

  /** Watches the objects of the publication as it is desired now. */
  follow(certificate: MeshCertificate, uses: readonly GatewayUse[]): void {
    const refs = publicationRefs(certificate, uses);
    const before = this.#interest;
    if (before?.keys.length === refs.length && refs.every((ref, at) => keyOf(ref) === before.keys[at])) return;
    this.#interest = this.#observer.observe(refs, this.#watcher);
    before?.[Symbol.dispose]();
  }

  get synced(): boolean {
    return this.#interest?.synced === true;
  }

  /** Nothing is known yet and nothing is wrong, so there is nothing to report. */
  get unknown(): boolean {
    return !this.synced && this.#interest?.problem === undefined;
  }

  /** Why nothing is known. */
  get problem(): Problem | undefined {
    const problem = this.synced ? undefined : this.#interest?.problem;
    return problem && codedProblem(problem);
  }

  get(ref: ObjectRef): KubeObject | undefined {
    return this.#interest?.get(ref);
  }

  objects(): readonly KubeObject[] {
    return this.#interest?.objects() ?? [];
  }

  /** The observed state of the desired objects, by `keyOf`. */
  observed(desired: readonly Desired[] | undefined): ReadonlyMap<string, KubeObject> {
    const refs = (desired ?? []).map(({ object }) => refOf(object));
    return new Map(refs.flatMap((ref) => [this.get(ref)].flatMap((found) => (found ? [[keyOf(ref), found]] : []))));
  }

  /** Whether the watch has shown our last write of each of these. */
  readBack(desired: readonly Desired[] | undefined): boolean {
    return desired?.every(({ object }) => this.#interest?.readBack(refOf(object)) === true) === true;
  }

  wrote(object: KubeObject): void {
    this.#interest?.wrote(object);
  }

  /** To be held during writes: our own are no changes. */
  writing(): Disposable | undefined {
    return this.#interest?.writing();
  }

  [Symbol.dispose](): void {
    this.#interest?.[Symbol.dispose]();
    this.#interest = undefined;
  }
}
