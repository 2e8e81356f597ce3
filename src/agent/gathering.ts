import { type Conflict, conflicts } from '../config/conflicts.ts';
import { formatPath } from '../config/issue.ts';
import type { MeshCertificate } from '../config/mesh-certificate.ts';
import type { Validation } from '../config/validate.ts';
import { type KubeObject, keyOf, refOf } from '../core/object.ts';

interface Known {
  readonly object: KubeObject;
  /** Equal prints are equally valid. */
  readonly print: string;
  /** What is wrong with the object. */
  readonly problem: string | undefined;
  /** The object, or its last version that was good. */
  readonly value: MeshCertificate | undefined;
}

/**
 * Turns custom resources into wishes, again and again. Of a thousand a handful change at a time, mostly in their
 * status: what is as it was is not validated anew, and keeps its `spec` by reference.
 */
export class Gathering {
  readonly #validate: (object: unknown) => Validation;
  readonly #known = new Map<string, Known>();
  /** The keys of those that are in force, the eldest first. */
  #order: readonly string[] = [];
  #conflicts: readonly Conflict[] = [];

  constructor(validate: (object: unknown) => Validation) {
    this.#validate = validate;
  }

  /** `invalid` is told of each object that is not in force as it stands, at each call. */
  take(
    scopes: readonly ReadonlyMap<string, KubeObject>[],
    invalid: (object: KubeObject, problem: string) => void,
  ): readonly MeshCertificate[] {
    let moved = false;
    let present = 0;
    for (const scope of scopes) {
      present += scope.size;
      for (const [key, object] of scope) {
        const known = this.#known.get(key);
        if (known?.object === object) continue;
        const next = this.#look(object, known);
        moved ||= next.value?.spec !== known?.value?.spec;
        this.#known.set(key, next);
      }
    }
    if (present < this.#known.size) {
      moved = true;
      for (const key of this.#known.keys()) if (!scopes.some((scope) => scope.has(key))) this.#known.delete(key);
    }
    if (moved) this.#arrange();
    for (const { object, problem } of this.#known.values()) if (problem !== undefined) invalid(object, problem);
    for (const { later, path, message } of this.#conflicts) invalid(later, `${formatPath(path)}: ${message}`);
    return this.#order.flatMap((key) => this.#known.get(key)?.value ?? []);
  }

  #look(object: KubeObject, known: Known | undefined): Known {
    const { uid, generation, labels, annotations, finalizers, deletionTimestamp } = object.metadata;
    const print = JSON.stringify([uid, generation, labels, annotations, finalizers, deletionTimestamp]);
    if (known && generation !== undefined && known.print === print) {
      const { problem, value } = known;
      const { metadata, status } = object as unknown as MeshCertificate;
      return { object, print, problem, value: value && problem === undefined ? { ...value, metadata, status } : value };
    }
    const result = this.#validate(object);
    if (!result.ok) {
      const why = result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`).join('; ');
      const problem = `the spec is refused, the last good one stays in force: ${why}`;
      return { object, print, problem, value: known?.value };
    }
    // The same wish under another annotation keeps its place and its worker.
    const same = known?.value?.metadata.generation === generation && known?.value?.metadata.uid === uid;
    const spec = same && generation !== undefined && known?.value ? known.value.spec : result.value.spec;
    return { object, print, problem: undefined, value: { ...result.value, spec } };
  }

  #arrange(): void {
    const wished = [...this.#known].flatMap(([key, { value }]) => (value ? [{ key, value, age: ageOf(value) }] : []));
    wished.sort((a, b) => (a.age < b.age ? -1 : 1));
    this.#conflicts = conflicts(wished.map(({ value }) => value));
    const refused = new Set(this.#conflicts.map(({ later }) => later));
    this.#order = wished.filter(({ value }) => !refused.has(value)).map(({ key }) => key);
  }
}

/** The elder keeps a contested name. */
const ageOf = (one: MeshCertificate): string => `${one.metadata.creationTimestamp ?? ''} ${keyOf(refOf(one))}`;
