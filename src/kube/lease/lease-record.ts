import type { KubeObject } from '../../core/object.ts';

/** The content of a Lease. */
export interface LeaseRecord {
  /** Undefined when nobody holds it. */
  readonly holder: string | undefined;
  readonly durationMs: number;
  readonly acquiredAt: number | undefined;
  readonly renewedAt: number | undefined;
  readonly transitions: number;
}

export function readLease(lease: KubeObject): LeaseRecord {
  const spec = (lease.spec ?? {}) as Record<string, unknown>;
  const time = (value: unknown) => (typeof value === 'string' ? Date.parse(value) : undefined);
  return {
    holder: typeof spec.holderIdentity === 'string' && spec.holderIdentity !== '' ? spec.holderIdentity : undefined,
    durationMs: Number(spec.leaseDurationSeconds ?? 0) * 1000,
    acquiredAt: time(spec.acquireTime),
    renewedAt: time(spec.renewTime),
    transitions: Number(spec.leaseTransitions ?? 0),
  };
}

export function leaseSpec(record: LeaseRecord): Record<string, unknown> {
  return {
    holderIdentity: record.holder ?? '',
    leaseDurationSeconds: Math.max(1, Math.ceil(record.durationMs / 1000)),
    ...(record.acquiredAt === undefined ? {} : { acquireTime: microTime(record.acquiredAt) }),
    ...(record.renewedAt === undefined ? {} : { renewTime: microTime(record.renewedAt) }),
    leaseTransitions: record.transitions,
  };
}

/** RFC 3339 with six digits: the API server answers 400 to the three that `toISOString` writes. */
export function microTime(epochMs: number): string {
  return new Date(epochMs).toISOString().replace('Z', '000Z');
}
