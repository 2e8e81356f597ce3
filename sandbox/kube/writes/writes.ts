import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../../src/async/clock.ts';
import { apiVersionOf, type Kind, storageOf } from '../objects/kinds.ts';
import { fieldsIn, type JsonFields, type Meta, type Stored } from '../objects/object.ts';
import { ApiError, alreadyExists, badRequest, conflict, invalid, MODIFIED, notFound } from '../objects/status.ts';
import type { Store } from '../objects/store.ts';
import type { WriteMode } from '../schema/request.ts';
import { admitted, checkAddress, checkDeclared, checkPatched, validate } from '../schema/rules.ts';
import { applyTo } from './apply.ts';
import { ownersAfterUpdate, type Writer, withOwners } from './field-managers.ts';
import { claimedBy } from './field-set.ts';
import { mayTakeOver, withLastApplied } from './last-applied.ts';
import { jsonPatch, mergePatch, strategicPatch } from './patch.ts';
import { claimOf, clientMeta, counted, omit, serverMeta, withSaidOwners } from './write-parts.ts';

export interface WriteTarget {
  readonly kind: Kind;
  readonly namespace: string | undefined;
  readonly name: string;
  readonly subresource: string | undefined;
}

export type PatchType = 'apply' | 'merge' | 'strategic' | 'json';

/** Every way to change stored objects. */
export class Writes {
  readonly #store: Store;
  readonly #clock: Clock;

  constructor(store: Store, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  #time(): string {
    return new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
  }

  /** With `claim` the object comes from an apply, which owns only those fields. */
  create(kind: Kind, namespace: string | undefined, body: Stored, mode: WriteMode, claim?: Stored): Stored {
    checkAddress(kind, body, namespace, undefined);
    if (namespace !== undefined && !this.#store.get('/namespaces', undefined, namespace)) {
      throw notFound({ group: '', plural: 'namespaces', kind: 'Namespace' }, namespace);
    }
    if (body.metadata.resourceVersion && !claim) {
      throw new ApiError(500, 'InternalError', 'resourceVersion should not be set on objects to be created');
    }
    const name = body.metadata.name || `${String(body.metadata.generateName)}${randomUUID().slice(0, 5)}`;
    if (this.#store.get(storageOf(kind), namespace, name)) throw alreadyExists(kind, name);
    const clean: Stored = {
      ...body,
      metadata: {
        name,
        ...(body.metadata.generateName === undefined ? {} : { generateName: body.metadata.generateName }),
        ...(namespace === undefined ? {} : { namespace }),
        ...clientMeta(body.metadata),
        uid: randomUUID(),
        creationTimestamp: this.#time(),
        ...(kind.generation ? { generation: 1 } : {}),
      },
    };
    if (kind.status) delete clean.status;
    const object = admitted(kind, clean, mode.validation);
    validate(kind, object, undefined);
    const writer = { manager: mode.fieldManager, apiVersion: apiVersionOf(kind) };
    const time = this.#time();
    const owners = claim
      ? [{ ...writer, operation: 'Apply' as const, set: claimedBy(claim, kind.shape), time }]
      : ownersAfterUpdate(undefined, object, kind.shape, { ...writer, operation: 'Update' }, time);
    const stored = withOwners(object, owners);
    return mode.dryRun ? stored : this.#store.put(storageOf(kind), stored);
  }

  update(target: WriteTarget, body: Stored, mode: WriteMode): Stored {
    const { kind, namespace, name } = target;
    checkAddress(kind, body, namespace, name);
    const live = this.#live(target);
    if (kind.versionRequired && !body.metadata.resourceVersion) {
      throw invalid(kind, name, [
        {
          reason: 'FieldValueInvalid',
          message: 'Invalid value: 0: must be specified for an update',
          field: 'metadata.resourceVersion',
        },
      ]);
    }
    return this.#replace(target, live, body, mode);
  }

  patch(target: WriteTarget, type: PatchType, patch: unknown, mode: WriteMode): Stored {
    const { kind, namespace, name } = target;
    if (type === 'apply') return this.#apply(target, patch, mode);
    const live = this.#live(target);
    let body: unknown;
    if (type === 'json') body = jsonPatch(live, patch);
    else if (type === 'merge') body = mergePatch(live, patch);
    else if (kind.schema) {
      throw new ApiError(
        415,
        'UnsupportedMediaType',
        'the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml',
      );
    } else body = strategicPatch(live, patch, kind.shape);
    checkAddress(kind, body as Stored, namespace, name);
    if (mode.validation === 'Strict') checkPatched(kind, body as Stored);
    return this.#replace(target, live, body as Stored, mode);
  }

  #apply(target: WriteTarget, applied: unknown, mode: WriteMode): Stored {
    const { kind, namespace, name } = target;
    const body = fieldsIn(applied) as Stored;
    const named: Stored = {
      ...body,
      metadata: { ...fieldsIn(body.metadata), name: fieldsIn(body.metadata).name ?? name } as Meta,
    };
    checkAddress(kind, named, namespace, name);
    if (named.metadata.managedFields) throw badRequest('metadata.managedFields must be nil');
    checkDeclared(kind, named, namespace);
    const claim = claimOf(kind, named, target.subresource);
    const live = this.#store.get(storageOf(kind), namespace, name);
    if (!live) {
      if (target.subresource) throw notFound(kind, name);
      if (named.metadata.uid)
        throw conflict(
          kind,
          name,
          `uid mismatch: the provided object specified uid ${named.metadata.uid}, and no existing object was found`,
        );
      return this.create(kind, namespace, named, mode, claim);
    }
    this.#checkPreconditions(kind, live, named.metadata);
    const writer: Writer = {
      manager: mode.fieldManager,
      operation: 'Apply',
      apiVersion: apiVersionOf(kind),
      ...(target.subresource ? { subresource: target.subresource } : {}),
    };
    const attempt = (force: boolean) => applyTo(live, claim, kind.shape, writer, { force, time: this.#time() });
    let next: Stored;
    try {
      next = attempt(mode.force);
    } catch (error) {
      if (!(error instanceof ApiError) || !mayTakeOver(live, mode.fieldManager, kind.shape, error)) throw error;
      next = attempt(true);
    }
    next = withLastApplied(next, mode.fieldManager, body);
    return this.#write(target, live, next, mode);
  }

  #replace(target: WriteTarget, live: Stored, body: Stored, mode: WriteMode): Stored {
    const { kind, subresource } = target;
    this.#checkPreconditions(kind, live, body.metadata);
    const asked = admitted(kind, body, mode.validation);
    let next: Stored;
    if (subresource === 'status') next = { ...live, status: asked.status };
    else {
      next = { ...asked, metadata: { ...serverMeta(live.metadata), ...clientMeta(asked.metadata) } };
      if (kind.status) next = live.status === undefined ? omit(next, 'status') : { ...next, status: live.status };
    }
    const writer: Writer = {
      manager: mode.fieldManager,
      operation: 'Update',
      apiVersion: apiVersionOf(kind),
      ...(subresource ? { subresource } : {}),
    };
    const owners = ownersAfterUpdate(withSaidOwners(live, body), next, kind.shape, writer, this.#time());
    return this.#write(target, live, withOwners(next, owners), mode);
  }

  #write({ kind, name }: WriteTarget, live: Stored, next: Stored, mode: WriteMode): Stored {
    const whole = admitted(kind, next, 'Ignore');
    validate(kind, whole, live);
    const frozen =
      live.immutable === true && !isDeepStrictEqual([live.data, live.binaryData], [whole.data, whole.binaryData]);
    if (frozen) {
      throw invalid(kind, name, [
        {
          reason: 'FieldValueForbidden',
          message: 'Forbidden: field is immutable when `immutable` is set',
          field: 'data',
        },
      ]);
    }
    if (isDeepStrictEqual(live, whole)) return live;
    const meta: Meta = { ...whole.metadata };
    if (kind.generation && !isDeepStrictEqual(counted(live, kind), counted(whole, kind))) {
      meta.generation = (live.metadata.generation ?? 0) + 1;
    }
    const stored = { ...whole, metadata: meta };
    if (mode.dryRun) return stored;
    const resource = storageOf(kind);
    if (meta.deletionTimestamp && (meta.finalizers ?? []).length === 0) return this.#store.remove(resource, stored);
    return this.#store.put(resource, stored);
  }

  /** Returns the object while finalizers hold it, undefined once it is gone. */
  delete(target: WriteTarget, preconditions: JsonFields, dryRun: boolean): { last: Stored; gone: boolean } {
    const live = this.#live(target);
    this.#checkPreconditions(target.kind, live, preconditions);
    const held = (live.metadata.finalizers ?? []).length > 0;
    if (dryRun) return { last: live, gone: !held };
    const resource = storageOf(target.kind);
    if (!held) return { last: this.#store.remove(resource, live), gone: true };
    if (live.metadata.deletionTimestamp) return { last: live, gone: false };
    const marked = {
      ...live,
      metadata: { ...live.metadata, deletionTimestamp: this.#time(), deletionGracePeriodSeconds: 0 },
    };
    return { last: this.#store.put(resource, marked), gone: false };
  }

  #live({ kind, namespace, name }: WriteTarget): Stored {
    const live = this.#store.get(storageOf(kind), namespace, name);
    if (!live) throw notFound(kind, name);
    return live;
  }

  #checkPreconditions(kind: Kind, live: Stored, wanted: JsonFields): void {
    const { uid, resourceVersion } = live.metadata;
    if (wanted.uid && wanted.uid !== uid) {
      throw conflict(
        kind,
        live.metadata.name,
        `Precondition failed: UID in precondition: ${String(wanted.uid)}, UID in object meta: ${uid}`,
      );
    }
    if (wanted.resourceVersion && wanted.resourceVersion !== resourceVersion)
      throw conflict(kind, live.metadata.name, MODIFIED);
  }
}
