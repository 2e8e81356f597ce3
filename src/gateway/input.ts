import type { MeshCertificateSpec } from '../config/schema/mesh-certificate.ts';
import type { Resource } from '../core/object.ts';
import type { Adapter, TlsDefaults } from '../mesh/adapter.ts';
import type { TargetRules } from '../mesh/targeting.ts';
import type { Certificate } from '../pki/certificate.ts';

/** One MeshCertificate, as a gateway sees it. */
export interface GatewayInput<C> {
  readonly meta: { readonly name: string; readonly namespace: string; readonly uid?: string | undefined };
  readonly spec: MeshCertificateSpec;
  /** The result of its `configure`. */
  readonly config: C;
}

/** `targets`: what its routes need, from `judge`; undefined before they were judged. */
export interface ReferenceInput<C, T> extends GatewayInput<C> {
  readonly targets: readonly T[] | undefined;
}

export interface PublicationInput<C, T> extends ReferenceInput<C, T> {
  /** How the mesh must be addressed, unless the user configures otherwise. */
  readonly tls: Adapter['tls'];
  /** Never empty; newest root first. */
  readonly bundle: readonly Certificate[];
  /** The leaf that is published with them. */
  readonly leaf: Certificate;
  /** Name of the Secret with CRLs, key `crl.pem`; absent: upstreams are not checked for revocation. */
  readonly crlSecretName?: string | undefined;
}

/** What a gateway must know of a mesh to address its workloads. */
export interface MeshView extends Pick<Adapter, 'title' | 'peer' | 'takesPoliciesOf'> {
  readonly tls: TlsDefaults;
}

export interface RouteInput<C> extends GatewayInput<C> {
  /** Absent: nothing is known of the mesh. */
  readonly mesh?: MeshView | undefined;
  /** How the mesh names the workloads behind a route; absent: one identity serves the whole mesh. */
  readonly rules?: TargetRules | undefined;
}

/** Where to look for objects. A cluster that does not serve the kind has no objects of it, which is not a failure. */
export interface Scope {
  readonly resource: Resource;
  /** Absent: in all namespaces. */
  readonly namespace?: string | undefined;
  /** Only the object of this name; a Role may then name it. */
  readonly name?: string | undefined;
}

/** Where an object names a Secret. */
export interface SecretUse {
  readonly namespace: string;
  readonly name: string;
}
