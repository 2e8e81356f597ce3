import { adapters } from '../../adapters/index.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { Agent, type CertificateSource } from '../../src/agent/agent.ts';
import { alone, type Leadership } from '../../src/agent/election.ts';
import type { Report, Sink } from '../../src/agent/reporter.ts';
import { LogSink, StatusBoard } from '../../src/agent/sinks.ts';
import { type ControllerOptions, customResources } from '../../src/agent/source.ts';
import { StatusWriter } from '../../src/agent/status-writer.ts';
import { WritePriority } from '../../src/agent/write-order.ts';
import { ALLOW_ANY, ANY } from '../../src/config/allow.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import type { MeshCertificate } from '../../src/config/schema/mesh-certificate.ts';
import { validateObject } from '../../src/config/validate.ts';
import type { Publication } from '../../src/core/decide.ts';
import type { Preflight } from '../../src/core/preflight.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import type { Gateway } from '../../src/gateway/gateway.ts';
import { readPublication } from '../../src/gateway/publication.ts';
import { gateways as builtIn } from '../../src/gateways.ts';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import type { Adapter } from '../../src/mesh/adapter.ts';
import type { Log } from '../../src/mesh/log.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { drive } from './drive.ts';
import { FakeClock } from './fake-clock.ts';
import { anyPair } from './preflight.ts';
import { ToyMesh } from './toy-mesh.ts';

export const NAMESPACE = 'emissary';

/** A real agent on an injected clock, against the sandbox's API server and a toy mesh. */
export class AgentWorld implements AsyncDisposable {
  readonly clock: FakeClock;
  readonly mesh: ToyMesh;
  readonly api: KubeApi;
  readonly kube: Kube;
  readonly lines: string[] = [];
  board = new StatusBoard();
  /** Judges each pair in a handshake; a suite on the real time may use OpenSSL here. */
  preflight: Preflight = anyPair;
  /** The kinds of gateways that the agent knows. */
  gateways: readonly Gateway[] = builtIn;
  agent: Agent | undefined;
  #read: { readonly versions: string; readonly publication: Publication } | undefined;
  #stop = new AbortController();
  #running: Promise<void> | undefined;

  static async start(options: KubeApiOptions = {}, clock = new FakeClock()): Promise<AgentWorld> {
    const api = await startKubeApi({ clock, tls: false, namespaces: [NAMESPACE], ...options });
    return new AgentWorld(api, clock);
  }

  /** A second replica: another agent at the same API server and mesh; `leadership` determines what it may write. */
  static beside(first: AgentWorld, leadership: Leadership): AgentWorld {
    return new AgentWorld(first.api, first.clock, first.mesh, leadership);
  }

  readonly #adapters: readonly Adapter[];
  readonly #leadership: Leadership;
  readonly #isFirst: boolean;

  private constructor(api: KubeApi, clock: FakeClock, mesh?: ToyMesh, leadership = alone) {
    this.api = api;
    this.clock = clock;
    this.mesh = mesh ?? new ToyMesh(SandboxCa.root({ clock }));
    this.#adapters = [this.mesh.adapter];
    this.#leadership = leadership;
    this.#isFirst = mesh === undefined;
    this.kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
  }

  certificate(spec: Record<string, unknown> = {}): MeshCertificate {
    const result = validateObject(
      {
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata: { name: 'istio', namespace: NAMESPACE },
        spec: { istio: {}, ...spec },
      },
      this.#adapters,
      this.gateways,
    );
    if (!result.ok) throw new Error(JSON.stringify(result.issues));
    return result.value;
  }

  /** Starts an agent, like a new process: it knows only what is in the cluster. */
  run(spec: Record<string, unknown> = {}, sinks: readonly Sink[] = []): void {
    const certificate = this.certificate(spec);
    this.#run(sinks, async function* (signal) {
      yield [certificate];
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    });
  }

  /** Runs until everything is published, and returns the last report of the reconciler. */
  async report(): Promise<Report> {
    let last: Report | undefined;
    const sink: Sink = {
      status: (_status, _before, report) => {
        last = report as Report;
      },
    };
    this.run({}, [sink]);
    await this.untilReady();
    if (!last) throw new Error('nothing was reported');
    return last;
  }

  /** Like `run`, from the MeshCertificates in the cluster, and with their statuses written there. */
  follow(dryRun = false, sinks: readonly Sink[] = []): void {
    const { kube, clock, gateways } = this;
    const random = () => 0.5;
    const log = this.#log();
    const sink: Sink = {
      status: (...reported) => writer.status(...reported),
      seen: (...reported) => writer.seen(...reported),
      forget: (...reported) => writer.forget(...reported),
    };
    const certificates: CertificateSource = (signal) => {
      const options: ControllerOptions = {
        kube,
        adapters: this.#adapters,
        gateways,
        clock,
        random,
        log,
        allow: ALLOW_ANY,
        namespaces: ANY,
        leadership: this.#leadership,
        onError: () => {},
      };
      return customResources(options, signal);
    };
    this.#run([sink, ...sinks], certificates, dryRun);
    const { signal } = this.#stop;
    const writePriority = new WritePriority(clock);
    const writer = new StatusWriter({ kube, clock, random, log, leads: () => true, writePriority, signal });
  }

  /** Stores a MeshCertificate, and their definition if it is the first. */
  putCertificate(spec: Record<string, unknown> = {}, metadata: Record<string, unknown> = {}): void {
    this.api.put(customResourceDefinition(adapters, this.gateways));
    this.api.put({
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name: 'istio', namespace: NAMESPACE, ...metadata },
      spec: { istio: { ca: { address: 'istiod:15012', serviceAccount: 'emissary' } }, ...spec },
    });
  }

  #run(sinks: readonly Sink[], certificates: CertificateSource, dryRun = false): void {
    this.#stop = new AbortController();
    this.board = new StatusBoard();
    const { gateways } = this;
    const kinds = gateways.flatMap(({ resources }) => resources);
    const kube = connect({ kubeconfigText: this.api.kubeconfig(), userAgent: 'meshcert', kinds, clock: this.clock });
    const log = this.#log();
    this.agent = new Agent({
      kube,
      gateways,
      adapters: this.#adapters,
      certificates: certificates,
      leadership: this.#leadership,
      sinks: [this.board, new LogSink(log, this.clock), ...sinks],
      clock: this.clock,
      preflight: (...presented) => this.preflight(...presented),
      random: () => 0.5,
      log,
      observe: { by: 'names', namespaces: ANY },
      writePriority: new WritePriority(this.clock),
      filesBelow: ANY,
      allow: ALLOW_ANY,
      dryRun,
    });
    this.#running = this.agent.run(this.#stop.signal).finally(() => kube.close());
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('test over'));
    await this.#running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    this.kube.close();
    if (this.#isFirst) await this.api.stop();
  }

  get status(): PublicationStatus | undefined {
    return this.board.all()[0]?.status;
  }

  condition(type: string): { status: string; reason: string; message: string } | undefined {
    return this.status?.conditions.find((condition) => condition.type === type);
  }

  /** Advances the time until it holds. */
  until(what: string, done: () => boolean | Promise<boolean>, stepMs = 100): Promise<void> {
    return drive(this.clock, done, { what, stepMs });
  }

  async untilReady(): Promise<void> {
    await this.until('Ready and Published', () => {
      return this.condition('Ready')?.status === 'True' && this.condition('Published')?.status === 'True';
    });
  }

  untilCode(code: string): Promise<void> {
    return this.until(code, () => this.status?.lastError?.code === code);
  }

  secret(name: string): Promise<KubeObject | undefined> {
    return this.kube.get({ apiVersion: 'v1', kind: 'Secret', namespace: NAMESPACE, name });
  }

  context(name = 'istio'): Promise<KubeObject | undefined> {
    return this.kube.get({ apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', namespace: NAMESPACE, name });
  }

  async published(): Promise<Publication> {
    const found = await Promise.all([this.secret('istio-ca'), this.secret('istio-identity')]);
    const objects = found.filter((object) => object !== undefined);
    const versions = objects.map(({ metadata }) => `${metadata.uid} ${metadata.resourceVersion}`).join();
    // Most steps of the time change nothing, and tests ask at each.
    if (this.#read?.versions !== versions) {
      this.#read = { versions, publication: readPublication(this.certificate().spec, objects) };
    }
    return this.#read.publication;
  }

  /** Fingerprint of the published leaf. */
  async leaf(): Promise<string | undefined> {
    return (await this.published()).identity?.chain[0]?.fingerprint;
  }

  #log(): Log {
    const write = (level: string) => (fields: object, message: string) => {
      this.lines.push(`${level} ${message} ${JSON.stringify(fields)}`);
    };
    const log: Log = {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: () => log,
    };
    return log;
  }
}
