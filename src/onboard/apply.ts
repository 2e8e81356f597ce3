import type { Clock } from '../async/clock.ts';
import { type KubeObject, keyOf, preconditionOf, refOf } from '../core/object.ts';
import type { Kube } from '../kube/api.ts';
import { KubeError } from '../kube/transport/error.ts';
import { ONBOARD_FIELD_MANAGER } from './plan/moved.ts';
import { type OnboardStep, titleOf } from './plan/plan.ts';
import type { Announce } from './say.ts';

export interface PlanApplyOptions {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly say: Announce;
  readonly signal: AbortSignal;
}

interface ApplyMode {
  /** The API server checks everything and stores nothing. */
  readonly dryRun: boolean;
}

/** The observed state of these objects, by key. */
export async function observe(
  kube: Kube,
  objects: readonly KubeObject[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, KubeObject>> {
  const found = await Promise.all(
    objects.map((object) =>
      kube.get(refOf(object), signal).catch((error: unknown) => {
        // A kind that is not defined yet has no objects.
        if (error instanceof KubeError && error.status === 404) return undefined;
        throw error;
      }),
    ),
  );
  return new Map(found.flatMap((object) => (object ? [[keyOf(refOf(object)), object] as const] : [])));
}

/** Applies what is to be created or changed, in order; stops at the first refusal. */
export async function applySteps(
  steps: readonly OnboardStep[],
  options: PlanApplyOptions,
  mode: ApplyMode,
): Promise<void> {
  const defines = steps.some(({ action, object }) => action !== 'none' && isDefinition(object));
  for (const step of steps) {
    if (step.action === 'none' || step.action === 'keep' || step.action === 'blocked') continue;
    const verdict =
      step.action === 'delete' ? await removeStep(step, options, mode) : await applyOne(step, defines, options, mode);
    options.say.line(`${titleOf(step)} ${verdict}`);
  }
}

/** A new kind is served within a second or two after its definition was created. */
const DEFINITION_TRIES = 40;
const DEFINITION_PAUSE_MS = 250;

async function removeStep(
  { object }: OnboardStep,
  { kube, signal }: PlanApplyOptions,
  { dryRun }: ApplyMode,
): Promise<string> {
  if (dryRun) return 'would be deleted';
  await kube.delete(refOf(object), preconditionOf(object), signal);
  return 'deleted';
}

async function applyOne(
  step: OnboardStep,
  defines: boolean,
  { kube, clock, signal }: PlanApplyOptions,
  { dryRun }: ApplyMode,
): Promise<string> {
  const object = step.patch ?? step.object;
  // What did not exist belongs to whoever has created it since.
  const force = step.action === 'change';
  for (let attempt = 1; ; attempt++) {
    try {
      await kube.apply(object, { fieldManager: ONBOARD_FIELD_MANAGER, force, dryRun }, signal);
      return dryRun ? 'would be applied' : 'applied';
    } catch (error) {
      const undefinedYet = error instanceof KubeError && error.status === 404 && defines && !isDefinition(object);
      if (!undefinedYet || attempt >= DEFINITION_TRIES) throw error;
      if (dryRun) return 'cannot be checked before its definition exists';
      await clock.sleep(DEFINITION_PAUSE_MS, signal);
    }
  }
}

const isDefinition = ({ kind }: KubeObject): boolean => kind === 'CustomResourceDefinition';
