import {
  describe,
  FIELD_MANAGER,
  type KubeObject,
  keyOf,
  type ManagedFields,
  type ObjectRef,
  OWNER_LABEL,
  type Precondition,
  preconditionOf,
  refOf,
  UID_ANNOTATION,
} from '../objects/objects.ts';
import { type Certificate, firstNotBefore, parseCertificates } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { idsOf } from './checks.ts';
import { emergencyAt, lifetimeOf } from './schedule.ts';
import { verify } from './verify.ts';

/** Never "delete it": a gateway that refers to a missing Secret falls back to plaintext. */
export const foreignMessage = (name: string): string =>
  `${name} was not created by meshcert and is not changed; choose another name in the MeshCertificate, or hand the object over as docs/migrate-consul-connector.md does. Do not delete it while a gateway refers to it: without its Secret the gateway sends plaintext`;

export interface Desired {
  readonly object: KubeObject;
  /** Lower first: the trust bundle, the pair, the objects that name them. */
  readonly order: number;
  /** The kind of gateway that the object belongs to; absent: Secrets, and the ConfigMap of the bundle. */
  readonly gateway?: string;
  /** Of an identity Secret, first in its chain: an older leaf never replaces a newer valid one. */
  readonly leaf?: Certificate;
}

const PLAN_CODES = [
  'ERR_PLAN_FOREIGN',
  'ERR_PLAN_OLDER',
  'ERR_PLAN_TYPE',
  'ERR_PLAN_IMMUTABLE',
  'ERR_PLAN_DELETING',
] as const;

type PlanCode = (typeof PLAN_CODES)[number];

interface Compared {
  readonly gateway?: string;
  readonly object: KubeObject;
  /** That the compared object is still there and unchanged. Absent for `create`. */
  readonly precondition?: Precondition;
  /** Names of fields, never values. */
  readonly changed: readonly string[];
}

export type WriteStep = Compared & { readonly action: 'create' | 'apply' };

export type PlanStep =
  | WriteStep
  | (Compared & { readonly action: 'none' })
  | {
      readonly action: 'refuse';
      readonly gateway?: string;
      readonly ref: ObjectRef;
      readonly code: PlanCode;
      readonly message: string;
    };

/**
 * What to do, in order, so that the observed objects become the desired ones. Pure; `owner` is the value of our owner
 * label, `now` epoch ms. `publish` says which steps are not valid before a refusal is resolved.
 */
export function plan(
  desired: readonly Desired[],
  observed: ReadonlyMap<string, KubeObject>,
  owner: string,
  now: number,
  isProven: OriginProof = provesOrigin,
): PlanStep[] {
  return [...desired]
    .sort((a, b) => a.order - b.order)
    .map((want) => planOne(want, observed.get(keyOf(refOf(want.object))), owner, now, isProven));
}

function planOne(
  want: Desired,
  live: KubeObject | undefined,
  owner: string,
  now: number,
  isProven: OriginProof,
): PlanStep {
  const of = want.gateway === undefined ? {} : { gateway: want.gateway };
  if (!live) return { action: 'create', ...of, object: want.object, changed: [] };
  const object = withOrigin(want.object, live);
  // The uid of a Secret that is proven without it is written together with the next change.
  const changed = differences(isProven(live) && !provesOrigin(live) ? want.object : object, live);
  const refused = refusal(want, live, owner, changed.length > 0, now);
  if (refused) return { action: 'refuse', ...of, ref: refOf(object), ...refused };
  return {
    action: changed.length > 0 ? 'apply' : 'none',
    ...of,
    object,
    changed,
    precondition: preconditionOf(live),
  };
}

function refusal(
  { object, leaf }: Desired,
  live: KubeObject,
  owner: string,
  differs: boolean,
  now: number,
): { code: PlanCode; message: string } | undefined {
  const name = describe(refOf(object));
  const holder = live.metadata.labels?.[OWNER_LABEL];
  if (holder !== undefined && holder !== owner) {
    return {
      code: 'ERR_PLAN_FOREIGN',
      message: `${name} belongs to the MeshCertificate ${holder}; choose another name in one of the two`,
    };
  }
  if (holder !== owner || !(live.metadata.managedFields ?? []).some(isOurs)) {
    return {
      code: 'ERR_PLAN_FOREIGN',
      message: foreignMessage(name),
    };
  }
  if (live.metadata.deletionTimestamp !== undefined) {
    return {
      code: 'ERR_PLAN_DELETING',
      message: `${name} is being deleted; the agent creates it again once it is gone`,
    };
  }
  if (object.type !== undefined && live.type !== object.type) {
    return {
      code: 'ERR_PLAN_TYPE',
      message: `${name} has the type ${String(live.type)}, which cannot change to ${String(object.type)}; choose another name`,
    };
  }
  if (live.immutable === true && differs) {
    return {
      code: 'ERR_PLAN_IMMUTABLE',
      message: `${name} is immutable and cannot be rotated; choose another name in the MeshCertificate`,
    };
  }
  if (leaf && differs && isNewerPublished(leaf, object, live, now)) {
    return {
      code: 'ERR_PLAN_OLDER',
      message: `${name} holds a newer certificate that is still valid; the agent does not replace it with an older one`,
    };
  }
  return undefined;
}

type ObjectFields = Readonly<Record<string, unknown>>;

/** Fields that the server sets or that name the object; never compared. */
const NOT_CONTENT = new Set(['apiVersion', 'kind', 'status']);
const COMPARED_METADATA = ['labels', 'annotations', 'ownerReferences'] as const;

/**
 * Names of the fields in which `observed` is not as `wanted`, such as `data.tls.crt`: those that differ, and those
 * that our creation or an earlier apply set and `wanted` no longer has. Fields that others added are ignored. Never values:
 * they may be keys.
 */
export function differences(wanted: KubeObject, observed: KubeObject): string[] {
  const found = new Set<string>();
  const current = contentOf(observed);
  for (const [name, value] of Object.entries(contentOf(wanted))) compare(value, current[name], name, found);
  for (const entry of observed.metadata.managedFields ?? []) {
    if (isOurs(entry)) leftOver(entry.fieldsV1 ?? {}, wanted, '', found);
  }
  return [...found];
}

export const isOurs = (entry: ManagedFields): boolean =>
  entry.manager === FIELD_MANAGER && entry.subresource === undefined;

function contentOf({ metadata, ...rest }: KubeObject): ObjectFields {
  const content: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(rest)) if (!NOT_CONTENT.has(name)) content[name] = value;
  for (const name of COMPARED_METADATA) content[`metadata.${name}`] = metadata[name];
  return content;
}

function compare(wanted: unknown, observed: unknown, path: string, found: Set<string>): void {
  if (wanted === undefined) return;
  if (isFields(wanted)) {
    // The API server drops empty maps.
    const other = isFields(observed) ? observed : {};
    for (const [name, value] of Object.entries(wanted)) compare(value, other[name], `${path}.${name}`, found);
  } else if (!equal(wanted, observed)) found.add(path);
}

/** Lists are compared as a whole; unknown fields inside them count. */
function equal(a: unknown, b: unknown): boolean {
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((item, at) => equal(item, b[at]));
  if (!isFields(a)) return a === b;
  if (!isFields(b)) return false;
  return [...new Set([...Object.keys(a), ...Object.keys(b)])].every((name) => equal(a[name], b[name]));
}

/** Walks a `fieldsV1` set; list items (`k:`, `v:`) are skipped, since lists are compared as a whole. */
function leftOver(set: ObjectFields, wanted: unknown, path: string, found: Set<string>): void {
  for (const [token, below] of Object.entries(set)) {
    if (!token.startsWith('f:')) continue;
    const name = token.slice(2);
    const value = isFields(wanted) ? wanted[name] : undefined;
    const here = path === '' ? name : `${path}.${name}`;
    if (value === undefined) found.add(here);
    else if (isFields(below)) leftOver(below, value, here, found);
  }
}

function isFields(value: unknown): value is ObjectFields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Whether the existing Secret holds a newer pair than the wanted one, whose leaf is `next`, valid for the same names
 * under the bundle that would be written, and not yet in its last tenth. A writer that was paused or that reads an old
 * cache must not put an older certificate back.
 */
function isNewerPublished(next: Certificate, wanted: KubeObject, observed: KubeObject, now: number): boolean {
  const start = readable(() => firstNotBefore(text(observed, 'tls.crt')));
  // The usual case at each rotation.
  if (start !== undefined && start <= next.notBefore) return false;
  const chain = chainOf(observed);
  const [leaf] = chain;
  if (!leaf || leaf.notBefore <= next.notBefore) return false;
  const form = leaf.names.uris.length > 0 ? 'spiffe' : 'dns';
  const [id] = idsOf(next, form);
  const verdict = verify({ key: privateKeyOf(observed), chain }, bundleOf(wanted), { form, id }, now);
  return verdict.ok && now < emergencyAt(lifetimeOf(verdict.path));
}

const chainOf = (secret: KubeObject): readonly Certificate[] =>
  readable(() => parseCertificates(text(secret, 'tls.crt'))) ?? [];
const bundleOf = (secret: KubeObject): readonly Certificate[] =>
  readable(() => parseCertificates(text(secret, 'ca.crt'))) ?? [];
const privateKeyOf = (secret: KubeObject): PrivateKey | undefined =>
  readable(() => PrivateKey.fromPem(text(secret, 'tls.key')));

function text(secret: KubeObject, field: string): string {
  const data = (secret.data ?? {}) as Readonly<Record<string, unknown>>;
  return Buffer.from(String(data[field] ?? ''), 'base64').toString('latin1');
}

/** Somebody else may have written anything: unreadable content counts as absent. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

/** Whether the agent wrote an object, so that its content can be relied on. */
export type OriginProof = (object: KubeObject) => boolean;

/**
 * True if a writer who may update this object has written it. Label and field manager prove nothing, since any user who
 * may create objects chooses them. The uid, however, is chosen by the API server when the object is created, so only a
 * later write can put it into an annotation.
 */
export const provesOrigin: OriginProof = ({ metadata }) =>
  metadata.uid !== undefined && metadata.annotations?.[UID_ANNOTATION] === metadata.uid;

/**
 * The same, and true for the objects with these uids: the agent created them, and has them in memory or in the status
 * of the MeshCertificate, which only the agent may write. This saves the second write of each new Secret.
 */
export const provenBy =
  (created: ReadonlySet<string>): OriginProof =>
  (object) =>
    provesOrigin(object) || (object.metadata.uid !== undefined && created.has(object.metadata.uid));

/** The object to be written over `live`: a Secret carries its own uid. */
export function withOrigin(wanted: KubeObject, { metadata }: KubeObject): KubeObject {
  if (wanted.kind !== 'Secret' || metadata.uid === undefined) return wanted;
  const annotations = { ...wanted.metadata.annotations, [UID_ANNOTATION]: metadata.uid };
  return { ...wanted, metadata: { ...wanted.metadata, annotations } };
}

/**
 * Metadata that is not content: the object's name, fields that are compared one by one, fields that the API server
 * sets.
 */
const NOT_FOREIGN = new Set([
  ...['name', 'namespace', 'labels', 'annotations'],
  ...['uid', 'resourceVersion', 'generation', 'creationTimestamp', 'managedFields', 'selfLink'],
]);

interface Removal {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly data?: Readonly<Record<string, null>>;
}

/**
 * The merge patch that removes from `live` what `wanted` does not have: further keys, labels, annotations, owner
 * references, finalizers. Undefined if there is nothing to remove. For an object that was created under our manager's
 * name.
 */
export function removalOfForeign(live: KubeObject, wanted: KubeObject): Removal | undefined {
  const metadata: Record<string, unknown> = {};
  for (const name of Object.keys(live.metadata)) if (!NOT_FOREIGN.has(name)) metadata[name] = null;
  const labels = nulls(live.metadata.labels, wanted.metadata.labels);
  const annotations = nulls(live.metadata.annotations, wanted.metadata.annotations);
  const data = nulls(live.data, wanted.data);
  if (labels) metadata.labels = labels;
  if (annotations) metadata.annotations = annotations;
  if (!data && Object.keys(metadata).length === 0) return undefined;
  return { metadata, ...(data ? { data } : {}) };
}

function nulls(live: unknown, wanted: unknown): Readonly<Record<string, null>> | undefined {
  const names = Object.keys(live ?? {}).filter((name) => !Object.hasOwn(wanted ?? {}, name));
  return names.length === 0 ? undefined : Object.fromEntries(names.map((name) => [name, null]));
}
