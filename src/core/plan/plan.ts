import type { Certificate } from '../../pki/certificate.ts';
import {
  describe,
  type KubeObject,
  keyOf,
  type ObjectRef,
  OWNER_LABEL,
  type Precondition,
  preconditionOf,
  refOf,
} from '../object.ts';
import { differences, isOurs } from './difference.ts';
import { isNewerPublished } from './identity-guard.ts';
import { type OriginProof, provesOrigin, withOrigin } from './origin.ts';

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

export const PLAN_CODES = [
  'ERR_PLAN_FOREIGN',
  'ERR_PLAN_OLDER',
  'ERR_PLAN_TYPE',
  'ERR_PLAN_IMMUTABLE',
  'ERR_PLAN_DELETING',
] as const;

export type PlanCode = (typeof PLAN_CODES)[number];

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
