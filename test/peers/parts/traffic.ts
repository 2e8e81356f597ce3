import { setTimeout as delay } from 'node:timers/promises';
import { bundle } from '../../../scripts/build.ts';
import { connect } from '../../../src/kube/client.ts';
import { startKubeApiserver } from '../servers/kube-apiserver.ts';
import { discard, scratchDir } from '../servers/process.ts';
import { startAgentProcess } from './agent-process.ts';
import { startEnvoyGateway } from './envoy-gateway.ts';
import { startLoad } from './load.ts';
import { type PairWatch, watchPair } from './pair-watch.ts';
import { prepareCluster } from './prepare.ts';
import { type RootRotation, rotateRoots } from './root-rotation.ts';
import { consulTraffic, GATEWAY, istioTraffic, linkerdTraffic, type TrafficMesh } from './traffic-meshes.ts';

/** A leaf lives for half a minute and is renewed every five seconds; busy machines have time to spare. */
const LEAF_MS = 30_000;
const RENEW_AT = 0.17;
/** Between the steps of a root rotation, workloads renew at half of a leaf's life, the gateway's leaf within seconds. */
const ROOTS: RootRotation = { stepMs: 17_000, everyMs: 60_000 };
const PER_SECOND = 50;
const MINUTE = 60_000;
/** Start-up and the first garbage collections are not part of a trend. */
const SETTLED = 0.25;

export interface TrafficSummary {
  readonly answered: number;
  readonly failed: number;
  readonly failures: readonly string[];
  readonly violations: readonly string[];
  /** Of each mesh. */
  readonly meshes: readonly { readonly name: string; readonly leaves: number; readonly roots: number }[];
  readonly swaps: number;
  /** Resident memory of the agent, and the part of it that is objects on the heap. */
  readonly rss: Trend;
  readonly heap: Trend;
  readonly log: string;
  readonly line: string;
}

/** Bytes: the median in the first and last quarter of the settled time, and the slope of a line through all of it. */
interface Trend {
  readonly early: number;
  readonly late: number;
  readonly slopePerMinute: number;
}

interface Sample {
  readonly at: number;
  readonly bytes: number;
}

/** Load through a real Envoy into three meshes, while leaves rotate every five seconds and roots every minute. */
export async function runTraffic(durationMs: number): Promise<TrafficSummary> {
  await using apiserver = await startKubeApiserver();
  await prepareCluster(apiserver, {
    [GATEWAY.namespace]: [GATEWAY.account],
    linkerd: [],
    'istio-apps': ['web'],
    'linkerd-apps': ['web'],
    'consul-apps': ['web'],
  });
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  await using _kube = { [Symbol.asyncDispose]: async () => kube.close() };
  const setup = { apiserver, kube, leafLifetimeMs: LEAF_MS };
  await using istio = await istioTraffic(setup);
  await using linkerd = await linkerdTraffic(setup);
  await using consul = await consulTraffic(setup);
  const meshes: readonly TrafficMesh[] = [istio, linkerd, consul];
  for (const { name } of meshes) {
    await apiserver.apply(`/apis/getambassador.io/v3alpha1/namespaces/${GATEWAY.namespace}/mappings`, mapping(name));
  }
  await using gateway = await startEnvoyGateway({
    kube,
    resolve: (host) => meshes.find(({ name }) => host === `web.${name}-apps`)?.port,
    freshEvery: 5,
  });
  const watch = ({ name, form }: TrafficMesh) =>
    watchPair(kube, { namespace: GATEWAY.namespace, identity: `${name}-identity`, ca: `${name}-ca`, form });
  await using istioPair = watch(istio);
  await using linkerdPair = watch(linkerd);
  await using consulPair = watch(consul);
  const pairs: readonly PairWatch[] = [istioPair, linkerdPair, consulPair];
  const dir = scratchDir('bundle');
  await using _dir = { [Symbol.asyncDispose]: async () => discard(dir) };
  await using agent = await startAgentProcess({
    bundle: await bundle(dir),
    kubeconfig: apiserver.kubeconfigFile,
    documents: meshes.map(document).join('---\n'),
    args: ['--namespace', GATEWAY.namespace, '--no-leader-elect', '--log-level', 'info'],
  });

  const clusters = new Map<string, string>();
  await gateway
    .until((configuration) => {
      for (const { name, host, tls } of configuration.clusters.values()) {
        if (tls?.certificate && tls.ca) clusters.set(host, name);
      }
      return clusters.size === meshes.length;
    }, 2 * MINUTE)
    .catch((error) => {
      throw new Error(`${error.message}: ${[...clusters.keys()]}\n${agent.log()}`);
    });
  const loads = [...clusters.values()].map((name) => startLoad(`${gateway.url}/`, name, PER_SECOND / meshes.length));
  const stop = new AbortController();
  await using _loads = {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await Promise.all(loads.map((load) => load.stop()));
    },
  };
  const rotating = Promise.all(meshes.map((mesh) => rotateRoots(mesh.rotateRoot, ROOTS, stop.signal)));
  rotating.catch(() => {});
  const resident: Sample[] = [];
  const used: Sample[] = [];
  const started = performance.now();
  let minutes = 5;
  while (performance.now() - started < durationMs) {
    const at = performance.now() - started;
    const metrics = await agent.metrics();
    resident.push({ at, bytes: gaugeIn(metrics, 'process_resident_memory_bytes') });
    used.push({ at, bytes: gaugeIn(metrics, 'nodejs_heap_size_used_bytes') });
    if (at > minutes * MINUTE) {
      minutes += 5;
      const counts = `${sum(loads, 'answered')} answered, ${sum(loads, 'failed')} failed`;
      const memory = [resident, used].map((samples) => mib(samples.at(-1)?.bytes ?? 0)).join(' MiB, heap ');
      const why = loads.flatMap(({ failures }) => failures).join('; ');
      console.log(`${Math.round(at / MINUTE)} min: ${counts}; ${memory} MiB ${why}`);
    }
    await Promise.race([delay(1_000), rotating]);
  }
  await Promise.all(loads.map((load) => load.stop()));
  stop.abort();
  const roots = await rotating;

  const answered = sum(loads, 'answered');
  const failed = sum(loads, 'failed');
  const seen = meshes.map(({ name }, n) => ({ name, leaves: pairs[n]?.leaves.length ?? 0, roots: roots[n] ?? 0 }));
  const rss = trendOf(resident);
  const heap = trendOf(used);
  return {
    answered,
    failed,
    failures: loads.flatMap(({ failures }, n) => failures.map((one) => `${[...clusters.keys()][n]} ${one}`)),
    violations: pairs.flatMap(({ violations }) => violations),
    meshes: seen,
    swaps: gateway.swaps,
    rss,
    heap,
    log: agent.log(),
    line:
      `traffic: ${Math.round(durationMs / 1000)} s, ${answered} answered, ${failed} failed; ` +
      `${seen.map(({ name, leaves, roots }) => `${name} ${leaves} leaves ${roots} roots`).join(', ')}; ` +
      `${gateway.swaps} configurations; agent ${described(rss)}, of it heap ${described(heap)}`,
  };
}

const mapping = (mesh: string) => ({
  apiVersion: 'getambassador.io/v3alpha1',
  kind: 'Mapping',
  metadata: { name: mesh, labels: { mesh } },
  spec: { hostname: '*', prefix: `/${mesh}/`, service: `https://web.${mesh}-apps:443` },
});

const document = ({ name, config }: TrafficMesh) => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${name}, namespace: ${GATEWAY.namespace}}
spec:
  ${name}: ${JSON.stringify(config)}
  mappings: {selector: {matchLabels: {mesh: ${name}}}}
  renewal: {at: ${RENEW_AT}, jitter: 0.01}
  trust: {hold: 5s, retain: ${LEAF_MS / 1000}s}
`;

function gaugeIn(metrics: string, name: string): number {
  const value = new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1];
  if (value === undefined) throw new Error(`the agent tells no ${name}`);
  return Number(value);
}

function trendOf(samples: readonly Sample[]): Trend {
  const settled = samples.slice(Math.floor(samples.length * SETTLED));
  const mean = (values: readonly number[]) => values.reduce((all, value) => all + value, 0) / (values.length || 1);
  const at = mean(settled.map((one) => one.at));
  const bytes = mean(settled.map((one) => one.bytes));
  const spread = settled.reduce((all, one) => all + (one.at - at) ** 2, 0);
  const slope = settled.reduce((all, one) => all + (one.at - at) * (one.bytes - bytes), 0) / (spread || 1);
  const median = (part: readonly Sample[]) =>
    part.map((one) => one.bytes).sort((a, b) => a - b)[Math.floor(part.length / 2)] ?? 0;
  const quarter = Math.ceil(settled.length / 4);
  return {
    early: median(settled.slice(0, quarter)),
    late: median(settled.slice(-quarter)),
    slopePerMinute: slope * MINUTE,
  };
}

const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);

const described = ({ early, late, slopePerMinute }: Trend): string =>
  `${mib(early)} → ${mib(late)} MiB (${(slopePerMinute / 1024).toFixed(0)} KiB a minute)`;

function sum(loads: readonly { readonly answered: number; readonly failed: number }[], what: 'answered' | 'failed') {
  return loads.reduce((all, load) => all + load[what], 0);
}
