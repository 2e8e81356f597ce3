import { adapters } from '../../adapters/index.ts';
import { systemClock } from '../../src/async/clock.ts';
import { gateways } from '../../src/gateways.ts';
import { type KubeObject, keyOf, refOf } from '../../src/objects/objects.ts';
import { type OnboardPlan, type OnboardPreferences, planOnboarding } from '../../src/onboard/plan.ts';
import type { OnboardSnapshot } from '../../src/onboard/snapshot.ts';
import { snapshotOf } from './onboard-cluster.ts';

const { signal } = new AbortController();

/** The plan for a cluster of these objects, with the adapters and gateways of the product. */
export function planFor(
  objects: readonly KubeObject[],
  preferences: Partial<OnboardPreferences> = {},
  changes: Partial<OnboardSnapshot> = {},
): Promise<OnboardPlan> {
  const observed = new Map(objects.map((object) => [keyOf(refOf(object)), object]));
  const means = { adapters, gateways, clock: systemClock };
  return planOnboarding(snapshotOf(objects, changes), { changes: [], ...preferences }, observed, means, signal);
}
