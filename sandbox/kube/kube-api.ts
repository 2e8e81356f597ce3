import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { stringify } from 'yaml';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import { SandboxCa } from '../tls/ca.ts';
import { ambassadorDefinitions } from './ambassador.ts';
import type { AuditLog } from './audit.ts';
import { type Cluster, newCluster } from './cluster.ts';
import type { Fault } from './faults.ts';
import { storageOf, type TrustBundleVersion } from './objects/kinds.ts';

import type { Stored } from './objects/object.ts';
import { notFound } from './objects/status.ts';
import { ApiServer } from './server.ts';
import { API_AUDIENCE } from './tokens.ts';

export interface KubeApiOptions {
  readonly clock?: Clock;
  /** HTTPS with its own certificate; default true. */
  readonly tls?: boolean;
  /** Watches may begin with the state, as they may since Kubernetes 1.32; default true. */
  readonly watchList?: boolean;
  /** No HTTP/2 over TLS; default false. */
  readonly http1Only?: boolean;
  /** Authorize by the stored roles; default false: every authenticated user may do everything. */
  readonly rbac?: boolean;
  /** Serve TLSContext, Mapping and the gateway's other kinds from the start; default true. */
  readonly ambassador?: boolean;
  /** Created at the start in addition to `default` and `kube-system`. */
  readonly namespaces?: readonly string[];
  /** Stored at the start, in this order: definitions, roles, whatever a test needs. */
  readonly objects?: readonly object[];
}

/** A running in-memory Kubernetes API and its controls. */
export interface KubeApi {
  readonly url: string;
  readonly caPem: string | undefined;
  /** Token of a member of `system:masters`. */
  readonly adminToken: string;
  /** YAML; for the given token, else the admin's. */
  kubeconfig(options?: { readonly token?: string; readonly namespace?: string }): string;
  writeKubeconfig(path: string, options?: { readonly token?: string; readonly namespace?: string }): Promise<void>;
  /** The requests that it received. */
  readonly requests: AuditLog;
  /** Currently open connections, and watches. */
  readonly connections: number;
  readonly watches: number;

  /** Serves ClusterTrustBundles in these versions and no other; at the start, in none. Open watches stay open. */
  serveTrustBundles(...versions: readonly TrustBundleVersion[]): void;
  /** Writes as the server itself, without authorization. */
  put(object: object): void;
  /** A token of an existing ServiceAccount for the API, with any lifetime, even a negative one. */
  tokenFor(
    serviceAccount: { readonly name: string; readonly namespace: string },
    seconds?: number,
    audience?: string,
  ): string;
  revoke(token: string): void;

  /** Cuts all connections and refuses new ones, or serves again on the same port. */
  outage(on: boolean): Promise<void>;
  /** Makes requests fail; returns a function that ends it. */
  fault(fault: Fault): () => void;
  clearFaults(): void;
  /** While on, watches are silent but stay open. */
  stallWatches(on: boolean): void;
  /** While on, open watches receive no events. */
  muteWatches(on: boolean): void;
  /** While on, watches are accepted and ended at once. */
  closeWatchesAtOnce(on: boolean): void;
  dropWatches(how?: 'end' | 'cut'): void;
  /** Forgets history: later watches from an old version get 410 in the stream; with `expireOpen`, open ones too. */
  compact(expireOpen?: boolean): void;
  bookmark(): void;
  stop(): Promise<void>;
}

/** Starts an API server on a loopback port. Nothing outlives `stop`. */
export async function startKubeApi(options: KubeApiOptions = {}): Promise<KubeApi> {
  const clock = options.clock ?? systemClock;
  const cluster = newCluster(clock, { rbac: options.rbac ?? false, watchList: options.watchList ?? true });
  const adminToken = randomBytes(16).toString('hex');
  cluster.users.set(adminToken, { username: 'admin', groups: ['system:masters', 'system:authenticated'] });
  for (const name of ['default', 'kube-system', ...(options.namespaces ?? [])]) {
    store(cluster, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  }
  if (options.ambassador ?? true) for (const definition of ambassadorDefinitions()) store(cluster, definition);
  for (const object of options.objects ?? []) store(cluster, object);

  const tls = (options.tls ?? true) ? { ...serverIdentity(), http1Only: options.http1Only ?? false } : undefined;
  const server = new ApiServer(cluster, tls);
  await server.listen();
  const url = `${tls ? 'https' : 'http'}://127.0.0.1:${server.port}`;
  const config = (access: { token?: string; namespace?: string } = {}) =>
    kubeconfig({
      url,
      caPem: tls?.caPem,
      token: access.token ?? adminToken,
      ...(access.namespace ? { namespace: access.namespace } : {}),
    });

  return {
    url,
    caPem: tls?.caPem,
    adminToken,
    kubeconfig: config,
    writeKubeconfig: (path, access) => writeFile(path, config(access), { mode: 0o600 }),
    requests: cluster.audit,
    get connections() {
      return server.connections;
    },
    get watches() {
      return cluster.watches.open;
    },
    serveTrustBundles: (...versions) => cluster.registry.serveTrustBundles(versions),
    put: (object) => store(cluster, object),
    tokenFor({ name, namespace }, seconds = 3600, audience = API_AUDIENCE) {
      const account = cluster.store.get('/serviceaccounts', namespace, name);
      if (!account) throw notFound({ group: '', plural: 'serviceaccounts', kind: 'ServiceAccount' }, name);
      return cluster.tokens.mint(account, [audience], seconds).token;
    },
    revoke(token) {
      cluster.users.delete(token);
      cluster.tokens.revoke(token);
    },
    outage: (on) => (on ? server.close() : server.listen()),
    fault: (fault) => cluster.faults.add(fault),
    clearFaults: () => cluster.faults.clear(),
    stallWatches: (on) => cluster.watches.stall(on),
    muteWatches: (on) => cluster.watches.mute(on),
    closeWatchesAtOnce: (on) => cluster.watches.closeAtOnce(on),
    dropWatches: (how) => cluster.watches.drop(how),
    compact(expireOpen = false) {
      cluster.store.compact();
      if (expireOpen) cluster.watches.expire();
    },
    bookmark: () => cluster.watches.bookmark(),
    stop: () => server.close(),
  };
}

/** Creates the object, or replaces the existing one. */
function store(cluster: Cluster, object: object): void {
  const body = object as Stored;
  const [version = '', group = ''] = body.apiVersion.split('/').reverse();
  const kind = cluster.registry
    .all()
    .find((one) => one.kind === body.kind && one.group === group && one.version === version);
  if (!kind) throw new TypeError(`${body.apiVersion} ${body.kind} is not served here`);
  const { namespace, name } = body.metadata;
  const mode = { fieldManager: 'sandbox', dryRun: false, force: true, validation: 'Ignore' } as const;
  const live = cluster.store.get(storageOf(kind), namespace, name);
  if (!live) {
    cluster.writes.create(kind, namespace, body, mode);
    return;
  }
  const { resourceVersion } = live.metadata;
  const current = { ...body, metadata: { ...body.metadata, ...(resourceVersion ? { resourceVersion } : {}) } };
  cluster.writes.update({ kind, namespace, name, subresource: undefined }, current, mode);
}

function serverIdentity(): { cert: string; key: string; caPem: string } {
  const ca = SandboxCa.root({ name: 'Sandbox Kubernetes' });
  const { chain, key } = ca.identity({
    dns: ['localhost', 'kubernetes.default.svc'],
    ips: ['127.0.0.1'],
    lifetimeMs: 365 * 86_400_000,
  });
  return { cert: chain.map((certificate) => certificate.pem).join(''), key: key.toPem(), caPem: ca.certificate.pem };
}

interface KubeconfigAccess {
  readonly url: string;
  readonly caPem: string | undefined;
  readonly token: string;
  readonly namespace?: string;
}

/** A kubeconfig with one cluster, one user and one context, all named `sandbox`. */
function kubeconfig({ url, caPem, token, namespace }: KubeconfigAccess): string {
  const trust =
    caPem === undefined
      ? { 'insecure-skip-tls-verify': true }
      : { 'certificate-authority-data': Buffer.from(caPem).toString('base64') };
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'sandbox', cluster: { server: url, ...trust } }],
    users: [{ name: 'sandbox', user: { token } }],
    contexts: [
      { name: 'sandbox', context: { cluster: 'sandbox', user: 'sandbox', ...(namespace ? { namespace } : {}) } },
    ],
    'current-context': 'sandbox',
  });
}
