import { parse, YAMLParseError } from 'yaml';
import { MeshError } from '../../src/mesh/error.ts';
import { requireShallowYaml } from '../../src/mesh/input/untrusted-text.ts';
import type { LinkerdConfig } from './config.ts';
import type { ObjectReader } from './watched.ts';

/** What must be known about an installation of Linkerd before the first request. */
export interface ControlPlane {
  readonly namespace: string;
  readonly trustDomain: string;
  /** `host:port` of the identity service. */
  readonly address: string;
  /** Ports that proxies pass through unread unless a pod configures otherwise. */
  readonly opaquePorts: PortSet;
  /** Ports that never reach a proxy unless a pod configures otherwise. */
  readonly skippedPorts: PortSet;
}

/** The chart's `proxy.opaquePorts`: protocols in which the server speaks first. */
const DEFAULT_OPAQUE = '25,587,3306,4444,5432,6379,9300,11211';
/** The chart's `proxyInit.ignoreInboundPorts`: those of Galera. */
const DEFAULT_SKIPPED = '4567,4568';
const LONGEST_VALUES = 1024 * 1024;

export const controlPlane: ObjectReader<ControlPlane> = {
  ref: (config) => ({ name: 'linkerd-config', namespace: config.controlPlaneNamespace }),
  decidedBy: ({ trustDomain, clusterDomain, address }) => [trustDomain, clusterDomain, address],
  read: readControlPlane,
};

/**
 * Reads ConfigMap linkerd-config, `undefined` if it does not exist: then the configuration must name both domains. The
 * trust domain is the cluster domain unless Linkerd names another.
 */
export function readControlPlane(
  config: LinkerdConfig,
  data: Readonly<Record<string, string>> | undefined,
): ControlPlane {
  const namespace = config.controlPlaneNamespace;
  const values = readValues(namespace, data?.values);
  const clusterDomain = config.clusterDomain ?? text(values.clusterDomain);
  const trustDomain = config.trustDomain ?? text(values.identityTrustDomain) ?? text(values.clusterDomain);
  if (trustDomain === undefined || (clusterDomain === undefined && config.address === undefined)) {
    const lacking = trustDomain === undefined ? 'trustDomain' : 'clusterDomain (or address)';
    const state = data === undefined ? 'does not exist' : 'does not contain it';
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `ConfigMap ${namespace}/linkerd-config ${state}, and spec.linkerd has no ${lacking}; correct controlPlaneNamespace, or set ${lacking}`,
    );
  }
  return {
    namespace,
    trustDomain,
    address: config.address ?? identityAddress(namespace, clusterDomain ?? ''),
    opaquePorts: parsePorts(text(record(values.proxy).opaquePorts) ?? DEFAULT_OPAQUE),
    skippedPorts: parsePorts(text(record(values.proxyInit).ignoreInboundPorts) ?? DEFAULT_SKIPPED),
  };
}

/** `host:port` of the identity service, unless the configuration names another. */
export const identityAddress = (controlPlaneNamespace: string, clusterDomain: string): string =>
  `linkerd-identity-headless.${controlPlaneNamespace}.svc.${clusterDomain}:8080`;

function readValues(namespace: string, yaml: string | undefined): Readonly<Record<string, unknown>> {
  try {
    if (yaml !== undefined && yaml.length > LONGEST_VALUES) throw new RangeError('more than 1 MiB');
    requireShallowYaml(yaml ?? '');
    return record(yaml === undefined ? {} : parse(yaml, { maxAliasCount: 100 }));
  } catch (cause) {
    // The parser's own message would quote the text.
    const at = cause instanceof YAMLParseError ? cause.linePos?.[0] : undefined;
    const why = at ? ` (line ${at.line}, column ${at.col})` : cause instanceof RangeError ? ` (${cause.message})` : '';
    throw new MeshError(
      'ERR_MESH_CONFIG',
      `key "values" of ConfigMap ${namespace}/linkerd-config is not YAML${why}; repair it, or set trustDomain and clusterDomain`,
    );
  }
}

const record = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};

const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' ? value : typeof value === 'number' ? String(value) : undefined;

/** Ports of a Linkerd annotation or value: single ones and ranges. */
type PortSet = readonly (readonly [first: number, last: number])[];

/** `"25,587, 4000-4010"`; entries that are not ports, such as names, are dropped: Linkerd ignores them too. */
export function parsePorts(text: string): PortSet {
  return text.split(',').flatMap((part) => {
    const [, first, last = first] = /^\s*(\d{1,5})(?:-(\d{1,5}))?\s*$/.exec(part) ?? [];
    return first === undefined ? [] : [[Number(first), Number(last)] as const];
  });
}

export const hasPort = (ports: PortSet, port: number): boolean =>
  ports.some(([first, last]) => first <= port && port <= last);
