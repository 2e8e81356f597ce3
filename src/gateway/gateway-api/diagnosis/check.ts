import type { Hit, Severity } from '../../../mesh/object-check.ts';
import type { GatewayApiWorld } from './world.ts';

/** One check. Its code is stable and has a section in docs/checks.md. */
export interface GatewayApiCheck {
  readonly code: string;
  readonly severity: Severity;
  /** A sentence that is true of a finding. */
  readonly title: string;
  run(world: GatewayApiWorld): Iterable<Hit>;
}
