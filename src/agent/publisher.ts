import type { Clock } from '../async/clock.ts';
import {
  foreignMessage,
  isOurs,
  type OriginProof,
  type PlanStep,
  removalOfForeign,
  type WriteStep,
  withOrigin,
} from '../core/plan.ts';
import type { Problem } from '../core/problem.ts';
import { type Gateway, gatewayOf } from '../gateway/gateway.ts';
import type { Kube, WriteOptions } from '../kube/api.ts';
import { KubeError } from '../kube/transport/error.ts';
import { codeOf } from '../mesh/error.ts';
import {
  describe,
  FIELD_MANAGER,
  fields,
  type KubeObject,
  type ManagedFields,
  type ObjectRef,
  refOf,
} from '../objects/objects.ts';
import type { BatchGap, WritePriority } from './write-order.ts';

/** Whether this process may write now. */
export interface Fence {
  /** Throws when the Lease is lost, or when this process cannot prove that it holds it. */
  check(): void;
}

interface PublisherOptions {
  readonly kube: Kube;
  readonly clock: Pick<Clock, 'now'>;
  readonly fence: Fence;
  readonly batchGap: BatchGap;
  readonly writePriority: WritePriority;
  readonly gateways: readonly Gateway[];
  readonly dryRun: boolean;
  readonly isProven: OriginProof;
  /** Whether it is too early to try to write this object again. */
  isHeld(ref: ObjectRef): boolean;
  /** Whether the uids of created Secrets go into a status; if not, they are written into the Secrets at once. */
  readonly recordsOrigin: boolean;
  /** The observed objects. */
  readonly view: { get(ref: ObjectRef): KubeObject | undefined };
  /** Takes the response to each write at once: many publications may wait a long time between two of their writes. */
  wrote(object: KubeObject, action: 'create' | 'apply'): void;
}

export interface WrittenObject {
  readonly ref: ObjectRef;
  readonly action: 'create' | 'apply';
  /** Names of fields, never values. */
  readonly changed: readonly string[];
  /** Epoch ms. */
  readonly startedAt: number;
  /** Epoch ms. */
  readonly endedAt: number;
}

/** A step that failed. */
interface StepProblem extends Problem {
  readonly ref: ObjectRef;
  /** The plan refused it: no request was made. */
  readonly refused?: true;
}

export interface PublishResult {
  readonly written: readonly WrittenObject[];
  readonly problems: readonly StepProblem[];
  /** What was not tried, because it is held or refers to what is missing. */
  readonly skipped: readonly ObjectRef[];
  /** The later steps were not tried at all. */
  readonly stopped: boolean;
}

/**
 * Does the steps of a plan in order, one or two requests each. Stops at the first failure of a Secret, or of the API
 * server itself: no object may name a Secret that does not exist. A gateway's object that is refused stops only those
 * that refer to it, so that what somebody does in one namespace does not concern the others.
 */
export async function publish(
  steps: readonly PlanStep[],
  options: PublisherOptions,
  signal: AbortSignal,
): Promise<PublishResult> {
  const written: WrittenObject[] = [];
  const problems: StepProblem[] = [];
  const skipped: ObjectRef[] = [];
  for (const step of steps) {
    if (step.action === 'none') continue;
    if (step.action === 'refuse') {
      problems.push({ ref: step.ref, code: step.code, message: step.message, refused: true });
      if (step.gateway === undefined) return { written, problems, skipped, stopped: true };
      continue;
    }
    const ref = refOf(step.object);
    if (
      options.isHeld(ref) ||
      [...skipped, ...problems.map((one) => one.ref)].some((one) => refersTo(step.object, one))
    ) {
      skipped.push(ref);
      continue;
    }
    const turn = await (step.gateway === undefined
      ? options.batchGap.beforeSecret(signal)
      : options.batchGap.beforeGateway(step.gateway, signal));
    const urgent = options.writePriority.urgent();
    try {
      const startedAt = options.clock.now();
      await write(step, options, signal);
      const endedAt = options.clock.now();
      written.push({ ref, action: step.action, changed: step.changed, startedAt, endedAt });
    } catch (cause) {
      if (signal.aborted) throw cause;
      problems.push({ ref, ...explain(ref, cause, options.gateways) });
      if (step.gateway === undefined || !isAboutObject(cause)) return { written, problems, skipped, stopped: true };
    } finally {
      urgent[Symbol.dispose]();
      turn[Symbol.dispose]();
    }
  }
  return { written, problems, skipped, stopped: false };
}

/** The API server answered, and refused this object: others may be accepted. */
const isAboutObject = (cause: unknown): boolean =>
  cause instanceof KubeError && [400, 403, 404, 409, 413, 422].includes(cause.status);

/** Whether an object refers to another one of its namespace, by its kind and name. */
function refersTo({ metadata, apiVersion: _, ...content }: KubeObject, { kind, namespace, name }: ObjectRef): boolean {
  const within = (value: unknown): boolean =>
    Array.isArray(value)
      ? value.some(within)
      : typeof value === 'object' &&
        value !== null &&
        ((fields(value).kind === kind && fields(value).name === name) || Object.values(value).some(within));
  return metadata.namespace === namespace && within(content);
}

async function write(step: WriteStep, options: PublisherOptions, signal: AbortSignal): Promise<void> {
  const object = await send(step, options, signal);
  if (!options.dryRun) options.wrote(object, step.action);
}

async function send(
  step: WriteStep,
  { kube, fence, dryRun, view, isProven, recordsOrigin }: PublisherOptions,
  signal: AbortSignal,
): Promise<KubeObject> {
  const options = { fieldManager: FIELD_MANAGER, dryRun };
  fence.check();
  if (step.action === 'create') {
    const created = await kube.create(step.object, options, signal);
    if (dryRun || recordsOrigin || step.gateway !== undefined) return created;
    fence.check();
    // Until this write a Secret does not prove its origin, so nothing that relies on it is written before.
    return (await ownByApply(kube, created, options, signal)) ?? created;
  }
  const live = view.get(refOf(step.object));
  const reclaimed = live && (await reclaimFields(kube, live, step.object, isProven, options, signal));
  if (reclaimed) fence.check();
  const resourceVersion = reclaimed?.metadata.resourceVersion;
  const metadata = { ...step.object.metadata, ...step.precondition, ...(resourceVersion && { resourceVersion }) };
  // By force: the plan found the object to be ours, and the version proves that nobody wrote in between. Without force,
  // our own create, or a foreign edit of one of our fields, would conflict every time.
  return kube.apply({ ...step.object, metadata }, { ...options, force: true }, signal);
}

function explain(ref: ObjectRef, cause: unknown, gateways: readonly Gateway[]): Problem {
  if (!(cause instanceof KubeError)) {
    return {
      code: codeOf(cause, 'ERR_PUBLISH'),
      message: cause instanceof Error ? cause.message : String(cause),
    };
  }
  if (cause.code === 'ERR_KUBE_EXISTS') {
    return {
      code: 'ERR_PLAN_FOREIGN',
      message: foreignMessage(describe(ref)),
    };
  }
  const gateway = gatewayOf(ref, gateways);
  if (cause.code === 'ERR_KUBE_NOT_FOUND' && gateway) {
    return {
      code: 'ERR_GATEWAY_CRD_MISSING',
      message: `the cluster does not serve ${ref.apiVersion} ${ref.kind}; install ${gateway.definitions}; the agent tries again`,
    };
  }
  return { code: cause.code, message: cause.message };
}

/**
 * Server-side apply removes only fields that the manager's *apply* owns, and an object that we created by POST is owned
 * by its *update*. If that is still the case, ownership is moved before the first apply that drops a field. Returns the
 * object after the move, or undefined if nothing was needed.
 */
async function reclaimFields(
  kube: Kube,
  live: KubeObject,
  wanted: KubeObject,
  isProven: OriginProof,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  if (options.dryRun) return undefined;
  if (wanted.kind === 'Secret' && !isProven(live)) return takeOver(kube, live, wanted, options, signal);
  if (!dropsField(createdIn(live)?.fieldsV1 ?? {}, wanted)) return undefined;
  // The observed object lists only our field manager; the write needs the whole list.
  const whole = await kube.get(refOf(live), signal);
  const metadata = { ...live.metadata, managedFields: whole?.metadata.managedFields ?? [] };
  return ownByApply(kube, { ...live, metadata }, options, signal);
}

/**
 * Somebody else may have created it under our manager's name: fields that we would not have written are removed before
 * the object becomes ours.
 */
async function takeOver(
  kube: Kube,
  live: KubeObject,
  wanted: KubeObject,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const removal = removalOfForeign(live, wanted);
  if (!removal) return undefined;
  const { resourceVersion } = live.metadata;
  const patch = { ...removal, metadata: { ...removal.metadata, resourceVersion } };
  return kube.merge(refOf(live), patch, options, signal);
}

/**
 * Converts the ownership of what we created to our apply, as if an apply had created it: a later apply then has one
 * manager fewer to compare with, which saves a tenth of its cost in the API server. A Secret receives its own uid in
 * the same write. `whole` includes all managers. Returns the object after the write, or undefined if nothing was
 * needed.
 */
async function ownByApply(
  kube: Kube,
  whole: KubeObject,
  options: WriteOptions,
  signal: AbortSignal,
): Promise<KubeObject | undefined> {
  const created = createdIn(whole);
  if (!created) return undefined;
  const { resourceVersion, managedFields: all = [] } = whole.metadata;
  const managedFields = all
    .filter((entry) => !(isOurs(entry) && entry.operation === 'Apply'))
    .map((entry) => (entry === created ? { ...entry, operation: 'Apply' as const } : entry));
  const { annotations } = withOrigin({ ...whole, metadata: { name: whole.metadata.name } }, whole).metadata;
  return kube.merge(refOf(whole), { metadata: { annotations, managedFields, resourceVersion } }, options, signal);
}

function createdIn({ metadata }: KubeObject): ManagedFields | undefined {
  return metadata.managedFields?.find((entry) => isOurs(entry) && entry.operation === 'Update');
}

/** True when the field set names a field that the wanted object lacks. */
function dropsField(fields: Readonly<Record<string, unknown>>, wanted: unknown): boolean {
  return Object.entries(fields).some(([name, below]) => {
    if (!name.startsWith('f:')) return false;
    const value = (wanted as Record<string, unknown> | null | undefined)?.[name.slice(2)];
    if (value === undefined) return true;
    return typeof below === 'object' && below !== null && dropsField(below as Record<string, unknown>, value);
  });
}
