import type { PeerName } from '../../../mesh/targeting.ts';

/** A port of a Service by its number, as a route names it. */
export interface ServicePort {
  readonly namespace: string;
  readonly name: string;
  readonly port: number;
}

/** A port of a Service, or a Backend, whose identity the gateway verifies. */
export interface PolicyTarget {
  readonly kind: 'policy';
  readonly namespace: string;
  readonly of: 'Service' | 'Backend';
  readonly name: string;
  /** The name of the port of a Service; empty for a Backend: all of its ports. */
  readonly port: string;
  readonly hostname: string;
  /** One of these must be presented; empty: `hostname` must. Sorted. */
  readonly names: readonly PeerName[];
}

/**
 * `reread`: Envoy Gateway reads a Secret again that a Gateway names only if an EnvoyProxy beside it names the Secret
 * too. `grant`: Gateways of this other namespace name the Secret. `revision`: the bundle of this namespace must be
 * written with other bytes than before.
 */
export type GatewayApiTarget =
  | PolicyTarget
  | { readonly kind: 'reread' }
  | { readonly kind: 'grant'; readonly namespace: string }
  | { readonly kind: 'revision'; readonly namespace: string; readonly revision: number };

/**
 * Why a Gateway, a Service or a Backend is not used. Codes of the mesh itself come from its adapter; the rest are shared with
 * other gateways.
 */
export const GATEWAY_API_CODES = [
  'ERR_TARGET_CLASS',
  'ERR_TARGET_NO_PROXY',
  'ERR_TARGET_OVERRIDDEN',
  'ERR_TARGET_FOREIGN_TLS',
  'ERR_TARGET_NAMESPACE',
  'ERR_TARGET_FOREIGN_POLICY',
  'ERR_TARGET_MESH_POLICY',
  'ERR_TARGET_NOT_IN_CLUSTER',
  'ERR_TARGET_PORT_NAME',
  'ERR_TARGET_NO_SERVICE',
  'ERR_TARGET_NO_PORT',
  'ERR_TARGET_NO_ENDPOINTS',
  'ERR_TARGET_NO_POD',
  'ERR_TARGET_NO_ACCOUNT',
  'ERR_TARGET_NO_PEER',
  'ERR_TARGET_TOO_MANY',
  'ERR_TARGET_DISAGREE',
  'ERR_TARGET_UNSEEN',
  'ERR_TARGET_UNSELECTED',
  'ERR_TARGET_NO_CONSENT',
  'ERR_GATEWAY_CRD_MISSING',
] as const;

export type GatewayApiCode = (typeof GATEWAY_API_CODES)[number];

/** Why something is not used; the message ends with the next step. */
export interface GatewayApiRefusal {
  readonly code: GatewayApiCode;
  readonly message: string;
}
