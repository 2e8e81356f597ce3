import { adapters } from '../../adapters/index.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { sandboxes } from '../../sandbox/meshes.ts';
import { Agent } from '../../src/agent/agent.ts';
import { alone } from '../../src/agent/election.ts';
import { customResources } from '../../src/agent/source.ts';
import { StatusWriter } from '../../src/agent/status-writer.ts';
import { WritePriority } from '../../src/agent/write-order.ts';
import { ALLOW_ANY, ANY } from '../../src/config/allow.ts';
import { gateways } from '../../src/gateways.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import { silentLog } from '../../src/mesh/log.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import type { OffboardOptions } from '../../src/onboard/offboard.ts';
import type { OnboardOptions } from '../../src/onboard/plan.ts';
import { drive } from './drive.ts';
import { FakeClock } from './fake-clock.ts';
import * as made from './onboard-cluster.ts';
import { anyPair } from './preflight.ts';

export type WorldMesh = 'istio' | 'linkerd' | 'consul';

/** A sandbox cluster as onboarding finds it: meshes, a gateway, plaintext Mappings, and no trace of meshcert. */
export class OnboardWorld implements AsyncDisposable {
  readonly clock: FakeClock;
  readonly cluster: SandboxCluster;
  readonly kube: Kube;
  /** What was printed, lines and waits, in order. */
  readonly said: string[] = [];
  readonly #stop = new AbortController();
  #agent: Promise<void> | undefined;

  static start(...meshes: readonly WorldMesh[]): Promise<OnboardWorld> {
    return OnboardWorld.#start(meshes, false);
  }

  /** Beside that gateway, Envoy Gateway with a Gateway for each mesh. */
  static startWithGatewayApi(...meshes: readonly WorldMesh[]): Promise<OnboardWorld> {
    return OnboardWorld.#start(meshes, true);
  }

  static async #start(meshes: readonly WorldMesh[], gatewayApi: boolean): Promise<OnboardWorld> {
    const clock = new FakeClock(Date.now());
    return new OnboardWorld(
      clock,
      await startCluster({ meshes, sandboxes, clock, random: () => 0.5, gatewayApi, api: { rbac: true } }),
    );
  }

  private constructor(clock: FakeClock, cluster: SandboxCluster) {
    this.clock = clock;
    this.cluster = cluster;
    this.kube = connect({ kubeconfigText: cluster.kubeconfig(), userAgent: 'meshcert-onboard', clock });
    for (const object of this.#furniture()) cluster.api.put(object);
  }

  /** Starts an agent as its Deployment would: it knows only the API server. */
  runAgent(): void {
    const { clock } = this;
    const kube = connect({ kubeconfigText: this.cluster.kubeconfig(), userAgent: 'meshcert', clock });
    const random = () => 0.5;
    const log = silentLog;
    const { signal } = this.#stop;
    const writePriority = new WritePriority(clock);
    const agent = new Agent({
      kube,
      adapters,
      gateways,
      certificates: (until) =>
        customResources(
          {
            kube,
            adapters,
            gateways,
            clock,
            random,
            log,
            allow: ALLOW_ANY,
            namespaces: ['emissary'],
            leadership: alone,
            onError: () => {},
          },
          until,
        ),
      leadership: alone,
      preflight: anyPair,
      sinks: [new StatusWriter({ kube, clock, random, log, leads: () => true, writePriority, signal })],
      clock,
      random,
      log,
      observe: { by: 'names', namespaces: ANY },
      writePriority,
      dryRun: false,
      filesBelow: ANY,
      allow: ALLOW_ANY,
    });
    this.#agent = agent.run(signal).finally(() => kube.close());
  }

  options(changes: Partial<OnboardOptions> = {}): OnboardOptions {
    return {
      kube: this.kube,
      adapters,
      gateways,
      clock: this.clock,
      random: () => 0.5,
      say: this.say,
      preferences: { changes: this.changes() },
      directories: new Map(),
      probe: true,
      connectTo: new Map(
        this.cluster.meshes.flatMap((mesh) => {
          const { host, port } = mesh.endpoint();
          const hosts = [`web.${mesh.name}-apps`, `web.${mesh.name}-apps.svc.cluster.local`];
          return hosts.map((name) => [`${name}:443`, `${host}:${port}`] as const);
        }),
      ),
      gatewayUrl: this.cluster.gateway.url,
      timeoutMs: 120_000,
      settleMs: 2000,
      signal: this.#stop.signal,
      ...changes,
    };
  }

  offOptions(names: readonly string[] = []): OffboardOptions {
    return {
      kube: this.kube,
      adapters,
      gateways,
      clock: this.clock,
      say: this.say,
      namespace: 'emissary',
      names,
      signal: this.#stop.signal,
    };
  }

  readonly say = {
    line: (text: string) => void this.said.push(text),
    waiting: (text: string) => void this.said.push(`... ${text}`),
  };

  /** What discovery cannot find on a loopback address. */
  changes(): string[] {
    return this.cluster.meshes.flatMap(({ name, config }) => {
      const { ca, address, grpc } = config as {
        ca?: { address: string; serverName: string };
        address?: string;
        grpc?: { addresses: readonly string[] };
      };
      if (name === 'istio') return [`istio.ca.address=${ca?.address}`, `istio.ca.serverName=${ca?.serverName}`];
      if (name === 'linkerd') return [`linkerd.address=${address}`];
      return [`consul.grpc.addresses=[${JSON.stringify(grpc?.addresses[0])}]`];
    });
  }

  /** Advances the time until the promise settles. */
  async through<T>(promise: Promise<T>, what: string): Promise<T> {
    let settled = false;
    promise.then(
      () => {
        settled = true;
      },
      () => {
        settled = true;
      },
    );
    // Real servers answer in real time: small steps, or their time limits pass before they can.
    await drive(this.clock, () => settled, { what, stepMs: 20 });
    return promise;
  }

  async mapping(name: string): Promise<KubeObject> {
    const found = await this.kube.get({ ...MAPPING, namespace: 'emissary', name });
    if (!found) throw new Error(`Mapping ${name} is gone`);
    return found;
  }

  async status(name: WorldMesh): Promise<number> {
    const { gateway } = this.cluster;
    return (await fetch(`${gateway.url}/${name}/`)).status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('test over'));
    await this.#agent;
    this.kube.close();
    await this.cluster.stop();
  }

  /** In place of the pod that the cluster itself puts behind its Gateway. */
  #app(mesh: 'istio' | 'consul'): KubeObject[] {
    const objects = made.app(mesh, 'web', `${mesh}-apps`, 443);
    const pods = objects.filter(({ kind }) => kind === 'Pod');
    return [...objects, ...pods.map((pod) => ({ ...pod, metadata: { ...pod.metadata, name: 'web-1' } }))];
  }

  #furniture(): KubeObject[] {
    const meshes = new Set<string>(this.cluster.meshes.map(({ name }) => name));
    return [
      made.gateway({ serviceAccount: 'emissary' }),
      ...(meshes.has('istio') || meshes.has('consul')
        ? [made.namespace('istio-system'), made.namespace('consul')]
        : []),
      ...(meshes.has('istio') ? made.istiod() : []),
      ...(meshes.has('consul') ? made.consulServer() : []),
      ...(['istio', 'consul'] as const).flatMap((mesh) => (meshes.has(mesh) ? this.#app(mesh) : [])),
      ...this.cluster.meshes.map(({ name }) => plainMapping(name)),
    ];
  }
}

const MAPPING = { apiVersion: 'getambassador.io/v3alpha1', kind: 'Mapping' } as const;

/** Written by a user who knows of no mesh. */
const plainMapping = (mesh: string): KubeObject => made.mapping(mesh, 'emissary', { service: `web.${mesh}-apps:443` });
