import type { KubeObject, ObjectMeta } from '../../core/object.ts';
import type { Problem } from '../../core/problem.ts';
import type { CommonSpec } from './spec.ts';

export const API_VERSION = 'meshcert.dev/v1alpha1';
export const KIND = 'MeshCertificate';

/** The user's spec, with every default filled in and every duration in milliseconds. */
export interface MeshCertificate extends KubeObject {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: typeof KIND;
  readonly metadata: ObjectMeta;
  readonly spec: MeshCertificateSpec;
  readonly status?: unknown;
  /** Why the newest version of the resource is refused; this is the last valid one. */
  readonly refused?: Problem & { readonly generation: number | undefined };
}

/** The fields of `spec` as the schema returns them, with the names filled in and the durations in milliseconds. */
export interface MeshCertificateSpec extends CommonFields {
  /** The configured mesh, and its adapter's parsed configuration. */
  readonly mesh: { readonly name: string; readonly config: unknown };
  readonly secretName: string;
  readonly caSecretName: string;
  /** Secret for the CRLs of the mesh; absent: they are not published. */
  readonly crlSecretName?: string | undefined;
  /** The result of each gateway's `configure`, by kind; a kind that is absent is not used. */
  readonly gateways: Readonly<Record<string, unknown>>;
  readonly trust: {
    readonly retainMs: number;
    readonly holdMs: number;
    /** SHA-256 fingerprints, lower-case hex. */
    readonly withdrawn: readonly string[];
  };
  /** Absent: nobody checks who answers behind the routes. */
  readonly upstreams?: UpstreamsSpec | undefined;
}

type CommonFields = Readonly<
  Pick<CommonSpec, 'configMapName' | 'labels' | 'renewal' | 'probe' | 'paused' | 'deletionPolicy'>
>;

/** How the agent checks who answers behind the routes that use the certificate. */
export interface UpstreamsSpec {
  readonly intervalMs: number;
  /** Whether ServiceAccounts are read, from which the mesh derives identities. */
  readonly serviceAccounts: boolean;
  readonly identities: readonly { readonly service: string; readonly ids: readonly string[] }[];
}

/** A real upstream that must accept a new identity before it is published. */
export type ProbeSpec = NonNullable<CommonSpec['probe']>;
