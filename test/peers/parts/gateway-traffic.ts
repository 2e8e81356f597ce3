import { MeshWorkload } from '../../../sandbox/cluster/mesh.ts';
import { type SandboxUpstream, startUpstream } from '../../../sandbox/tls/upstream.ts';
import { systemClock } from '../../../src/async/clock.ts';
import type { Kube } from '../../../src/kube/api.ts';
import { connect } from '../../../src/kube/client.ts';
import type { ApplyObject } from '../servers/kube-client.ts';
import type { Server } from '../servers/process.ts';
import { type AgentInRole, startAgentInRole } from './agent-in-role.ts';
import { eventually } from './eventually.ts';
import {
  backendRef,
  configMap,
  EXTENSIONS,
  envoyProxy,
  GATEWAYS,
  type GatewayLab,
  gateway,
  pod,
  policy,
  portOf,
  route,
  SHOP,
  service,
  serviceRef,
  startGatewayLab,
  useProxy,
} from './gateway-lab.ts';
import { askingSpec, type MeshCa, startMeshCa } from './mesh-ca.ts';
import { type PairWatch, watchPair } from './pair-watch.ts';
import { prepareCluster } from './prepare.ts';

/** Where the certificate is named: values of `clientCertificate`. */
export const PLACES = ['EnvoyProxy', 'Gateway', 'Backend'] as const;
export type Place = (typeof PLACES)[number];

/** Of a leaf that lives for no longer than ten times as long. */
const RENEW_AFTER_MS = 5_000;
const ACCOUNT = 'gateway';
const WORKLOAD = 'web';
/** Another workload of the same mesh. */
const IMPOSTOR = 'api';

/** A Gateway with a certificate of its own, and the one workload behind it. */
export interface Site {
  readonly place: Place;
  readonly certificate: string;
  readonly gateway: ApplyObject;
  readonly service: string;
  /** What names it in a route: the Service, or the Backend that leads to it. */
  readonly target: ApplyObject;
  /** The policy and the ConfigMap that the agent writes, without their content. */
  readonly policy: ApplyObject;
  readonly bundle: ApplyObject;
  /** Requests that the workload behind it answers. */
  readonly url: string;
  readonly upstream: SandboxUpstream;
  readonly pair: PairWatch;
  /** Its Envoy, if it is apart. */
  readonly envoy: Server | undefined;
  /** From now on the workload presents the certificate of another one of the mesh, or again its own. */
  impersonate(on: boolean): void;
  /** The workload takes a new certificate and the current roots, as it does by itself at half of a leaf's life. */
  renew(): void;
}

/** Envoy Gateway in front of a mesh, with an agent that has exactly the permissions that the product asks for. */
export interface GatewayTraffic extends AsyncDisposable {
  readonly lab: GatewayLab;
  readonly kube: Kube;
  readonly ca: MeshCa;
  readonly agent: AgentInRole;
  readonly sites: readonly Site[];
}

export interface GatewayTrafficOptions {
  readonly places: readonly Place[];
  /** Life of a leaf of the gateway or a workload. */
  readonly leafMs: number;
  /** Envoys do not end with Envoy Gateway. */
  readonly apart?: boolean;
  /** Further fields of each MeshCertificate's spec, as lines of YAML. */
  readonly spec?: string;
}

const nameOf = (place: Place): string => place.toLowerCase();

function selectors(place: Place): string {
  const labels = `selector: {matchLabels: {mesh: ${nameOf(place)}}}`;
  if (place === 'Backend') return `    backends: {${labels}, namespaces: [${SHOP}]}`;
  return `    gateways: {${labels}}\n    services: {${labels}, namespaces: [${SHOP}]}`;
}

const document = (
  place: Place,
  ca: MeshCa,
  { leafMs, spec = '' }: GatewayTrafficOptions,
) => `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: ${nameOf(place)}, namespace: ${GATEWAYS}}
spec:
  istio: ${askingSpec(ca.istio)}
  gatewayApi:
    clientCertificate: ${place}
${selectors(place)}
  renewal: {at: ${Math.max(0.1, RENEW_AFTER_MS / leafMs)}, jitter: 0.01}
  trust: {hold: 5s, retain: ${leafMs / 1000}s}
${spec}`;

/**
 * A connection carries five requests and idles half a second at most, so that handshakes never stop. The upstreams run
 * in the process of the test, which a busy machine has stalled for longer than the usual times of ten and fifteen seconds.
 */
export const shortConnections = (name: string): ApplyObject => ({
  apiVersion: EXTENSIONS,
  kind: 'BackendTrafficPolicy',
  metadata: { name, namespace: GATEWAYS },
  spec: {
    targetRefs: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name }],
    circuitBreaker: { maxRequestsPerConnection: 5 },
    timeout: { tcp: { connectTimeout: '60s' }, http: { connectionIdleTimeout: '500ms', requestTimeout: '60s' } },
  },
});

/** Selected by the label, and in a namespace that consents. */
export const selected = (object: ApplyObject, mesh: string): ApplyObject => ({
  ...object,
  metadata: { ...object.metadata, labels: { mesh }, annotations: { 'meshcert.dev/allow-from': GATEWAYS } },
});

/** In the namespace of the target. */
const besides = ({ metadata: { namespace } }: ApplyObject, object: ApplyObject): ApplyObject => ({
  ...object,
  metadata: { ...object.metadata, namespace },
});

const hostOf = ({ metadata: { name, namespace } }: ApplyObject) => `${name}.${namespace}.svc.cluster.local`;

/** A Backend beside the Gateway, which leads to a port of a Service. */
const leadingTo = (front: ApplyObject, port: number): ApplyObject => ({
  ...{ apiVersion: EXTENSIONS, kind: 'Backend' },
  metadata: { name: front.metadata.name, namespace: GATEWAYS, labels: { mesh: nameOf('Backend') } },
  spec: { endpoints: [{ fqdn: { hostname: hostOf(front), port } }] },
});

/** Everything runs, each Gateway is live, and its workload has answered. */
export async function startGatewayTraffic(options: GatewayTrafficOptions): Promise<GatewayTraffic> {
  const opened: AsyncDisposable[] = [];
  const close = async () => {
    for (const one of opened.splice(0).reverse()) await one[Symbol.asyncDispose]();
  };
  try {
    const traffic = await build(options, (one) => {
      opened.push(one);
      return one;
    });
    return Object.defineProperty(traffic, Symbol.asyncDispose, { value: close }) as GatewayTraffic;
  } catch (error) {
    await close();
    throw error;
  }
}

async function build(
  options: GatewayTrafficOptions,
  opened: <T extends AsyncDisposable>(one: T) => T,
): Promise<Omit<GatewayTraffic, typeof Symbol.asyncDispose>> {
  const lab = opened(await startGatewayLab(options));
  const { apiserver, envoyGateway } = lab;
  await prepareCluster(apiserver, { [GATEWAYS]: [ACCOUNT] });
  const ca = opened(await startMeshCa({ apiserver, namespaces: [GATEWAYS], leafLifetimeMs: options.leafMs }));
  const kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  opened({ [Symbol.asyncDispose]: async () => kube.close() });
  const sites: Site[] = [];
  for (const place of options.places) sites.push(await site(place));
  const documents = options.places.map((place) => document(place, ca, options)).join('---\n');
  const agent = opened(await startAgentInRole(apiserver, { namespace: GATEWAYS, documents }));
  for (const one of sites) await admit(one);
  return { lab, kube, ca, agent, sites };

  async function site(place: Place): Promise<Site> {
    const name = nameOf(place);
    const { istio } = ca;
    const gatewayId = istio.idOf(GATEWAYS, ACCOUNT);
    const workload = (account: string) =>
      new MeshWorkload(systemClock, () => ({
        identity: istio.issueServer(istio.idOf(SHOP, account)),
        more: istio.roots(),
      }));
    const started = (account: string) => ({ account, held: workload(account) });
    let answering = started(WORKLOAD);
    const upstream = await startUpstream({
      identity: () => answering.held.now.identity,
      trust: () => answering.held.now.more,
      allow: (peer) => peer === gatewayId,
    });
    opened({ [Symbol.asyncDispose]: () => upstream.stop() });
    await envoyGateway.expose(upstream.port);
    const at = selected(gateway(name, place === 'EnvoyProxy' ? useProxy(name) : {}), name);
    const behind = pod(`${name}-1`, WORKLOAD);
    const [front, ...slices] = service(`web${name}`, upstream, behind, place === 'Backend' ? upstream.port : 443);
    if (!front) throw new TypeError('a Service comes first');
    const isBackend = place === 'Backend';
    const target = isBackend ? leadingTo(front, upstream.port) : selected(front, name);
    if (isBackend) await envoyGateway.resolve(hostOf(front));
    await lab.apply(
      ...(place === 'EnvoyProxy' ? [envoyProxy(name, {}, options.apart)] : []),
      ...[at, shortConnections(name), behind, front, ...slices, target],
    );
    const pair = opened(watchPair(kube, { namespace: GATEWAYS, identity: `${name}-identity`, ca: `${name}-ca` }));
    const envoy = options.apart ? opened(await envoyGateway.proxy(`${GATEWAYS}/${name}`)) : undefined;
    return {
      ...{ place, upstream, pair, envoy, gateway: at, certificate: name, service: front.metadata.name, target },
      policy: besides(target, policy(`${name}-${front.metadata.name}${isBackend ? '.backend' : '-https'}`)),
      bundle: besides(target, configMap(`${name}-ca`, {})),
      url: `http://127.0.0.1:${await envoyGateway.port(portOf(at))}/${front.metadata.name}`,
      impersonate(on) {
        answering = started(on ? IMPOSTOR : WORKLOAD);
      },
      renew() {
        answering = started(answering.account);
      },
    };
  }

  /** A route is created only once there is a policy: without one, it would send plaintext. */
  async function admit(one: Site): Promise<void> {
    const { gateway, service, target } = one;
    const isThere = async () => (await lab.read(one.policy)).kind === 'BackendTLSPolicy';
    await eventually(`a policy for ${service}`, isThere, agent.log);
    const ref = target.kind === 'Backend' ? backendRef(service) : serviceRef(service);
    await lab.apply(besides(target, route(service, [gateway], ref)));
    const answered = async () => (await fetch(one.url)).status === 200;
    await eventually(`an answer through ${one.place}`, answered, () => agent.log() + envoyGateway.log());
    const isLive = async () => {
      const found = (await agent.statuses()).find(({ name }) => name === one.certificate);
      return found?.status.conditions.find(({ type }) => type === 'Live')?.reason === 'StatusAccepted';
    };
    await eventually(`Live of ${one.certificate}`, isLive, agent.log);
  }
}
