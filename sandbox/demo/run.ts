import { setMaxListeners } from 'node:events';
import { Agent as Connections, get } from 'node:http';
import { adapters } from '../../adapters/index.ts';
import { Agent } from '../../src/agent/agent.ts';
import { alone } from '../../src/agent/election.ts';
import { WritePriority } from '../../src/agent/write-order.ts';
import { type Clock, systemClock } from '../../src/async/clock.ts';
import { ALLOW_ANY, ANY } from '../../src/config/allow.ts';
import type { MeshCertificate } from '../../src/config/schema/mesh-certificate.ts';
import { validateObject } from '../../src/config/validate.ts';
import { verify } from '../../src/core/verify.ts';
import { publicationRefs } from '../../src/gateway/desired.ts';
import { gatewaysOf } from '../../src/gateway/gateway.ts';
import { readPublication } from '../../src/gateway/publication.ts';
import { gateways } from '../../src/gateways.ts';
import { reflect } from '../../src/kube/reflector.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { keyOf } from '../../src/objects/objects.ts';
import { opensslPreflight } from '../../src/preflight/preflight.ts';
import { type SandboxCluster, startCluster } from '../cluster/cluster.ts';
import { gatewayOf } from '../cluster/gateway-api.ts';
import type { ClusterMesh, GatewayTitle } from '../cluster/mesh.ts';
import { sandboxes } from '../meshes.ts';
import { Standstill } from './standstill.ts';
import { DemoState } from './state.ts';

export interface DemoOptions {
  readonly meshes: readonly string[];
  /** How long traffic flows; absent: until the signal. */
  readonly forMs?: number | undefined;
  readonly leafLifetimeMs: number;
  readonly clock?: Clock;
  readonly started?: (state: DemoState) => void;
}

/** Between two requests to one mesh by one gateway. */
const REQUEST_EVERY_MS = 40;
/** Traffic flows for this share of a leaf's life before the first root rotation. */
const SETTLE_OF_LIFE = 0.1;
/**
 * What an operator waits between the steps of a root rotation, without the time in which this process did not run: long
 * enough for every leaf to be renewed once.
 */
const PAUSE_OF_LIFE = 0.8;
/** A gateway with a batch window of a second would lag behind leaves that live for ten. */
const BATCH_MS = 250;

/** Runs a cluster, the agent, traffic and rotations in one process, until the time is over or the signal is aborted. */
export async function runDemo(options: DemoOptions, signal: AbortSignal): Promise<DemoState> {
  const { meshes, leafLifetimeMs, clock = systemClock } = options;
  const cluster = await startCluster({
    meshes,
    sandboxes,
    leafLifetimeMs,
    clock,
    gateway: { batchMs: BATCH_MS },
    gatewayApi: true,
  });
  const over = new AbortController();
  const stop = AbortSignal.any([signal, over.signal]);
  setMaxListeners(0, stop);
  try {
    const certificates = cluster.meshes.map((mesh) => validated(cluster.meshCertificate(mesh)));
    const pending = new DemoState(meshes, () => clock.now());
    const standstill = new Standstill(clock, leafLifetimeMs, pending.standstill, (ms) =>
      pending.stood(ms, leafLifetimeMs),
    );
    options.started?.(pending);
    const agent = agentOf(cluster, certificates, pending, clock).run(stop);
    const parts = [agent, standstill.watch(stop), watchPairs(cluster, certificates, pending, standstill, clock, stop)];
    await Promise.race([Promise.all([cluster.gateway.until(allSpeakMtls, stop), bothServe(cluster, stop)]), ...parts]);
    const traffic = cluster.meshes.flatMap((mesh) => [
      ...cluster
        .urlsOf(mesh)
        .map(({ gateway, url }) => sendRequests(url, mesh, gateway, pending, standstill, clock, stop)),
      rotateRoots(mesh, pending, leafLifetimeMs, standstill, stop),
    ]);
    const end = options.forMs === undefined ? forever(stop) : clock.sleep(options.forMs, stop);
    await Promise.race([end, ...parts, ...traffic]).catch(ignoreAbort(stop));
    over.abort(new Error('the demo is over'));
    await Promise.all([...parts, ...traffic].map((part) => part.catch(ignoreAbort(stop))));
    return pending;
  } catch (error) {
    if (!signal.aborted) throw error;
    return new DemoState(meshes, () => clock.now());
  } finally {
    over.abort(new Error('the demo is over'));
    await cluster.stop();
  }
}

const allSpeakMtls: Parameters<SandboxCluster['gateway']['until']>[0] = ({ configuration }) =>
  [...configuration.clusters.values()].every(({ tls }) => tls?.certificate && tls.ca);

/** Resolves once each mesh is served over mTLS by its Gateway, too. */
async function bothServe({ envoyGateway, meshes }: SandboxCluster, signal: AbortSignal): Promise<void> {
  await envoyGateway?.until(
    (running) =>
      meshes.every((mesh) => {
        const clusters = running.proxyOf(gatewayOf(mesh))?.clusters ?? [];
        return clusters.length > 0 && clusters.every(({ tls }) => tls?.client !== undefined);
      }),
    signal,
  );
}

function validated(object: object): MeshCertificate {
  const checked = validateObject(object, adapters, gateways);
  if (!checked.ok) throw new TypeError(`the demo's own MeshCertificate is wrong: ${JSON.stringify(checked.issues)}`);
  return checked.value;
}

function agentOf(
  { kube }: SandboxCluster,
  certificates: readonly MeshCertificate[],
  state: DemoState,
  clock: Clock,
): Agent {
  return new Agent({
    kube,
    adapters,
    gateways,
    async *certificates(signal) {
      yield certificates;
      await forever(signal).catch(() => {});
    },
    leadership: alone,
    batchGapMs: 2 * BATCH_MS,
    sinks: [state.sink],
    clock,
    preflight: opensslPreflight(),
    random: Math.random,
    log: silentLog,
    // The demo wrote the MeshCertificates itself.
    filesBelow: ANY,
    allow: ALLOW_ANY,
    dryRun: false,
    writePriority: new WritePriority(clock),
    observe: { by: 'labels', namespaces: [...new Set(certificates.map(({ metadata }) => metadata.namespace ?? ''))] },
  });
}

/**
 * Reads the published objects after every change, independently of the agent: the pair must verify under the bundle
 * beside it.
 */
async function watchPairs(
  { kube }: SandboxCluster,
  certificates: readonly MeshCertificate[],
  state: DemoState,
  standstill: Standstill,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const secrets = reflect(kube, RESOURCES.secrets, {}, { clock, random: Math.random, log: silentLog, signal });
  for await (const _ of secrets.changes()) {
    for (const certificate of certificates) {
      const refs = publicationRefs(certificate, gatewaysOf(certificate.spec, gateways));
      const objects = refs.flatMap((ref) => secrets.items().get(keyOf(ref)) ?? []);
      const { identity, bundle, problems } = readPublication(certificate.spec, objects);
      if (!identity) continue;
      const form = (identity.chain[0]?.names.uris.length ?? 0) > 0 ? 'spiffe' : 'dns';
      const verdict = verify(identity, [...bundle], { form }, clock.now());
      if (verdict.ok && problems.length === 0) continue;
      const ended = !verdict.ok && verdict.code === 'ERR_VERIFY_EXPIRED';
      if (standstill.explains({ since: clock.now(), ended })) {
        state.endedUnrenewed(certificate.metadata.name);
        continue;
      }
      state.of(certificate.metadata.name).broken++;
      state.event(
        certificate.metadata.name,
        `published pair is broken: ${verdict.ok ? problems[0]?.message : verdict.message}`,
      );
    }
  }
}

async function sendRequests(
  url: string,
  mesh: ClusterMesh,
  gateway: GatewayTitle,
  state: DemoState,
  standstill: Standstill,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const agent = new Connections({ keepAlive: true });
  try {
    while (!signal.aborted) {
      const [since, expired] = [clock.now(), mesh.expired()];
      const problem = await ask(url, agent);
      const ended = mesh.expired() > expired || problem?.includes('certificate has expired') === true;
      if (problem !== undefined && standstill.explains({ since, ended })) {
        state.interrupted(mesh.name, gateway, problem);
      } else state.answered(mesh.name, gateway, problem);
      await clock.sleep(REQUEST_EVERY_MS, signal);
    }
  } finally {
    agent.destroy();
  }
}

/** What went wrong, or undefined. */
function ask(url: string, agent: Connections): Promise<string | undefined> {
  return new Promise((resolve) => {
    get(url, { agent }, (response) => {
      let text = '';
      response.on('data', (part) => {
        text += part;
      });
      response.on('end', () => resolve(response.statusCode === 200 ? undefined : `${response.statusCode} ${text}`));
      response.on('error', (error) => resolve(error.message));
    }).on('error', (error) => resolve(error.message));
  });
}

async function rotateRoots(
  mesh: ClusterMesh,
  state: DemoState,
  lifeMs: number,
  standstill: Standstill,
  signal: AbortSignal,
): Promise<void> {
  await standstill.running(lifeMs * SETTLE_OF_LIFE, signal);
  for (;;) {
    state.event(mesh.name, 'root rotation starts');
    await mesh.rotateRoot(() => standstill.running(lifeMs * PAUSE_OF_LIFE, signal));
    state.of(mesh.name).rootRotations++;
    state.event(mesh.name, 'root rotation is complete');
    await standstill.running(lifeMs * PAUSE_OF_LIFE, signal);
  }
}

function forever(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

function ignoreAbort(signal: AbortSignal): (error: unknown) => void {
  return (error) => {
    if (!signal.aborted) throw error;
  };
}
