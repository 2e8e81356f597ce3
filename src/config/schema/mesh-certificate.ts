import type { KubeObject, ObjectMeta } from '../../core/object.ts';

export const API_VERSION = 'meshcert.dev/v1alpha1';
export const KIND = 'MeshCertificate';

/** The user's wish, with every default filled in and every duration in milliseconds. */
export interface MeshCertificate extends KubeObject {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: typeof KIND;
  readonly metadata: ObjectMeta;
  readonly spec: MeshCertificateSpec;
  readonly status?: unknown;
}

export interface MeshCertificateSpec {
  /** The one mesh that was named, and its adapter's parsed configuration. */
  readonly mesh: { readonly name: string; readonly config: unknown };
  readonly secretName: string;
  readonly caSecretName: string;
  readonly configMapName?: string | undefined;
  readonly tlsContext: TlsContextSpec;
  /** On every object that we write. */
  readonly labels: Readonly<Record<string, string>>;
  /** Whose `spec.tls` we set; absent: Mappings are only reported. */
  readonly mappings?: MappingsSpec | undefined;
  /** Fractions of the leaf's life. */
  readonly renewal: { readonly at: number; readonly jitter: number };
  readonly trust: { readonly retainMs: number; readonly holdMs: number };
  readonly probe?: ProbeSpec | undefined;
  readonly paused: boolean;
  readonly deletionPolicy: 'Retain' | 'Delete';
}

export interface TlsContextSpec {
  readonly enabled: boolean;
  readonly name: string;
  /** Empty means Emissary's own default, `["default"]`. */
  readonly ambassadorIds: readonly string[];
  readonly sni?: string | undefined;
  /** These three win over what the adapter advises. */
  readonly alpnProtocols?: string | undefined;
  readonly minTlsVersion?: TlsVersion | undefined;
  readonly maxTlsVersion?: TlsVersion | undefined;
}

export interface MappingsSpec {
  readonly selector: { readonly matchLabels: Readonly<Record<string, string>> };
  /** Where Mappings are looked for; absent: the object's own namespace; `['*']`: all. */
  readonly namespaces?: readonly string[] | undefined;
}

export type TlsVersion = 'v1.2' | 'v1.3';

/** A real upstream that must accept a new identity before it is published. */
export interface ProbeSpec {
  readonly address: string;
  readonly id?: string | undefined;
  readonly sni?: string | undefined;
  readonly http?: { readonly path: string } | undefined;
}
