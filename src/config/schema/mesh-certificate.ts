import type { KubeObject, ObjectMeta } from '../../core/object.ts';

export const API_VERSION = 'meshcert.dev/v1alpha1';
export const KIND = 'MeshCertificate';

/** The user's spec, with every default filled in and every duration in milliseconds. */
export interface MeshCertificate extends KubeObject {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: typeof KIND;
  readonly metadata: ObjectMeta;
  readonly spec: MeshCertificateSpec;
  readonly status?: unknown;
}

export interface MeshCertificateSpec {
  /** The configured mesh, and its adapter's parsed configuration. */
  readonly mesh: { readonly name: string; readonly config: unknown };
  readonly secretName: string;
  readonly caSecretName: string;
  /** Secret for the CRLs of the mesh; absent: they are not published. */
  readonly crlSecretName?: string | undefined;
  readonly configMapName?: string | undefined;
  /** Added to every object that we write. */
  readonly labels: Readonly<Record<string, string>>;
  /** The result of each gateway's `configure`, by kind; a kind that is absent is not used. */
  readonly gateways: Readonly<Record<string, unknown>>;
  /** Fractions of the leaf's life. */
  readonly renewal: { readonly at: number; readonly jitter: number };
  readonly trust: { readonly retainMs: number; readonly holdMs: number };
  readonly probe?: ProbeSpec | undefined;
  readonly paused: boolean;
  readonly deletionPolicy: 'Retain' | 'Delete';
}

/** A real upstream that must accept a new identity before it is published. */
export interface ProbeSpec {
  readonly address: string;
  readonly id?: string | undefined;
  readonly sni?: string | undefined;
  readonly http?: { readonly path: string } | undefined;
}
