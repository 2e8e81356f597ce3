import type { KubeObject } from '../../../core/object.ts';
import type { TargetRules } from '../../../mesh/targeting.ts';

/** One TLSContext that the gateway needs: `sni` is the identity of the workload behind it. */
export interface Target {
  readonly contextName: string;
  readonly sni?: string | undefined;
}

/**
 * Why a Mapping is not changed. The codes of the mesh itself (`ERR_TARGET_UNMESHED`, `…_OTHER_MESH`, `…_OPAQUE_PORT`,
 * `…_SKIPPED_PORT`, `…_PROXY_PORT`, `…_NAME`) come from its TargetRules.
 */
export const TARGET_CODES = [
  'ERR_TARGET_SERVICE_SYNTAX',
  'ERR_TARGET_NO_HTTPS',
  'ERR_TARGET_AMBASSADOR_ID',
  'ERR_TARGET_FOREIGN_TLS',
  'ERR_TARGET_NOT_IN_CLUSTER',
  'ERR_TARGET_NO_SERVICE',
  'ERR_TARGET_NO_PORT',
  'ERR_TARGET_NO_ENDPOINTS',
  'ERR_TARGET_NO_POD',
  'ERR_TARGET_DISAGREE',
  'ERR_TARGET_NOT_LISTED',
  'ERR_TARGET_UNSEEN',
  'ERR_TARGET_UNSELECTED',
  'ERR_TARGET_NO_CONSENT',
  'ERR_TARGET_UNMESHED',
  'ERR_TARGET_OTHER_MESH',
  'ERR_TARGET_OPAQUE_PORT',
  'ERR_TARGET_SKIPPED_PORT',
  'ERR_TARGET_PROXY_PORT',
  'ERR_TARGET_NAME',
] as const;

/** What the MeshCertificate requests of Mappings. */
export interface TargetSelection {
  /** Namespace of the MeshCertificate. Mappings of other namespaces are set only with their consent. */
  readonly namespace: string;
  /** The TLSContext of the MeshCertificate; with rules, the stem of each target's context. */
  readonly contextName: string;
  readonly sni?: string | undefined;
  readonly ambassadorIds: readonly string[];
  /** Labels of the Mappings that we set; absent: report only. */
  readonly selector?: Readonly<Record<string, string>> | undefined;
  /** Absent: one context serves the whole mesh. */
  readonly rules?: TargetRules | undefined;
  /** Only contexts that exist count; none is made. */
  readonly isLeft?: boolean | undefined;
}

/** The observed objects. Lists may hold more than is needed. */
export interface TargetWorld {
  readonly mappings: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly endpointSlices: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  /** Namespaces whose Services, EndpointSlices and Pods are unknown, and why. */
  readonly unseen?: ReadonlyMap<string, string> | undefined;
  /** Our own TLSContexts, including those that no Mapping needs any more. */
  readonly contexts: readonly KubeObject[];
}

/** The verdict on one Mapping. */
export interface MappingVerdict {
  readonly mapping: KubeObject;
  /** `spec.service` as the user wrote it. */
  readonly service: string;
  /** Whether the selector matches it. */
  readonly selected: boolean;
  /** The context that its `spec.tls` names now. */
  readonly named?: string | undefined;
  readonly outcome: { readonly target: Target } | { readonly code: string; readonly message: string };
}
