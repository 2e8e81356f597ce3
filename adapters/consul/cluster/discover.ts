import type { ClusterObjects, Discover, Installation } from '../../../src/mesh/cluster.ts';
import { KUBERNETES_AUDIENCE } from '../../../src/mesh/input/token.ts';
import { fields, type KubeObject, type ObjectRef, text } from '../../../src/mesh/kube-object.ts';
import { containersOf, labelsOf, versionOf } from '../../../src/mesh/workload.ts';

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
