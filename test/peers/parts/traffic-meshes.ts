import { setTimeout as delay } from 'node:timers/promises';
import { MeshWorkload } from '../../../sandbox/cluster/mesh.ts';
import { startConsul } from '../../../sandbox/consul/consul.ts';
import { startSidecar } from '../../../sandbox/consul/mesh.ts';
import { startLinkerd } from '../../../sandbox/linkerd/linkerd.ts';
import { serviceObjects } from '../../../sandbox/linkerd/objects.ts';
import { startUpstream } from '../../../sandbox/tls/upstream.ts';
import { systemClock } from '../../../src/async/clock.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { codeOf } from '../../../src/mesh/error.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import { startMeshCa } from './mesh-ca.ts';
import { overlapRoots } from './root-rotation.ts';
import { startTcpProxy } from './tcp-proxy.ts';

/** The gateway's namespace and account. */
export const GATEWAY = { namespace: 'emissary', account: 'gateway' } as const;

/** A mesh that the gateway calls into: a CA, one workload that requires mTLS, and its way to rotate roots. */
export interface TrafficMesh extends AsyncDisposable {
  readonly name: 'istio' | 'linkerd' | 'consul';
  readonly form: 'spiffe' | 'dns';
  /** `spec.<name>` of the MeshCertificate. */
  readonly config: object;
  readonly port: number;
  /** Certificates of the gateway that the workload has seen. */
  clients(): number;
  /** Why the workload last refused a connection. */
  refusal(): string | undefined;
  /**
   * One root after another, trusted before it is used and used before the old one is removed; takes four pauses at
   * most.
   */
  rotateRoot(pause: () => Promise<void>): Promise<void>;
}

export interface TrafficSetup {
  readonly apiserver: KubeApiserver;
  readonly kube: Kube;
  readonly leafLifetimeMs: number;
}

/** Makes a mesh out of servers that are stopped in reverse order: by its owner, or here when one fails to start. */
async function meshOf(
  build: (started: <T extends Stoppable>(server: T) => T) => Promise<Omit<TrafficMesh, typeof Symbol.asyncDispose>>,
): Promise<TrafficMesh> {
  const servers: Stoppable[] = [];
  const stop = async () => {
    for (const server of servers.splice(0).reverse()) await server.stop();
  };
  try {
    const mesh = await build((server) => {
      servers.push(server);
      return server;
    });
    return Object.defineProperty(mesh, Symbol.asyncDispose, { value: stop }) as TrafficMesh;
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Stoppable {
  stop(): Promise<void>;
}

export const istioTraffic = ({ apiserver, leafLifetimeMs }: TrafficSetup): Promise<TrafficMesh> =>
  meshOf(async (started) => {
    const { istio } = await startMeshCa({ apiserver, namespaces: [GATEWAY.namespace], leafLifetimeMs });
    started(istio);
    const gatewayId = istio.idOf(GATEWAY.namespace, GATEWAY.account);
    const id = istio.idOf('istio-apps', 'web');
    const sidecar = new MeshWorkload(systemClock, () => ({ identity: istio.issueServer(id), more: istio.roots() }));
    const upstream = started(
      await startUpstream({
        identity: () => sidecar.now.identity,
        trust: () => sidecar.now.more,
        allow: (peer) => peer === gatewayId,
      }),
    );
    return {
      name: 'istio',
      form: 'spiffe',
      config: { ca: { address: istio.address, serverName: istio.serverName, serviceAccount: GATEWAY.account } },
      port: upstream.port,
      clients: () => upstream.peers.size,
      refusal: () => upstream.lastFailure,
      rotateRoot: (pause) => overlapRoots(istio, pause),
    };
  });

export const consulTraffic = ({ leafLifetimeMs }: TrafficSetup): Promise<TrafficMesh> =>
  meshOf(async (started) => {
    const consul = started(await startConsul({ leafLifetimeMs }));
    const sidecar = started(await startSidecar(consul, 'web', systemClock));
    return {
      name: 'consul',
      form: 'spiffe',
      config: {
        service: 'gateway',
        datacenter: consul.datacenter,
        grpc: { addresses: [consul.grpcAddress], plaintext: true },
      },
      port: sidecar.port,
      clients: () => sidecar.peers.size,
      refusal: () => sidecar.lastFailure,
      async rotateRoot(pause) {
        consul.rotateRoot({ crossSign: true });
        await pause();
        await pause();
        consul.pruneRoots();
      },
    };
  });

/** Retries like an operator: a kept-alive connection that a busy machine loses is not part of the drill. */
function patient(kube: Kube): Kube {
  const apply: Kube['apply'] = async (object, options, signal) => {
    for (let tries = 1; ; tries++) {
      try {
        return await kube.apply(object, options, signal);
      } catch (error) {
        if (tries === 5 || codeOf(error, '') !== 'ERR_KUBE_UNREACHABLE') throw error;
      }
    }
  };
  return new Proxy(kube, {
    get(target, key) {
      if (key === 'apply') return apply;
      const value = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** A leaf becomes valid this share of its life before its issue, or it would already be due for renewal. */
const SKEW_OF_LIFE = 0.1;
/** The gateway closes its connections to a pod that gets no new ones within a second, on a busy machine later. */
const DRAIN_MS = 20_000;

export const linkerdTraffic = ({ kube, leafLifetimeMs }: TrafficSetup): Promise<TrafficMesh> =>
  meshOf(async (started) => {
    const linkerd = started(await startLinkerd({ leafLifetimeMs, skewMs: leafLifetimeMs * SKEW_OF_LIFE }));
    await linkerd.install(patient(kube));
    const identities = [linkerd.identityOf(GATEWAY.account, GATEWAY.namespace)];
    const pod = (name: string) =>
      linkerd.startPod({ name, namespace: 'linkerd-apps', serviceAccount: 'web', policy: { identities } });
    const pods = [await pod('web-1'), await pod('web-2')];
    let serving = pods[0];
    const service = { name: 'web', namespace: 'linkerd-apps', port: 443, pods, podPort: 8443, controlPlane: 'linkerd' };
    for (const object of serviceObjects(service)) await kube.apply(object, { fieldManager: 'linkerd', force: true });
    const front = await startTcpProxy(() => serving?.port ?? 0);
    started({ stop: async () => front[Symbol.asyncDispose]() });
    const rollOut = async () => {
      linkerd.restartControlPlane();
      for (const next of [pods[1], pods[0]]) {
        const drained = serving;
        serving = next;
        for (const until = performance.now() + DRAIN_MS; performance.now() < until; ) {
          await delay(200);
          if (drained && front.openTo(drained.port) === 0) break;
        }
        await drained?.restart();
      }
    };
    return {
      name: 'linkerd',
      form: 'dns',
      config: { serviceAccount: { name: GATEWAY.account }, address: linkerd.address },
      port: front.port,
      clients: () => linkerd.issued.length,
      refusal: () => undefined,
      async rotateRoot(pause) {
        await linkerd.addRoot();
        await pause();
        await rollOut();
        linkerd.rotateIssuer();
        await pause();
        await linkerd.dropOldRoots();
        await rollOut();
      },
    };
  });
