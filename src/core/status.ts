export type ConditionStatus = 'True' | 'False' | 'Unknown';

/** Like metav1.Condition. */
export interface Condition {
  readonly type: ConditionType;
  readonly status: ConditionStatus;
  /** CamelCase, stable. */
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
  /** RFC 3339. */
  readonly lastTransitionTime: string;
}

export const CONDITION_TYPES = [
  'Ready',
  'Published',
  'Live',
  'Trusted',
  'Referenced',
  'UpstreamVerified',
  'Degraded',
  'IssuerEnding',
  'Reconciling',
  'Stalled',
] as const;
export type ConditionType = (typeof CONDITION_TYPES)[number];

/**
 * Conditions that tools such as Flux and Argo CD read (kstatus). They are in the list only while they are True, and repeat
 * what Published and Degraded say.
 */
export const isProgress = ({ type }: { readonly type: string }): boolean =>
  type === 'Reconciling' || type === 'Stalled';

/** Whether a condition shows a fault: True if its name describes a fault, and not True otherwise. */
export const isTrouble = (condition: { readonly type: string; readonly status: string }): boolean =>
  !isProgress(condition) &&
  (condition.type === 'Degraded' || condition.type === 'IssuerEnding') === (condition.status === 'True');

/** Times are RFC 3339, as in every Kubernetes status. */
export interface RootStatus {
  readonly fingerprint: string;
  readonly subject: string;
  readonly notAfter: string;
  /** `retained`: the mesh no longer names it. */
  readonly state: 'named' | 'retained';
  readonly since?: string;
}

/** A route that refers to the certificate, or should. */
export interface RouteStatus {
  readonly name: string;
  readonly namespace: string;
  readonly kind: string;
  /** `ok`, or a stable code of why it does not use mTLS. */
  readonly state: string;
  readonly context?: string;
  readonly message?: string;
}

export interface TargetStatus {
  readonly id: string;
  readonly context: string;
}

/** Who answered behind the routes at one address. */
export interface UpstreamStatus {
  readonly address: string;
  /** `ok`: the expected identity; otherwise a stable code. */
  readonly state: string;
  /** The identity that it presented. */
  readonly id?: string;
  /** Why it is not `ok`, and the next step. */
  readonly message?: string;
}

/** The last failure since the last success. */
export interface LastError {
  readonly code: string;
  readonly message: string;
  /** When this failure began: the time of the first of the attempts that failed in the same way. */
  readonly firstTime?: string;
  /** When it last occurred. */
  readonly time: string;
}

/** The one model behind the status subresource, /api/status and `meshcert status`. No secrets. */
export interface PublicationStatus {
  /** The metadata.generation that the conditions are about; a file has none. */
  readonly observedGeneration?: number;
  readonly mesh: string;
  readonly id?: string;
  readonly fingerprint?: string;
  readonly notBefore?: string;
  readonly notAfter?: string;
  readonly renewalTime?: string;
  readonly emergencyTime?: string;
  /** The certificate above the leaf that ends first. */
  readonly issuer?: { readonly subject: string; readonly fingerprint: string; readonly notAfter: string };
  /** The Secrets that the agent wrote. A Secret with another uid is not relied on. */
  readonly secrets?: readonly { readonly name: string; readonly uid: string }[];
  readonly roots: readonly RootStatus[];
  /** A newer leaf that is held back, and why. */
  readonly held?: {
    readonly fingerprint: string;
    readonly reason: string;
    readonly since?: string;
    readonly until: string;
  };
  /** By kind: where each gateway that has objects finds them, also once the spec has its fields no longer. */
  readonly gateways?: Readonly<Record<string, object>>;
  readonly mappings: readonly RouteStatus[];
  readonly targets: readonly TargetStatus[];
  /** Those that were checked, by address. */
  readonly upstreams?: readonly UpstreamStatus[];
  readonly rotations: number;
  readonly lastRotationTime?: string;
  /** The last value of the renew annotation that was handled. */
  readonly renewRequest?: string;
  readonly lastError?: LastError;
  /** While the mesh does not issue: the time of the next attempt. */
  readonly nextAttemptTime?: string;
  readonly conditions: readonly Condition[];
}

/**
 * The status of a resource if an agent has written one. The API server gives a new resource a status without conditions,
 * whose observedGeneration is -1.
 */
export function reportedStatus(status: unknown): PublicationStatus | undefined {
  const reported = status as PublicationStatus | undefined;
  return (reported?.conditions ?? []).length === 0 ? undefined : reported;
}

/** When the published leaf was read back, epoch ms, as the status of a resource records it. */
export function rotatedAt(status: unknown): number | undefined {
  const time = (status as Partial<PublicationStatus> | undefined)?.lastRotationTime;
  return time === undefined ? undefined : Date.parse(time);
}

/**
 * The list with these conditions set, in the order of CONDITION_TYPES. A transition time changes only with the status,
 * following the Kubernetes conventions. `now` in epoch ms.
 */
export function setConditions(
  conditions: readonly Condition[],
  next: readonly Omit<Condition, 'lastTransitionTime'>[],
  now: number,
): Condition[] {
  const set = next.map((one) => {
    const before = conditions.find(({ type }) => type === one.type);
    const lastTransitionTime = before?.status === one.status ? before.lastTransitionTime : toRfc3339(now);
    return { ...one, lastTransitionTime };
  });
  const others = conditions.filter(({ type }) => !next.some((one) => one.type === type));
  return [...others, ...set].sort((a, b) => CONDITION_TYPES.indexOf(a.type) - CONDITION_TYPES.indexOf(b.type));
}

/** Whole seconds, like metav1.Time; rounded down. */
export const toRfc3339 = (ms: number): string =>
  new Date(Math.floor(ms / 1000) * 1000).toISOString().replace('.000Z', 'Z');
