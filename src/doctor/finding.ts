import type { Hit, Severity } from '../mesh/object-check.ts';

/** One thing that hurts or will. */
export interface Finding extends Hit {
  readonly code: string;
  readonly severity: Severity;
}
