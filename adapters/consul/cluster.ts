import {
  type ClusterObjects,
  containerNames,
  containersOf,
  type Discover,
  type Installation,
  labelsOf,
  type Pods,
  versionOf,
  workloadSpec,
} from '../../src/mesh/cluster.ts';
import { KUBERNETES_AUDIENCE } from '../../src/mesh/input.ts';
import type { Check, CheckedObjects } from '../../src/mesh/object-check.ts';
import { fields, type KubeObject, type ObjectRef, text } from '../../src/objects/objects.ts';

export const checks: readonly Check<CheckedObjects>[] = [
  {
    code: 'MC4001',
    severity: 'warning',
    title: 'The name of the Consul service differs from the account that logs in',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const consul = fields(fields(object.spec).consul);
        const account = text(fields(fields(fields(consul.auth).login).serviceAccount).name);
        const service = text(consul.service) ?? 'ambassador';
        if (!account || account === service) continue;
        yield {
          object,
          message: `the default binding rule of consul-k8s lets the token of ${account} write only the service ${account}; Consul refuses to sign for ${service} with PERMISSION_DENIED`,
          fix: `set spec.consul.service to ${account}, annotate the account with consul.hashicorp.com/service-name: ${service}, or add a binding rule`,
        };
      }
    },
  },
  {
    code: 'MC4002',
    severity: 'warning',
    title: 'A Consul token is sent in plaintext',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const consul = fields(fields(object.spec).consul);
        const address = text(fields(consul.http).address) ?? '';
        const clear =
          (address.startsWith('http://') && !/^http:\/\/(127\.|localhost|\[::1\])/.test(address)) ||
          fields(consul.grpc).plaintext === true;
        if (consul.auth === undefined || !clear) continue;
        yield {
          object,
          message:
            'the connection has no TLS: whoever can read the traffic can act as the gateway in the mesh, and over HTTP also reads its private key',
          fix: 'use the HTTPS port (8501 by convention), or gRPC with TLS',
        };
      }
    },
  },
  {
    code: 'MC4003',
    severity: 'warning',
    title: 'The gRPC address of Consul has the port of the HTTP API',
    *run({ all }) {
      for (const object of all('MeshCertificate')) {
        const grpc = fields(fields(fields(object.spec).consul).grpc);
        const addresses = Array.isArray(grpc.addresses) ? grpc.addresses.map(String) : [];
        const http = addresses.filter((address) => /:850[01]$/.test(address));
        if (http.length === 0) continue;
        yield {
          object,
          message: `${http.join(', ')} is the HTTP API; gRPC is on 8502 (consul-k8s, with or without TLS) or 8503 (other servers, with TLS)`,
          fix: 'use the gRPC port, or use spec.consul.http',
        };
      }
    },
  },
];

type Env = Readonly<Record<string, string | undefined>>;

/** A setting of the old connector, or of Consul's own clients, that cannot be supported. */
export class ConsulConnectorError extends Error {
  override readonly name = 'ConsulConnectorError';
  readonly code = 'ERR_CONFIG_CONNECTOR';
}

/** The TLSContext name in Ambassador's manifest for the connector, whatever its ID. */
const TLS_CONTEXT = 'ambassador-consul';

const UNSUPPORTED: Readonly<Record<string, string>> = {
  CONSUL_HTTP_AUTH: 'HTTP basic authentication is not supported; use CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE',
  CONSUL_CLIENT_CERT:
    'client certificates are not supported; set verify_incoming = false for HTTPS in Consul, and use a token',
  CONSUL_CLIENT_KEY:
    'client certificates are not supported; set verify_incoming = false for HTTPS in Consul, and use a token',
  CONSUL_CAPATH: 'a directory of CAs is not supported; name one file in CONSUL_CACERT',
};

const ADDRESS = '_CONSUL_HOST, _CONSUL_PORT or CONSUL_HTTP_ADDR';
/** The variables that decide a field of the MeshCertificate, or the fields below it. */
const VARIABLES: Readonly<Record<string, string>> = {
  'metadata.namespace': '_AMBASSADOR_TLS_SECRET_NAMESPACE',
  'spec.secretName': '_AMBASSADOR_TLS_SECRET_NAME',
  'spec.consul.http.tls.ca': 'CONSUL_CACERT',
  'spec.consul.http.tls.serverName': 'CONSUL_TLS_SERVER_NAME',
  'spec.consul.http': ADDRESS,
  'spec.consul.auth.tokenFile': 'CONSUL_HTTP_TOKEN_FILE',
  'spec.consul.auth': 'CONSUL_HTTP_TOKEN',
  'spec.consul.namespace': 'CONSUL_NAMESPACE',
  'spec.consul.partition': 'CONSUL_PARTITION',
};
/** The names that are left come from this one. */
const ID = '_AMBASSADOR_ID';

/** The error for a MeshCertificate from these variables that the schema refuses. */
export function refusedVariables(issues: readonly { readonly path: string; readonly message: string }[]): Error {
  const variableOf = (path: string) =>
    Object.entries(VARIABLES).find(([field]) => path === field || path.startsWith(`${field}.`))?.[1] ?? ID;
  const problems = new Set(issues.map(({ path, message }) => `${variableOf(path)}: ${message} (${path})`));
  return new ConsulConnectorError([...problems].join('; '));
}

/**
 * The MeshCertificate, without `apiVersion` and `kind`, that does what Ambassador's Consul connector did under this
 * environment: the same service name, Secret and TLSContext, and the CA Secret that it never made. Variables:
 * `_CONSUL_HOST`, `_CONSUL_PORT`, `_AMBASSADOR_ID`, `_AMBASSADOR_TLS_SECRET_NAME`, `_AMBASSADOR_TLS_SECRET_NAMESPACE`,
 * and those of Consul's Go client, which the connector was built on. `namespace` is the pod's own.
 */
export function connectorDocument(env: Env, namespace: string): object {
  for (const [name, why] of Object.entries(UNSUPPORTED))
    if (env[name]) throw new ConsulConnectorError(`${name}: ${why}`);
  const id = env._AMBASSADOR_ID ?? '';
  const service = id === '' ? 'ambassador' : `ambassador-${id}`;
  const auth = authOf(env);
  return {
    metadata: { name: `${service}-consul`, namespace: env._AMBASSADOR_TLS_SECRET_NAMESPACE || namespace },
    spec: {
      consul: {
        service,
        http: httpOf(env),
        ...(auth ? { auth } : {}),
        ...(env.CONSUL_NAMESPACE ? { namespace: env.CONSUL_NAMESPACE } : {}),
        ...(env.CONSUL_PARTITION ? { partition: env.CONSUL_PARTITION } : {}),
      },
      secretName: env._AMBASSADOR_TLS_SECRET_NAME || `${service}-consul-connect`,
      caSecretName: `${service}-consul-ca`,
      tlsContext: { name: TLS_CONTEXT, ...(id === '' ? {} : { ambassadorIds: [id] }) },
    },
  };
}

function httpOf(env: Env): object {
  const address = addressOf(env);
  if (!address.startsWith('https:')) return { address };
  if (env.CONSUL_HTTP_SSL_VERIFY && !isTrue('CONSUL_HTTP_SSL_VERIFY', env.CONSUL_HTTP_SSL_VERIFY)) {
    throw new ConsulConnectorError('CONSUL_HTTP_SSL_VERIFY: Consul is always verified; name its CA in CONSUL_CACERT');
  }
  const serverName = env.CONSUL_TLS_SERVER_NAME;
  const tls = {
    ...(env.CONSUL_CACERT ? { ca: { file: env.CONSUL_CACERT } } : {}),
    ...(serverName ? { serverName } : {}),
  };
  return Object.keys(tls).length > 0 ? { address, tls } : { address };
}

/** The connector's own two variables override CONSUL_HTTP_ADDR, as they did there. */
function addressOf(env: Env): string {
  const ssl = env.CONSUL_HTTP_SSL ? isTrue('CONSUL_HTTP_SSL', env.CONSUL_HTTP_SSL) : false;
  const own = env._CONSUL_HOST || env._CONSUL_PORT;
  const given = own ? undefined : env.CONSUL_HTTP_ADDR;
  const address = given || `${bracketed(env._CONSUL_HOST || '127.0.0.1')}:${env._CONSUL_PORT || '8500'}`;
  if (/^(https?|unix):\/\//.test(address)) return ssl ? address.replace(/^http:/, 'https:') : address;
  return `${ssl ? 'https' : 'http'}://${address}`;
}

function bracketed(host: string): string {
  return host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
}

/** As in Consul's client, the file overrides the value. */
function authOf(env: Env): object | undefined {
  if (env.CONSUL_HTTP_TOKEN_FILE) return { tokenFile: env.CONSUL_HTTP_TOKEN_FILE };
  return env.CONSUL_HTTP_TOKEN ? { token: env.CONSUL_HTTP_TOKEN } : undefined;
}

/** Go's spelling of booleans. */
function isTrue(name: string, text: string): boolean {
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new ConsulConnectorError(`${name}: expected true or false`);
}

/** The servers of a Consul that consul-k8s installed. */
interface ConsulInstallation extends Installation {
  /** `consul-server`: of the StatefulSet and of the Service. */
  readonly name: string;
  readonly datacenter: string;
  /** `host:port` of the servers' gRPC. */
  readonly address: string;
  readonly tls: boolean;
  /** The name in the servers' certificate, and its issuer (PEM), if TLS is on. */
  readonly serverName: string;
  readonly authority: string | undefined;
  /** If ACLs are on: the auth method that consul-k8s makes for pods of the mesh. */
  readonly authMethod: string | undefined;
}

/** consul-k8s uses this port for gRPC, with or without TLS. */
const GRPC_PORT = 8502;

const isServer = (workload: KubeObject): boolean => {
  if (workload.kind !== 'StatefulSet') return false;
  const { app, component } = labelsOf(workload);
  return component === 'server' && (app === 'consul' || /(^|-)consul(-|$)/.test(workload.metadata.name));
};

/** `consul` of `consul-server`: the prefix that the chart puts before all names. */
const prefixOf = (workload: KubeObject): string => workload.metadata.name.replace(/-server$/, '');

/** The configuration of the servers, and the certificate of their API's CA. */
const reads = ({ workloads }: Pick<ClusterObjects, 'workloads'>): ObjectRef[] =>
  workloads.filter(isServer).flatMap((server) => {
    const { namespace } = server.metadata;
    const prefix = prefixOf(server);
    return [
      { apiVersion: 'v1', kind: 'ConfigMap', namespace, name: `${prefix}-server-config` },
      { apiVersion: 'v1', kind: 'Secret', namespace, name: `${prefix}-ca-cert` },
    ];
  });

export function findConsul(objects: ClusterObjects): ConsulInstallation[] {
  return objects.workloads.filter(isServer).map((server): ConsulInstallation => {
    const { name, namespace = '' } = server.metadata;
    const prefix = prefixOf(server);
    const config = configOf(objects.configMaps, namespace, `${prefix}-server-config`);
    const [container] = containersOf(server);
    const ports = servicePorts(objects.services, namespace, name);
    const configured = fields(config.merged.ports);
    const tls = Number(configured.grpc_tls ?? -1) > 0 || 'https' in ports;
    const port = Number((tls ? configured.grpc_tls : configured.grpc) ?? ports.grpc ?? GRPC_PORT);
    const datacenter = text(config.merged.datacenter) ?? 'dc1';
    const authority = objects.certificates.get(`${namespace}/${prefix}-ca-cert`);
    return {
      mesh: 'consul',
      namespace,
      name,
      version: versionOf(container?.image),
      datacenter,
      address: `${name}.${namespace}.svc:${port}`,
      tls,
      serverName: `server.${datacenter}.${text(config.merged.domain) ?? 'consul'}`,
      authority,
      authMethod: config.acls ? `${prefix}-k8s-auth-method` : undefined,
      problem:
        tls && authority === undefined
          ? `the Secret ${namespace}/${prefix}-ca-cert could not be read: give its certificate with --set consul.grpc.tls.ca.file=PATH`
          : undefined,
    };
  });
}

/** The chart's ConfigMap has one JSON file for each concern; Consul merges them. */
function configOf(configMaps: readonly KubeObject[], namespace: string, name: string) {
  const found = configMaps.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);
  const merged: Record<string, unknown> = {};
  for (const part of Object.values(fields(found?.data))) Object.assign(merged, parsed(part));
  return { merged, acls: fields(merged.acl).enabled === true };
}

function parsed(part: unknown): Readonly<Record<string, unknown>> {
  try {
    return fields(JSON.parse(String(part)));
  } catch {
    return {};
  }
}

function servicePorts(services: readonly KubeObject[], namespace: string, name: string): Record<string, number> {
  const service = services.find(({ metadata }) => metadata.name === name && metadata.namespace === namespace);
  const { ports = [] } = (service?.spec ?? {}) as { ports?: readonly { name?: string; port: number }[] };
  return Object.fromEntries(ports.map((one) => [one.name ?? '', one.port]));
}

export const discover: Discover<ConsulInstallation> = {
  sign: 'a Consul server',
  configMaps: [],
  reads,
  installations: findConsul,
  show({ namespace, name, version, datacenter, address, tls, serverName, authMethod }) {
    const acls = authMethod === undefined ? 'no ACLs' : `ACLs, auth method ${authMethod}`;
    return [
      `servers${version === undefined ? '' : ` ${version}`} ${namespace}/${name}, datacenter ${datacenter}`,
      `gRPC ${address} ${tls ? `with TLS (${serverName})` : 'without TLS'}, ${acls}`,
    ];
  },
  configFor: ({ authMethod, datacenter, address, tls, authority, serverName }, serviceAccount) => ({
    // The chart's binding rule names a pod's service after its ServiceAccount.
    ...(authMethod === undefined ? {} : { service: serviceAccount }),
    datacenter,
    grpc: {
      addresses: [address],
      ...(tls ? { tls: { ...(authority ? { ca: { inline: authority } } : {}), serverName } } : { plaintext: true }),
    },
    ...(authMethod === undefined
      ? {}
      : { auth: { login: { method: authMethod, serviceAccount, audience: KUBERNETES_AUDIENCE } } }),
  }),
};

const STATUS = 'consul.hashicorp.com/connect-inject-status';
const INJECT = 'consul.hashicorp.com/connect-inject';

export const pods: Pods = {
  membership(pod) {
    const { labels = {}, annotations = {} } = pod.metadata;
    const injected =
      labels[STATUS] === 'injected' ||
      annotations[STATUS] === 'injected' ||
      containerNames(pod).has('consul-dataplane');
    return injected ? { name: 'consul' } : undefined;
  },
  injected(workload) {
    const { labels = {}, annotations = {} } = workloadSpec(workload).template?.metadata ?? {};
    return (labels[INJECT] ?? annotations[INJECT]) === 'true';
  },
  notInjected: {},
};
