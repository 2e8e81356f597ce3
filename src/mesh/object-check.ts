import type { KubeObject } from '../objects/objects.ts';

export const SEVERITIES = ['note', 'warning', 'error'] as const;
export type Severity = (typeof SEVERITIES)[number];

/** What a check of `doctor` finds about one object. */
export interface Hit {
  readonly object: KubeObject;
  /** The object, what is wrong with it, and what the consequence is. */
  readonly message: string;
  /** What to do about it. */
  readonly fix: string;
  /** Set if it differs from the severity of the check. */
  readonly severity?: Severity;
}

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

/** One check of objects by `doctor`, explained in docs/checks.md. */
export interface ObjectCheck {
  /** Stable, such as `MC2001`. */
  readonly code: string;
  readonly severity: Severity;
  /** A sentence that is true of a finding. */
  readonly title: string;
  run(objects: CheckedObjects): Iterable<Hit>;
}
