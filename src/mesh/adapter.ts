import type { Share } from '../async/sharing.ts';
import type { Certificate } from '../pki/certificate.ts';
import type { Crl } from '../pki/crl.ts';
import type { Discover, PeerName, Pods, TargetRefusal, Upstream, Workload } from './cluster.ts';
import type { Examiner } from './examiner.ts';
import type { Identity } from './identity.ts';
import type { Runtime } from './log.ts';
import type { Check, CheckedObjects } from './object-check.ts';

/** Where a value is stored in the cluster: one key of a ConfigMap or an object without secrets. */
export interface ConfigMapRef {
  readonly name: string;
  readonly namespace: string;
}

/** Where a token is sent. */
export interface Destination {
  /** `host:port`, or `unix:/path`. */
  readonly address: string;
  /** Only the receiver can read it: verified TLS, a unix socket, or the loopback interface. */
  readonly secure: boolean;
}

export interface TokenRequest {
  readonly audience: string;
  /** Every place that the token may go to. */
  readonly destinations: readonly Destination[];
  /** Mint for this ServiceAccount (TokenRequest API); absent: the agent's own projected token. */
  readonly serviceAccount?: { readonly name: string; readonly namespace: string } | undefined;
  /** A projected token file to read instead; read again at every call. */
  readonly file?: string | undefined;
}

/** Everything that an adapter may use. No environment, no globals, no timers of its own. */
export interface Host extends Runtime {
  /** The MeshCertificate's own namespace: what an omitted namespace means. */
  readonly namespace: string;
  /** A fresh bearer token, perhaps shared by concurrent calls; never cached by the caller, never logged. */
  token(request: TokenRequest, signal: AbortSignal): Promise<string>;
  /** The ConfigMap's data now, then at each change; `undefined` while it does not exist. */
  configMap(ref: ConfigMapRef, signal: AbortSignal): AsyncIterable<Readonly<Record<string, string>> | undefined>;
  /** The PEM text of a ClusterTrustBundle now, then at each change; `undefined` while it does not exist. */
  clusterTrustBundle(name: string, signal: AbortSignal): AsyncIterable<string | undefined>;
  /** A file's text now, then at each change; `undefined` while it does not exist. Survives symlink swaps. */
  file(path: string, signal: AbortSignal): AsyncIterable<string | undefined>;
  /**
   * The texts of several files as they stood together at one moment, now and after each change of any of them;
   * `undefined` for one that does not exist. Whether they belong together is for the caller to judge: a program may
   * write them one after the other.
   */
  files(paths: readonly string[], signal: AbortSignal): AsyncIterable<readonly (string | undefined)[]>;
  /** For resources that all MeshCertificates of an agent may share, such as a connection; absent: each has its own. */
  readonly share?: Share | undefined;
  /** A problem that does not end the stream; shown in status, metrics and log by its code. */
  report(error: Error): void;
}

/**
 * A mesh that pushes. The first value is the current identity, then each replacement; a changed set of roots is
 * yielded with the leaf that is current. The stream ends only by the signal or by throwing a MeshError, after
 * which the caller opens a new one.
 */
export interface Source extends AsyncDisposable {
  watch(signal: AbortSignal): AsyncIterable<Identity>;
  /** Share of a leaf's life by which the mesh has pushed the next one; absent: our own renewal time. */
  readonly overdue?: number | undefined;
}

/** A mesh that issues on request. Each call makes a new key. */
export interface Issuer extends AsyncDisposable {
  issue(signal: AbortSignal): Promise<Identity>;
  /** Yields the mesh's roots now and whenever they change. */
  roots?(signal: AbortSignal): AsyncIterable<readonly Certificate[]>;
  /** Why this identity should be replaced before its time, or undefined; called after each change of roots. */
  stale?(current: Identity): string | undefined;
}

/** Optional capability, detected by presence: the mesh revokes certificates. */
export interface Revoking {
  /** Yields the mesh's CRLs now, none where it has none, and whenever they change. Fails as `watch` does. */
  crls(signal: AbortSignal): AsyncIterable<readonly Crl[]>;
}

export function isRevoking(opened: object): opened is Revoking {
  return 'crls' in opened;
}

/** Optional capability, detected by presence: `doctor` tries the mesh as the agent would. */
export interface Checking {
  /** Runs its checks in the order in which things are needed. Rejects only by the examiner's own signal. */
  check(examiner: Examiner): Promise<void>;
}

/** Satisfied by a zod schema. */
export interface Schema<C> {
  parse(input: unknown): C;
}

/** What the published leaf must be, as far as the configuration says before anything is fetched. */
export interface Expectation {
  /** Exact SPIFFE ID or DNS name; absent: the ID that the mesh issues, then pinned by what was published. */
  readonly id?: string | undefined;
  readonly trustDomain?: string | undefined;
  readonly form: 'spiffe' | 'dns';
}

/**
 * Something that an adapter uses for one configuration. Roles grant objects and tokens; allow-lists restrict tokens
 * and addresses. `field` is the path below `spec`.
 */
export type Need =
  | { readonly kind: 'configMap'; readonly namespace: string; readonly name: string }
  | { readonly kind: 'clusterTrustBundle'; readonly name: string }
  | {
      readonly kind: 'token';
      readonly namespace: string;
      readonly name: string;
      readonly audience: string;
      readonly field: string;
    }
  /**
   * `host:port`, `unix:/path`, or `file:/path` of what holds a key. An address that only the cluster knows is missing
   * here; `TokenRequest` has it.
   */
  | { readonly kind: 'address'; readonly address: string; readonly field: string };

/** A field of the configuration that makes the adapter use a token; `path` is below `spec.<mesh>`: `ca.serviceAccount`. */
export interface TokenField {
  readonly path: string;
  /**
   * What it names: an `account` of the MeshCertificate's namespace, a `reference` with `name` and perhaps `namespace`,
   * or, whatever its value, the account of the `agent`.
   */
  readonly names: 'account' | 'reference' | 'agent';
}

/** The request to the socket of an SDS server. */
export interface SdsSocket {
  readonly socket: string;
  readonly certificateName?: string;
  readonly bundleName?: string;
}

export interface TlsDefaults {
  readonly alpnProtocols?: string;
  readonly minTlsVersion?: string;
  readonly maxTlsVersion?: string;
}

/** What every adapter has, and all that one from outside of this repository may have. */
export interface AdapterCore<C = unknown> {
  /** Key under `spec` of a MeshCertificate: a lower-case letter, then letters and digits. */
  readonly mesh: string;
  /** The display name of the mesh. */
  readonly title: string;
  readonly config: Schema<C>;
  expect(config: C, host: Pick<Host, 'namespace'>): Expectation;
  /** What the configuration makes the agent read, mint and dial; `crl`: its CRLs are followed too. */
  needs(config: C, host: Pick<Host, 'namespace'> & { readonly crl?: boolean }): readonly Need[];
  /** How a gateway should speak to this mesh unless the user says otherwise. */
  readonly tls: TlsDefaults;
  /** The same, where the configuration decides it; it then counts in place of `tls`. */
  tlsFor?(config: C): TlsDefaults;
  /** For the admission policy: whose tokens a MeshCertificate uses. */
  readonly tokenFields?: readonly TokenField[];
  /** Pure: the first I/O is in watch, issue or roots. */
  open(config: C, host: Host): (Source | Issuer) & Partial<Checking>;
}

/** An adapter of this repository may have more: optional capabilities, detected by presence. */
export interface Adapter<C = unknown> extends AdapterCore<C> {
  /** ConfigMaps as most installations have them, by name, for `render` without a cluster; `means` is for people. */
  readonly usual?: Readonly<
    Record<string, { readonly data: Readonly<Record<string, string>>; readonly means: string }>
  >;
  /** A configuration that reads identities from a socket, for `inspect sds`. */
  sds?(socket: SdsSocket): unknown;
  /** Each workload has its own server name, so the gateway needs a TLS context for each: `open` returns Targeting. */
  readonly sniPerTarget?: boolean;
  /** Onboarding and `doctor --pre` find the mesh in a cluster. */
  readonly discover?: Discover;
  /** The mesh has CRLs: what `open` returns is Revoking. */
  readonly revokes?: boolean;
  /** Which pods are in the mesh. */
  readonly pods?: Pods;
  /** Object checks of `doctor`. The codes have a prefix of four characters of their own. */
  readonly checks?: readonly Check<CheckedObjects>[];
  /**
   * Whether the leaf has the form of the mesh's workload names; if several adapters match, the first in the list
   * counts.
   */
  names?(leaf: { readonly uris: readonly string[]; readonly dns: readonly string[] }): boolean;
  /** The name in the certificate of a pod behind a Service, for a gateway that verifies it. */
  peer?(workload: Workload, service: string): PeerName | TargetRefusal;
  /**
   * Whether a control plane of this mesh, known by the `controllerName` of a GatewayClass, applies the policies that
   * others write for a gateway to the traffic inside of the mesh.
   */
  takesPoliciesOf?(controllerName: string): boolean;
  /** The identity that an upstream must present, if known. */
  expectedPeer?(upstream: Upstream): string | undefined;
}

export function isIssuer(opened: Source | Issuer): opened is Issuer {
  return 'issue' in opened;
}

/** How a gateway should speak to the mesh of this configuration. */
export function tlsDefaults<C>(adapter: Adapter<C>, config: C): TlsDefaults {
  return adapter.tlsFor?.(config) ?? adapter.tls;
}
