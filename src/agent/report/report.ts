import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Decision, Situation } from '../../core/decision/decide.ts';
import type { StatusInput } from '../../core/decision/status-of.ts';
import type { PlanStep } from '../../core/plan/plan.ts';
import type { Problem } from '../../core/problem.ts';
import type { PublishResult } from '../publish/publisher.ts';
import type { Rotation } from './rotation-tracker.ts';

/** What every sink receives from a reconcile. */
export interface Passed {
  readonly certificate: MeshCertificate;
  readonly outcome: PublishResult | undefined;
  /** The newest failure of mesh, cluster or plan since the last success. */
  readonly failure: Problem | undefined;
  /** Read back from the watch and verified: the observed objects are the desired ones. */
  readonly inForce: boolean;
  readonly leading: boolean;
  /** The rotation that this reconcile completed. */
  readonly rotation: Rotation | undefined;
  /** The writes of this reconcile undo somebody else's change. */
  readonly repair: boolean;
  /** Milliseconds until the budget on attempts allows the next one; 0 when it does now. */
  readonly breakerOpenMs: number;
  /** A dry run: nothing is stored. */
  readonly dryRun: boolean;
  /** Absent when a sink amended the status, since nothing was decided. */
  readonly decision?: Decision;
}

/** What the reconciler reports after each reconcile; the sinks turn it into status, metrics, Events and log lines. */
export interface Report extends StatusInput, Passed {
  readonly certificate: MeshCertificate;
  readonly situation: Situation;
  readonly decision: Decision;
  readonly steps: readonly PlanStep[];
}
