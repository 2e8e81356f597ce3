import type { KubeObject } from '../objects/objects.ts';

export const SEVERITIES = ['note', 'warning', 'error'] as const;
export type Severity = (typeof SEVERITIES)[number];

/** A check of `doctor` as it is listed. Its code is stable and is explained in docs/checks.md or docs/doctor.md. */
export interface CheckTitle {
  /** Such as `MC2001`. */
  readonly code: string;
  readonly severity: Severity;
  /** A sentence that is true of a finding. */
  readonly title: string;
}

/** What a check finds about one object. */
export interface Hit {
  readonly object: KubeObject;
  /** The object, what is wrong with it, and what the consequence is. */
  readonly message: string;
  /** What to do about it. */
  readonly fix: string;
  /** Set if it differs from the severity of the check. */
  readonly severity?: Severity;
}

/** One check of objects. `World`: how whoever reads them interprets them. Pure. */
export interface Check<World> extends CheckTitle {
  run(world: World): Iterable<Hit>;
}

/** One thing that hurts or will. */
export interface Finding extends Hit {
  readonly code: string;
  readonly severity: Severity;
}

export const runChecks = <World>(checks: readonly Check<World>[], world: World): readonly Finding[] =>
  checks.flatMap(({ code, severity, run }) => [...run(world)].map((hit) => ({ severity, ...hit, code })));

/** The TLS by which a gateway reaches the mesh, as one object configures it. */
export interface ClientTls {
  readonly object: KubeObject;
  readonly sni: string | undefined;
  readonly alpnProtocols: readonly string[];
  readonly maxTlsVersion: string | undefined;
  /** Type of the key in its Secret, if that was read. */
  readonly keyType: string | undefined;
}

/** A route of the gateway over such TLS. */
export interface TlsRoute {
  readonly object: KubeObject;
  readonly tls: ClientTls;
  /** As the route names it. */
  readonly service: string;
  readonly namesPort: boolean;
  /** The port that is dialled. */
  readonly port: number;
  /** The Service behind it, as far as the name shows. */
  readonly upstream: { readonly name: string; readonly namespace: string };
}

/** The input of an adapter's check: objects of a cluster or of files, and those that concern this mesh. */
export interface CheckedObjects {
  readonly tls: readonly ClientTls[];
  readonly routes: readonly TlsRoute[];
  all(kind: string): readonly KubeObject[];
  find(kind: string, ref: { readonly name: string; readonly namespace: string }): KubeObject | undefined;
}
