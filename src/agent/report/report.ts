import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Decision, Situation } from '../../core/decision/decide.ts';
import type { StatusInput } from '../../core/decision/status-of.ts';
import type { PlanStep } from '../../core/plan/plan.ts';
import type { Problem } from '../../core/problem.ts';
import type { PublishResult } from '../publish/publisher.ts';
import type { Rotation } from './rotation-tracker.ts';

/** What every sink is told of a pass. */
export interface Passed {
  readonly certificate: MeshCertificate;
  readonly outcome: PublishResult | undefined;
  /** The newest failure of mesh, cluster or plan since things last went well. */
  readonly failure: Problem | undefined;
  /** Read back from the watch and verified: what stands is what should stand. */
  readonly inForce: boolean;
  readonly leading: boolean;
  /** What this pass put in force. */
  readonly rotation: Rotation | undefined;
  /** The writes of this pass undo what somebody else did. */
  readonly repair: boolean;
  /** Milliseconds until the budget on attempts lets the next one go; 0 when it does now. */
  readonly breakerOpenMs: number;
  /** Nothing is stored. */
  readonly dryRun: boolean;
  /** Absent where a sink amended what was told, and nothing was decided. */
  readonly decision?: Decision;
}

/** What the reconciler reports after each reconcile; the sinks turn it into status, metrics, Events and log lines. */
export interface Report extends StatusInput, Passed {
  readonly certificate: MeshCertificate;
  readonly situation: Situation;
  readonly decision: Decision;
  readonly steps: readonly PlanStep[];
}
