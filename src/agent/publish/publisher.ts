import type { Clock } from '../../async/clock.ts';
import { describe, FIELD_MANAGER, type KubeObject, type ObjectRef, refOf } from '../../core/object.ts';
import type { OriginProof } from '../../core/plan/origin.ts';
import { foreignMessage, type PlanStep, type WriteStep } from '../../core/plan/plan.ts';
import type { Problem } from '../../core/problem.ts';
import { type Gateway, gatewayOf } from '../../gateway/gateway.ts';
import type { Kube } from '../../kube/api.ts';
import { KubeError } from '../../kube/transport/error.ts';
import { codeOf } from '../../mesh/error.ts';
import { fields } from '../../mesh/kube-object.ts';
import type { BatchGap } from './batch-gap.ts';
import { ownByApply, reclaimFields } from './field-ownership.ts';
import type { WritePriority } from './write-priority.ts';

/** Whether this process may write now. */
export interface Fence {
  /** Throws when the Lease is lost, or when this process cannot prove that it holds it. */
  check(): void;
}

export interface PublisherOptions {
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
export interface StepProblem extends Problem {
  readonly ref: ObjectRef;
  /** The plan refused it: no request was made. */
  readonly refused?: true;
  readonly cause?: unknown;
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
      problems.push({ ref, ...explain(ref, cause, options.gateways), cause });
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
