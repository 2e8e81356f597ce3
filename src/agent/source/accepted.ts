import { type Conflict, conflicts } from '../../config/conflicts.ts';
import { formatPath } from '../../config/issue.ts';
import type { GatewayFields } from '../../config/schema/gateway-fields.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Validation } from '../../config/validate.ts';
import { type KubeObject, keyOf, refOf } from '../../core/object.ts';
import type { Problem } from '../../core/problem.ts';
import { safeMessage } from '../../mesh/secrets.ts';
import { FINALIZER, isDeleting } from '../retire/finalizer.ts';

interface Known {
  readonly object: KubeObject;
  /** Equal prints are equally valid. */
  readonly print: string;
  /** What is wrong with the object. */
  readonly problem: Problem | undefined;
  /** The object, or its last valid version. */
  readonly value: MeshCertificate | undefined;
}

/**
 * Turns custom resources into accepted MeshCertificates, again and again. Of a thousand, a handful change at a time,
 * mostly in their status: an unchanged spec is not validated again, and keeps its reference.
 */
export class AcceptedCertificates {
  readonly #validate: (object: unknown) => Validation;
  readonly #gateways: readonly GatewayFields[];
  readonly #known = new Map<string, Known>();
  /** The accepted ones, by key. */
  #inForce: ReadonlyMap<string, MeshCertificate> = new Map();
  #conflicts: readonly Conflict[] = [];
  /** What was returned for a refused one, so that an unchanged one keeps its reference. */
  readonly #refused = new Map<string, { value: MeshCertificate; problem: Problem; now: MeshCertificate }>();

  constructor(validate: (object: unknown) => Validation, gateways: readonly GatewayFields[]) {
    this.#validate = validate;
    this.#gateways = gateways;
  }

  /**
   * `invalid` is called for each object whose current version is not accepted, at each call. `reconciled`: its last valid
   * version is among the result, with the problem in `refused`.
   */
  take(
    scopes: readonly ReadonlyMap<string, KubeObject>[],
    invalid: (object: KubeObject, problem: Problem, reconciled: boolean) => void,
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
      for (const key of this.#known.keys())
        if (!scopes.some((scope) => scope.has(key))) {
          this.#known.delete(key);
          this.#refused.delete(key);
        }
    }
    if (moved) this.#arrange();
    const refused = new Map<string, Problem>();
    const tell = (object: KubeObject, { code, message }: Problem) => {
      const key = keyOf(refOf(object));
      const problem = { code, message: message + deletionOf(object) };
      refused.set(key, problem);
      invalid(object, problem, this.#inForce.has(key));
    };
    for (const { object, problem } of this.#known.values()) if (problem !== undefined) tell(object, problem);
    for (const { later, path, message } of this.#conflicts) {
      tell(later, { code: 'ERR_CONFIG', message: safeMessage(`${formatPath(path)}: ${message}`) });
    }
    return [...this.#inForce].map(([key, accepted]) => this.#now(key, accepted, refused.get(key)));
  }

  #look(object: KubeObject, known: Known | undefined): Known {
    const { uid, generation, labels, annotations, finalizers, deletionTimestamp } = object.metadata;
    const print = JSON.stringify([uid, generation, labels, annotations, finalizers, deletionTimestamp]);
    if (known && generation !== undefined && known.print === print) {
      const { problem, value } = known;
      const { metadata, status } = object as unknown as MeshCertificate;
      return {
        object,
        print,
        problem,
        value: value && (problem ? { ...value, status } : { ...value, metadata, status }),
      };
    }
    const result = this.#validate(object);
    if (!result.ok) {
      const why = result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`).join('; ');
      const message = safeMessage(`the spec is refused, and the last valid spec stays in use: ${why}`);
      const problem = { code: result.code ?? 'ERR_CONFIG', message };
      const { status } = object as unknown as MeshCertificate;
      const value = known?.value && { ...known.value, status };
      return { object, print, problem, value };
    }
    // The same spec under another annotation keeps its place and its reconciler.
    const same = known?.value?.metadata.generation === generation && known?.value?.metadata.uid === uid;
    const spec = same && generation !== undefined && known?.value ? known.value.spec : result.value.spec;
    const { metadata } = object as unknown as MeshCertificate;
    return { object, print, problem: undefined, value: { ...result.value, metadata, spec } };
  }

  #arrange(): void {
    const ordered = [...this.#known].flatMap(([key, { value }]) => (value ? [{ key, value, age: ageOf(value) }] : []));
    // Accepted resources have priority for their names over new or edited ones: their objects are published and must be
    // renewed.
    const rank = ({ key, value }: (typeof ordered)[number]) => (this.#inForce.get(key)?.spec === value.spec ? 0 : 1);
    ordered.sort((a, b) => rank(a) - rank(b) || (a.age < b.age ? -1 : 1));
    this.#conflicts = conflicts(
      ordered.map(({ value }) => value),
      this.#gateways,
    );
    const refused = new Set(this.#conflicts.map(({ later }) => later));
    // A resource that is edited into a conflict keeps its previous version, unless another resource has those names
    // now.
    const remaining = ordered.flatMap(({ key, value }) => {
      if (!refused.has(value)) return [{ key, value }];
      const before = this.#inForce.get(key);
      return before && before.metadata.uid === value.metadata.uid ? [{ key, value: before }] : [];
    });
    const lost = new Set(
      conflicts(
        remaining.map(({ value }) => value),
        this.#gateways,
      ).map(({ later }) => later),
    );
    this.#inForce = new Map(remaining.filter(({ value }) => !lost.has(value)).map(({ key, value }) => [key, value]));
  }

  /** The accepted spec, under the newest metadata and status, and why a newer spec is refused. */
  #now(key: string, accepted: MeshCertificate, problem: Problem | undefined): MeshCertificate {
    const known = this.#known.get(key);
    const value = known?.value ?? accepted;
    if (!problem) return value.spec === accepted.spec ? value : { ...value, spec: accepted.spec };
    const { generation } = known?.object.metadata ?? {};
    const before = this.#refused.get(key);
    const isSame = before?.value === value && before.problem.message === problem.message;
    const now = isSame ? before.now : { ...value, spec: accepted.spec, refused: { ...problem, generation } };
    this.#refused.set(key, { value, problem, now });
    return now;
  }
}

/** No reconciler runs for a refused resource, so nothing removes what its deletion waits for. */
function deletionOf(object: KubeObject): string {
  if (!isDeleting(object)) return '';
  return `; it is being deleted, and deletion waits for a valid spec: fix the spec, or remove the finalizer ${FINALIZER} and its objects by hand`;
}

/** Of those that come at the same time, the older has priority for a contested name. */
const ageOf = (one: MeshCertificate): string => `${one.metadata.creationTimestamp ?? ''} ${keyOf(refOf(one))}`;
