import type { KubeObject, ObjectRef } from '../../core/object.ts';
import { fields, text } from '../../gateway/kinds.ts';
import { containersOf, labelsOf, versionOf } from './workload.ts';

/** The servers of a Consul that consul-k8s installed. */
export interface ConsulFinding {
  readonly mesh: 'consul';
  readonly namespace: string;
  /** `consul-server`: of the StatefulSet and of the Service. */
  readonly name: string;
  readonly version: string | undefined;
  readonly datacenter: string;
  /** `host:port` of the servers' gRPC. */
  readonly address: string;
  readonly tls: boolean;
  /** The name that the servers' certificate carries, and who signed it (PEM), where TLS is on. */
  readonly serverName: string;
  readonly authority: string | undefined;
  /** Where ACLs are on: the auth method that consul-k8s makes for pods of the mesh. */
  readonly authMethod: string | undefined;
  readonly problem: string | undefined;
}

interface World {
  readonly workloads: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly configMaps: readonly KubeObject[];
  readonly consulAuthorities: ReadonlyMap<string, string>;
}

/** consul-k8s puts gRPC there, with or without TLS. */
const GRPC_PORT = 8502;

const isServer = (workload: KubeObject): boolean => {
  if (workload.kind !== 'StatefulSet') return false;
  const { app, component } = labelsOf(workload);
  return component === 'server' && (app === 'consul' || /(^|-)consul(-|$)/.test(workload.metadata.name));
};

/** `consul` of `consul-server`: what the chart puts before the name of everything that it makes. */
const prefixOf = (workload: KubeObject): string => workload.metadata.name.replace(/-server$/, '');

/** What has to be read beside lists. The Secret holds a certificate without its key. */
export function consulRefs(workloads: readonly KubeObject[]): { configMaps: ObjectRef[]; authorities: ObjectRef[] } {
  const servers = workloads.filter(isServer);
  const ref = (kind: string, suffix: string) => (server: KubeObject) => {
    return { apiVersion: 'v1', kind, namespace: server.metadata.namespace, name: prefixOf(server) + suffix };
  };
  return {
    configMaps: servers.map(ref('ConfigMap', '-server-config')),
    authorities: servers.map(ref('Secret', '-ca-cert')),
  };
}

export function findConsul(world: World): ConsulFinding[] {
  return world.workloads.filter(isServer).map((server): ConsulFinding => {
    const { name, namespace = '' } = server.metadata;
    const prefix = prefixOf(server);
    const config = configOf(world.configMaps, namespace, `${prefix}-server-config`);
    const [container] = containersOf(server);
    const ports = servicePorts(world.services, namespace, name);
    const configured = fields(config.merged.ports);
    const tls = Number(configured.grpc_tls ?? -1) > 0 || 'https' in ports;
    const port = Number((tls ? configured.grpc_tls : configured.grpc) ?? ports.grpc ?? GRPC_PORT);
    const datacenter = text(config.merged.datacenter) ?? 'dc1';
    const authority = world.consulAuthorities.get(`${namespace}/${prefix}-ca-cert`);
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
