import { type Clock, systemClock } from '../../src/async/clock.ts';
import type { EmissaryEnv } from '../../src/gateway/emissary/reading.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { formatDuration } from '../../src/mesh/schema.ts';
import { type RunningGateway, startGateway } from '../emissary/gateway.ts';
import { type RunningEnvoyGateway, startEnvoyGateway } from '../envoy-gateway/gateway.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../kube/kube-api.ts';
import { gatewayApiFields, gatewayOf, installGatewayApi, serveByGateway } from './gateway-api.ts';
import {
  appsOf,
  type ClusterMesh,
  GATEWAY_ACCOUNT,
  GATEWAY_NAMESPACE,
  GATEWAY_TITLES,
  type GatewayTitle,
  type StartMesh,
  WORKLOAD,
} from './mesh.ts';

export interface ClusterOptions {
  /** Names of `sandboxes`. */
  readonly meshes: readonly string[];
  /** How each mesh starts: `sandbox/meshes.ts`. */
  readonly sandboxes: Readonly<Record<string, StartMesh>>;
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Default 24 hours. */
  readonly leafLifetimeMs?: number;
  /** Default ten years. */
  readonly rootLifetimeMs?: number;
  readonly gateway?: Partial<EmissaryEnv>;
  /** The gateway makes a new connection after this many requests, so that handshakes never stop. Default 5. */
  readonly freshEvery?: number;
  readonly api?: Pick<KubeApiOptions, 'rbac' | 'objects' | 'tls'>;
  /** Envoy Gateway runs beside the gateway, and each mesh has a Gateway; default false. */
  readonly gatewayApi?: boolean;
}

/** A whole cluster in this process: API, meshes, a workload in each, and the gateway with a Mapping to each. */
export interface SandboxCluster {
  readonly api: KubeApi;
  /** As an administrator. */
  readonly kube: Kube;
  readonly meshes: readonly ClusterMesh[];
  readonly gateway: RunningGateway;
  /** With `gatewayApi`. */
  readonly envoyGateway: RunningEnvoyGateway | undefined;
  kubeconfig(): string;
  /** What an operator would apply for a mesh: a MeshCertificate in the gateway's namespace. */
  meshCertificate(mesh: ClusterMesh, changes?: object): object;
  /** Where requests for a mesh's workload go. */
  urlOf(mesh: ClusterMesh): string;
  /** The same for each gateway. */
  urlsOf(mesh: ClusterMesh): readonly { readonly gateway: GatewayTitle; readonly url: string }[];
  stop(): Promise<void>;
}

const DAY = 86_400_000;

export async function startCluster(options: ClusterOptions): Promise<SandboxCluster> {
  const stops: (() => unknown)[] = [];
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one();
  };
  try {
    return await start(options, stops, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function start(
  options: ClusterOptions,
  stops: (() => unknown)[],
  stop: () => Promise<void>,
): Promise<SandboxCluster> {
  const { clock = systemClock, random = Math.random, leafLifetimeMs = DAY, rootLifetimeMs = 3650 * DAY } = options;
  const api = await startKubeApi({
    ...options.api,
    clock,
    namespaces: [GATEWAY_NAMESPACE, ...options.meshes.map(appsOf)],
  });
  stops.push(() => api.stop());
  api.put(serviceAccount(GATEWAY_ACCOUNT, GATEWAY_NAMESPACE));
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'sandbox', clock });
  stops.push(() => kube.close());

  if (options.gatewayApi) installGatewayApi(api);
  const meshes: ClusterMesh[] = [];
  for (const name of options.meshes) {
    const startMesh = options.sandboxes[name];
    if (!startMesh) throw new TypeError(`no sandbox for mesh ${name}`);
    api.put(serviceAccount(WORKLOAD, appsOf(name)));
    const mesh = await startMesh({ api, kube, clock, random, leafLifetimeMs, rootLifetimeMs });
    stops.push(() => mesh.stop());
    meshes.push(mesh);
    api.put(mapping(name));
    if (options.gatewayApi) await serveByGateway(api, kube, mesh);
  }
  const resolve = (host: string) => meshes.find(({ name }) => host === `${WORKLOAD}.${appsOf(name)}`)?.endpoint();
  const common = { kube, clock, random, resolve, freshEvery: options.freshEvery ?? 5 };
  const gateway = await startGateway({ ...common, env: { namespace: GATEWAY_NAMESPACE, ...options.gateway } });
  stops.push(() => gateway.stop());
  const envoyGateway = options.gatewayApi ? await startEnvoyGateway(common) : undefined;
  stops.push(() => envoyGateway?.stop());

  const urlOf = ({ name }: ClusterMesh) => `${gateway.url}/${name}/`;
  return {
    api,
    kube,
    meshes,
    gateway,
    envoyGateway,
    kubeconfig: () => api.kubeconfig(),
    urlOf,
    urlsOf(mesh) {
      const second = envoyGateway?.proxyOf(gatewayOf(mesh));
      const [one, other] = GATEWAY_TITLES;
      const urls = [{ gateway: one, url: urlOf(mesh) }];
      return second ? [...urls, { gateway: other, url: `${second.url}/${mesh.name}/` }] : urls;
    },
    meshCertificate: (mesh, changes) =>
      meshCertificate(mesh, leafLifetimeMs, {
        ...(options.gatewayApi ? { gatewayApi: gatewayApiFields(mesh) } : {}),
        ...changes,
      }),
    stop,
  };
}

function meshCertificate({ name, config }: ClusterMesh, leafLifetimeMs: number, changes: object = {}): object {
  return {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: GATEWAY_NAMESPACE },
    spec: {
      [name]: config,
      mappings: { selector: { matchLabels: { mesh: name } } },
      // Only the gateway of this cluster resolves the names of its Services.
      upstreams: { enabled: false },
      trust: { retain: formatDuration(leafLifetimeMs), hold: formatDuration(Math.min(600_000, leafLifetimeMs / 4)) },
      ...changes,
    },
  };
}

/** With `https://`: without a context the workload refuses the gateway, and nothing is sent in plaintext. */
function mapping(mesh: string): object {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'Mapping',
    metadata: { name: mesh, namespace: GATEWAY_NAMESPACE, labels: { mesh } },
    spec: { hostname: '*', prefix: `/${mesh}/`, service: `https://${WORKLOAD}.${appsOf(mesh)}:443` },
  };
}

const serviceAccount = (name: string, namespace: string): object => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name, namespace },
});
