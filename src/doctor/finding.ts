import type { KubeObject } from '../core/object.ts';

export const SEVERITIES = ['note', 'warning', 'error'] as const;
export type Severity = (typeof SEVERITIES)[number];

/** One thing that hurts or will. The message names the object, what is wrong and what comes of it. */
export interface Finding {
  readonly code: string;
  readonly severity: Severity;
  readonly object: KubeObject;
  readonly message: string;
  /** What to do about it. */
  readonly fix: string;
}

/** What a check finds about one object; its code and severity are the check's own. */
export type Hit = Pick<Finding, 'object' | 'message' | 'fix'> & { readonly severity?: Severity };
