import { formatSpiffeId, parseSpiffeId } from '../pki/spiffe.ts';

/** A pod behind a Service, as far as a mesh needs it to name the certificate that the pod presents. */
export interface Workload {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** Why the gateway cannot use mTLS to a port of a workload; the message ends with the next step. */
export interface TargetRefusal {
  readonly code: string;
  readonly message: string;
}

/**
 * The name that a workload presents. A `path` is that of a SPIFFE ID in the trust domain of the gateway's own; a
 * `sibling` is the gateway's own SPIFFE ID with another last segment.
 */
export type PeerName =
  | { readonly path: string }
  | { readonly sibling: string }
  | { readonly uri: string }
  | { readonly dns: string };

/** The name as a certificate has it. Undefined: `own`, the name of the gateway, is no SPIFFE ID and determines it. */
export function peerNameText(name: PeerName, own: string): string | undefined {
  if ('dns' in name) return name.dns;
  if ('uri' in name) return name.uri;
  const id = parseSpiffeId(own);
  if (!id) return undefined;
  const path = 'path' in name ? name.path : id.path.slice(0, id.path.lastIndexOf('/') + 1) + name.sibling;
  return formatSpiffeId({ trustDomain: id.trustDomain, path });
}

/** A target that the user listed: it has an object of the gateway whether or not a route needs it yet. */
export interface ListedTarget {
  readonly id: string;
  readonly serviceAccount: string;
  readonly namespace: string;
  /** The exact name of that object. */
  readonly contextName?: string | undefined;
  /** Stands for account and namespace in the made-up name of that object. */
  readonly name?: string | undefined;
}

/** How a mesh names the workloads that the gateway calls. Pure: a later change of the mesh is another value. */
export interface TargetRules {
  /** Whether unlisted workloads may be targets too. */
  readonly discover: boolean;
  readonly listed: readonly ListedTarget[];
  /** The name that the workload's certificate carries and that the gateway sends as SNI. `port` is the pod's. */
  identify(workload: Workload, port: number): { readonly id: string } | TargetRefusal;
}

/**
 * Optional capability, detected by presence: a mesh whose servers are distinguished by SNI, so that the gateway needs
 * one TLS context for each target instead of one for the mesh.
 */
export interface Targeting {
  /** The rules now and whenever they change; ends by the signal or by throwing a MeshError. */
  targets(signal: AbortSignal): AsyncIterable<TargetRules>;
}

export function isTargeting(opened: object): opened is Targeting {
  return 'targets' in opened;
}
