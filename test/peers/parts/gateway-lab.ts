import { X509Certificate } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer } from 'node:net';
import type { SecureContextOptions, TLSSocket, TlsOptions } from 'node:tls';
import type { KeyPair } from '../servers/authority.ts';
import {
  type EnvoyGatewayOptions,
  type EnvoyGatewayServer,
  GATEWAY_CLASS,
  proxySettings,
  startEnvoyGatewayServer,
} from '../servers/envoy-gateway.ts';
import { type KubeApiserver, startKubeApiserver } from '../servers/kube-apiserver.ts';
import type { ApplyObject } from '../servers/kube-client.ts';

/** The namespace of Gateways, and that of Services and routes. */
export const GATEWAYS = 'gw';
export const SHOP = 'shop';
const GATEWAY_API = 'gateway.networking.k8s.io/v1';
export const EXTENSIONS = 'gateway.envoyproxy.io/v1alpha1';

const PLURALS: Readonly<Record<string, string>> = {
  Gateway: 'gateways',
  HTTPRoute: 'httproutes',
  BackendTLSPolicy: 'backendtlspolicies',
  ReferenceGrant: 'referencegrants',
  EnvoyProxy: 'envoyproxies',
  Backend: 'backends',
  BackendTrafficPolicy: 'backendtrafficpolicies',
  EndpointSlice: 'endpointslices',
  Pod: 'pods',
  Service: 'services',
  Secret: 'secrets',
  ConfigMap: 'configmaps',
  Deployment: 'deployments',
  StatefulSet: 'statefulsets',
};

export interface Condition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration?: number;
}

/** An API server and Envoy Gateway, with short forms of what its tests do to both. */
export interface GatewayLab extends AsyncDisposable {
  readonly apiserver: KubeApiserver;
  readonly envoyGateway: EnvoyGatewayServer;
  apply(...objects: readonly ApplyObject[]): Promise<void>;
  remove(object: ApplyObject): Promise<void>;
  read(object: ApplyObject): Promise<ApplyObject & { readonly status?: unknown }>;
  /** A request through a Gateway; the upstream's answer if it gives one. */
  ask(gateway: ApplyObject, path: string): Promise<{ readonly status: number; readonly seen: Seen | undefined }>;
  /**
   * Asks, and gives the reason that Envoy logged for its 503; empty: another answer. A route whose cluster is not ready
   * yet is refused too (`NC`), so ask until the expected reason comes.
   */
  refusal(gateway: ApplyObject, path: string): Promise<string>;
}

export async function startGatewayLab(options: EnvoyGatewayOptions = {}): Promise<GatewayLab> {
  const apiserver = await startKubeApiserver();
  const envoyGateway = await startEnvoyGatewayServer(apiserver, options).catch(async (error) => {
    await apiserver.stop();
    throw error;
  });
  await Promise.all([GATEWAYS, SHOP].map((name) => apiserver.ensureNamespace(name)));
  return {
    apiserver,
    envoyGateway,
    async apply(...objects) {
      for (const object of objects) await apiserver.apply(collection(object), object);
    },
    async remove(object) {
      const path = `${collection(object)}/${object.metadata.name}`;
      const { status, body } = await apiserver.call('DELETE', path);
      if (status !== 200) throw new Error(`DELETE ${path}: ${status} ${body?.message}`);
    },
    read: async (object) => (await apiserver.call('GET', `${collection(object)}/${object.metadata.name}`)).body,
    async ask(gateway, path) {
      const { status, body } = await envoyGateway.get(portOf(gateway), path);
      return { status, seen: status === 200 ? (JSON.parse(body) as Seen) : undefined };
    },
    async refusal(gateway, path) {
      if ((await envoyGateway.get(portOf(gateway), path)).status !== 503) return '';
      const { response_flags, upstream_transport_failure_reason } = await envoyGateway.logged(path);
      return `${response_flags} ${upstream_transport_failure_reason ?? ''}`;
    },
    async [Symbol.asyncDispose]() {
      await envoyGateway.stop();
      await apiserver.stop();
    },
  };
}

function collection({ apiVersion, kind, metadata }: ApplyObject): string {
  const plural = PLURALS[kind];
  if (!plural) throw new Error(`no plural of ${kind}`);
  return `${apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`}/namespaces/${metadata.namespace}/${plural}`;
}

/** What an upstream saw of a request. */
export interface Seen {
  readonly tls: boolean;
  /** The serial number of the client's certificate; null if it showed none. */
  readonly serial: string | null;
  readonly sni: string | null;
  readonly alpn: string | null;
  readonly version: string | null;
}

export interface Upstream extends AsyncDisposable {
  readonly port: number;
}

export interface UpstreamOptions {
  readonly leaf: KeyPair;
  /** The roots of its clients, PEM. */
  readonly roots: string;
  /** It asks for a certificate and accepts none too. */
  readonly merelyAsks?: boolean;
  /** A name in Linkerd: it takes only TLS 1.3 for that name, as a proxy of Linkerd does. */
  readonly proxyOf?: string;
  /** Connections stay open. Default: one request each, so that each request shows the certificate in use. */
  readonly keepAlive?: boolean;
}

/** A server that demands a client certificate; on the same port it answers plaintext, and says so. */
export async function startUpstream(options: UpstreamOptions): Promise<Upstream> {
  const { leaf, roots, merelyAsks, keepAlive, proxyOf } = options;
  const plain = createHttpServer((_, response) => {
    response.setHeader('connection', 'close');
    response.end(JSON.stringify({ tls: false, serial: null, sni: null, alpn: null, version: null }));
  });
  const secure = createHttpsServer(
    {
      cert: leaf.chain,
      key: leaf.key,
      ca: roots,
      requestCert: true,
      rejectUnauthorized: !merelyAsks,
      ...(proxyOf === undefined ? {} : onlyFor(proxyOf)),
      ALPNProtocols: ['istio-http/1.1', 'http/1.1'],
    },
    (request, response) => {
      const socket = request.socket as TLSSocket;
      const seen: Seen = {
        tls: true,
        serial: socket.getPeerX509Certificate()?.serialNumber ?? null,
        sni: (socket as { servername?: string }).servername || null,
        alpn: socket.alpnProtocol || null,
        version: socket.getProtocol(),
      };
      if (!keepAlive) response.setHeader('connection', 'close');
      response.end(JSON.stringify(seen));
    },
  );
  if (keepAlive) secure.keepAliveTimeout = 0;
  const server = createServer((socket) => {
    socket.once('error', () => socket.destroy());
    socket.once('data', (first) => {
      socket.pause();
      socket.unshift(first);
      (first[0] === 0x16 ? secure : plain).emit('connection', socket);
      process.nextTick(() => socket.resume());
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    port,
    async [Symbol.asyncDispose]() {
      secure.closeAllConnections();
      plain.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const onlyFor = (proxyOf: string): SecureContextOptions & TlsOptions => ({
  minVersion: 'TLSv1.3',
  // Without a context, that of the server is used.
  SNICallback: (name, done) => done(name === proxyOf ? null : new Error(`${name} is not ${proxyOf}`)),
});

export const serialOf = ({ certificate }: KeyPair): string => new X509Certificate(certificate).serialNumber;

const meta = (name: string, namespace: string) => ({ name, namespace });

export const secret = (name: string, pair: KeyPair, namespace = GATEWAYS): ApplyObject => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: meta(name, namespace),
  type: 'kubernetes.io/tls',
  stringData: { 'tls.crt': pair.chain, 'tls.key': pair.key },
});

export const configMap = (name: string, data: Readonly<Record<string, string>>): ApplyObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: meta(name, SHOP),
  data,
});

let nextPort = 8_800;

/** A Gateway with one listener on a port of its own in Envoy Gateway's network. */
export const gateway = (name: string, spec: object = {}): ApplyObject => ({
  apiVersion: GATEWAY_API,
  kind: 'Gateway',
  metadata: meta(name, GATEWAYS),
  spec: {
    gatewayClassName: GATEWAY_CLASS,
    listeners: [{ name: 'http', protocol: 'HTTP', port: nextPort++, allowedRoutes: { namespaces: { from: 'All' } } }],
    ...spec,
  },
});

export function portOf(object: ApplyObject): number {
  return (object.spec as { listeners: readonly { port: number }[] }).listeners[0]?.port ?? 0;
}

export const fromSecret = (name: string, namespace?: string) => ({
  clientCertificateRef: { group: '', kind: 'Secret', name, ...(namespace ? { namespace } : {}) },
});

/** It replaces the one of the GatewayClass, so that it says how Envoy runs, too. */
export const envoyProxy = (name: string, backendTLS: object, apart = false): ApplyObject => ({
  apiVersion: EXTENSIONS,
  kind: 'EnvoyProxy',
  metadata: meta(name, GATEWAYS),
  spec: { ...proxySettings(apart), backendTLS },
});

export const useProxy = (name: string) => ({
  infrastructure: { parametersRef: { group: 'gateway.envoyproxy.io', kind: 'EnvoyProxy', name } },
});

/** A Service with one port, named `https`, and its endpoint: an upstream on the loopback, as that of a pod if given. */
export function service(
  name: string,
  { port }: { readonly port: number },
  pod?: ApplyObject,
  servicePort = 443,
): ApplyObject[] {
  const targetRef = pod && { targetRef: { kind: 'Pod', name: pod.metadata.name, namespace: SHOP } };
  return [
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: meta(name, SHOP),
      spec: { clusterIP: 'None', ports: [{ name: 'https', port: servicePort, targetPort: port }] },
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { ...meta(name, SHOP), labels: { 'kubernetes.io/service-name': name } },
      // A slice refuses loopback addresses; this name resolves to one.
      addressType: 'FQDN',
      ports: [{ name: 'https', port }],
      endpoints: [{ addresses: ['web.localhost'], conditions: { ready: true }, ...targetRef }],
    },
  ];
}

/** It never runs: it says which ServiceAccount is behind a Service. */
export const pod = (name: string, serviceAccountName: string): ApplyObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: meta(name, SHOP),
  spec: { serviceAccountName, containers: [{ name: 'web', image: 'web' }] },
});

export const backend = (name: string, { port }: { readonly port: number }, tls?: object): ApplyObject => ({
  apiVersion: EXTENSIONS,
  kind: 'Backend',
  metadata: meta(name, SHOP),
  spec: { endpoints: [{ ip: { address: '127.0.0.1', port } }], ...(tls ? { tls } : {}) },
});

/** Lets routes of the workloads' namespace lead to a Backend of the Gateways' one. */
export const backendGrant = (name: string): ApplyObject => ({
  ...{ apiVersion: 'gateway.networking.k8s.io/v1', kind: 'ReferenceGrant' },
  metadata: { name, namespace: GATEWAYS },
  spec: {
    from: [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace: SHOP }],
    to: [{ group: 'gateway.envoyproxy.io', kind: 'Backend', name }],
  },
});

export const serviceRef = (name: string) => ({ group: '', kind: 'Service', name });
export const backendRef = (name: string) => ({ group: 'gateway.envoyproxy.io', kind: 'Backend', name });

/** Requests below `/NAME` go to the Service of that name, or to another target. */
export const route = (
  name: string,
  gateways: readonly ApplyObject[],
  target: object = serviceRef(name),
): ApplyObject => ({
  apiVersion: GATEWAY_API,
  kind: 'HTTPRoute',
  metadata: meta(name, SHOP),
  spec: {
    parentRefs: gateways.map(({ metadata }) => ({ name: metadata.name, namespace: GATEWAYS })),
    rules: [
      {
        matches: [{ path: { type: 'PathPrefix', value: `/${name}` } }],
        backendRefs: [{ ...target, port: 443 }],
      },
    ],
  },
});

export interface PolicyOptions {
  readonly target?: object;
  readonly ca?: string;
  readonly hostname?: string;
  /** URIs; absent: none. */
  readonly sans?: readonly string[];
}

export const policy = (name: string, options: PolicyOptions = {}): ApplyObject => ({
  apiVersion: GATEWAY_API,
  kind: 'BackendTLSPolicy',
  metadata: meta(name, SHOP),
  spec: {
    targetRefs: [options.target ?? { ...serviceRef(name), sectionName: 'https' }],
    validation: {
      caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: options.ca ?? 'mesh-ca' }],
      hostname: options.hostname ?? 'web.shop.svc.cluster.local',
      ...(options.sans ? { subjectAltNames: options.sans.map((uri) => ({ type: 'URI', uri })) } : {}),
    },
  },
});
