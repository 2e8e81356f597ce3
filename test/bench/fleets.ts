import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'yaml';
import { ROOT } from '../../scripts/tree.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { prepareCluster } from '../peers/parts/prepare.ts';
import { startKubeApiserver } from '../peers/servers/kube-apiserver.ts';
import { istioToken } from '../support/istio-token.ts';
import { AuditTail } from './audit-tail.ts';
import type { Api } from './parts/api.ts';
import { cpuOf } from './parts/bundle.ts';
import type { Ca } from './parts/ca.ts';
import { type Part, startPart } from './parts/part.ts';
import { Missing } from './scenario.ts';
import { inLanes } from './statistics.ts';
import { type Spent, Tally } from './tally.ts';

/** Requests at once of the client that creates what a scenario needs. */
export const CREATORS = 16;

export type ApiKind = 'kube-apiserver' | 'sandbox';
/** An API server with the definitions, empty namespaces, and istiod's CA beside it, each in its own process. */
export interface World extends AsyncDisposable {
  readonly kind: ApiKind;
  readonly kubeconfig: string;
  readonly kubeconfigFile: string;
  readonly kube: Kube;
  readonly ca: Part<Ca>;
  readonly caInfo: { readonly address: string; readonly serverName: string; readonly rootPem: string };
  readonly dir: string;
  /** A client's requests since the last call, from the server's own log. */
  spent(userAgent: string): Promise<Spent>;
  /** The same, without resetting the count. */
  look(userAgent: string): Promise<Spent>;
  /** `count` MeshCertificates `gw-0` … in this namespace; existing ones stay. */
  populate(namespace: string, count: number): Promise<void>;
  /** The mesh names these roots, PEM, in this namespace. */
  nameRoots(namespace: string, roots: readonly string[]): Promise<void>;
  /** Kills the API server, and starts it again on the same data after this time; resolves when it is ready. */
  outage(ms: number): Promise<void>;
  /** User and system milliseconds of the API server's process so far; undefined for the sandbox. */
  serverCpu(): Promise<number | undefined>;
}

/** Worlds that several scenarios share. */
export class Fleets implements AsyncDisposable {
  readonly #worlds = new Map<ApiKind, Promise<World>>();
  readonly #missing: string | undefined;

  /** `missing`: why there is no real API server here. */
  constructor(missing: string | undefined) {
    this.#missing = missing;
  }

  world(kind: ApiKind): Promise<World> {
    if (kind === 'kube-apiserver' && this.#missing !== undefined) return Promise.reject(new Missing(this.#missing));
    let world = this.#worlds.get(kind);
    if (!world) {
      world = startWorld(kind);
      this.#worlds.set(kind, world);
    }
    return world;
  }

  /** The real API server if there is one, else the sandbox's. */
  get best(): Promise<World> {
    return this.world(this.#missing === undefined ? 'kube-apiserver' : 'sandbox');
  }

  /** Not shared; with these flags of kube-apiserver in addition. */
  apart(flags: readonly string[]): Promise<World> {
    if (this.#missing !== undefined) return Promise.reject(new Missing(this.#missing));
    return startWorld('kube-apiserver', flags);
  }

  get missing(): string | undefined {
    return this.#missing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const worlds = await Promise.allSettled(this.#worlds.values());
    this.#worlds.clear();
    await Promise.all(worlds.map(async (world) => world.status === 'fulfilled' && world.value[Symbol.asyncDispose]()));
  }
}

async function startWorld(kind: ApiKind, flags: readonly string[] = []): Promise<World> {
  const dir = await mkdtemp(join(tmpdir(), 'meshcert-bench-'));
  const ca = startPart<Ca>('ca');
  const caInfo = await ca.call('start', undefined);
  const definition = parse(await readFile(join(ROOT, 'deploy/crd/meshcertificate.yaml'), 'utf8')) as KubeObject;
  const server = kind === 'kube-apiserver' ? await real(definition, flags) : await played(definition);
  const kubeconfigFile = join(dir, 'kubeconfig');
  await writeFile(kubeconfigFile, server.kubeconfig, { mode: 0o600 });
  const kube = connect({ kubeconfigText: server.kubeconfig, userAgent: 'bench' });
  const tokens = new Map<string, string>();
  const populated = new Map<string, number>();
  const nameRoots = async (namespace: string, named: readonly string[]) => {
    const metadata = { name: 'istio-ca-root-cert', namespace };
    const roots = { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'root-cert.pem': named.join('') } };
    await kube.apply(roots, { fieldManager: 'bench', force: true });
  };
  return {
    kind,
    kubeconfig: server.kubeconfig,
    kubeconfigFile,
    kube,
    ca,
    caInfo,
    dir,
    spent: server.spent,
    look: server.look,
    outage: server.outage,
    serverCpu: server.cpu,
    nameRoots,
    async populate(namespace, count) {
      if ((populated.get(namespace) ?? -1) >= count) return;
      if (!populated.has(namespace)) await server.namespace(namespace);
      const tokenFile = tokens.get(namespace) ?? join(dir, `${namespace}.token`);
      const year = Date.now() + 365 * 86_400_000;
      await writeFile(tokenFile, istioToken({ namespace, account: 'gateway', expires: year }), { mode: 0o600 });
      tokens.set(namespace, tokenFile);
      // Whether a token opens the API server is only known of an account that exists.
      const account = { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'gateway', namespace } };
      await kube.apply(account, { fieldManager: 'bench', force: true });
      await nameRoots(namespace, [caInfo.rootPem]);
      const known = populated.get(namespace) ?? 0;
      populated.set(namespace, count);
      const create = (at: number) =>
        kube.create(certificate(namespace, at, caInfo, tokenFile), { fieldManager: 'bench' });
      await inLanes(CREATORS, count, create, known);
    },
    async [Symbol.asyncDispose]() {
      kube.close();
      await Promise.all([server.stop(), ca[Symbol.asyncDispose]()]);
      await rm(dir, { recursive: true, force: true });
    },
  };
}

function certificate(namespace: string, at: number, ca: World['caInfo'], tokenFile: string): KubeObject {
  const { address, serverName } = ca;
  return {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name: `gw-${at}`, namespace },
    spec: {
      istio: { trustDomain: 'cluster.local', ca: { address, serverName, tokenFile } },
      // TLSContexts have names that are unique across namespaces.
      tlsContext: { name: `${namespace}-${at}` },
    },
  };
}

interface Server {
  readonly kubeconfig: string;
  spent(userAgent: string): Promise<Spent>;
  look(userAgent: string): Promise<Spent>;
  namespace(name: string): Promise<void>;
  outage(ms: number): Promise<void>;
  cpu(): Promise<number | undefined>;
  stop(): Promise<void>;
}

async function played(definition: KubeObject): Promise<Server> {
  const part = startPart<Api>('api');
  const kubeconfig = await part.call('start', { namespaces: [], objects: [definition] });
  const kube = connect({ kubeconfigText: kubeconfig, userAgent: 'bench' });
  return {
    kubeconfig,
    spent: (userAgent) => part.call('take', { userAgent }),
    look: (userAgent) => part.call('look', { userAgent }),
    namespace: async (name) => {
      await kube.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, { fieldManager: 'bench' });
    },
    outage: (ms) => part.call('outage', { ms }),
    cpu: async () => undefined,
    async stop() {
      kube.close();
      await part[Symbol.asyncDispose]();
    },
  };
}

/** Large enough that the audit log is never rotated while it is read. */
const UNTURNED_LOG_MB = 4096;

async function real(definition: KubeObject, flags: readonly string[]): Promise<Server> {
  const server = await startKubeApiserver({ args: [`--audit-log-maxsize=${UNTURNED_LOG_MB}`, ...flags] });
  await prepareCluster(server, {});
  await server.ensure('/apis/apiextensions.k8s.io/v1/customresourcedefinitions', definition);
  const path = '/apis/meshcert.dev/v1alpha1/meshcertificates';
  while ((await server.call('GET', path)).status !== 200) await new Promise((resolve) => setTimeout(resolve, 100));
  const tally = new Tally();
  const log = new AuditTail(server.auditLog, tally);
  const read = async () => {
    // An entry may appear a moment after its answer.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await log.read();
  };
  return {
    kubeconfig: await readFile(server.kubeconfigFile, 'utf8'),
    spent: (userAgent) => read().then(() => tally.take(userAgent)),
    look: (userAgent) => read().then(() => tally.look(userAgent)),
    namespace: (name) => server.ensureNamespace(name),
    async outage(ms) {
      await server.kill();
      await new Promise((resolve) => setTimeout(resolve, ms));
      await server.restart();
    },
    cpu: () => cpuOf(server.pid),
    stop: () => server.stop(),
  };
}
