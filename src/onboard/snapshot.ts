import { Document, isScalar, parse, visit } from 'yaml';
import { API_VERSION, KIND, type MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { formatPath, isNamed, usedGateways, type Validation } from '../config/validate.ts';
import type { Gateway, JoinRequest, RouteObjects } from '../gateway/gateway.ts';

import type { Kube, Selection } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Adapter } from '../mesh/adapter.ts';
import type { Account, ClusterObjects, Installation } from '../mesh/cluster.ts';
import { printable } from '../mesh/secrets.ts';
import {
  fields,
  type KubeObject,
  MANAGED_BY_LABEL,
  type ObjectRef,
  OWNER_LABEL,
  type Resource,
  text,
} from '../objects/objects.ts';

import { CodedError } from '../pki/der.ts';
import { type GatewayFinding, installationsIn, onboardable } from './discover.ts';

/** Something that could not be read, and therefore may exist. */
export interface Unseen {
  readonly what: string;
  readonly message: string;
}

/**
 * The part of a cluster that shows the state of its gateway and its meshes. Values only: the same snapshot gives the
 * same plan.
 */
export interface OnboardSnapshot extends ClusterObjects, RouteObjects {
  readonly meshCertificates: readonly KubeObject[];
  /** Whether the API server knows the kind MeshCertificate. */
  readonly defined: boolean;
  /** In the gateways' namespaces: an agent holds one. */
  readonly leases: readonly KubeObject[];
  /** Roles and bindings of all namespaces that `onboard` created. */
  readonly rights: readonly KubeObject[];
  /** The bindings that may name one of these Roles. */
  readonly bindings: readonly KubeObject[];
  readonly unseen: readonly Unseen[];
  /** Kinds that the API server does not know. */
  readonly unserved: ReadonlySet<string>;
}

/**
 * Reads the cluster and changes nothing. A refused read is recorded, not an error; only an API server that does not
 * answer is.
 */
export async function takeSnapshot(
  kube: Kube,
  {
    adapters,
    gateways,
    directories = new Map(),
  }: {
    readonly adapters: readonly Adapter[];
    readonly gateways: readonly Gateway[];
    readonly directories?: OnboardSnapshot['directories'];
  },
  signal: AbortSignal,
): Promise<OnboardSnapshot> {
  const unseen: Unseen[] = [];
  const unserved = new Set<string>();
  const unlessRefused = async <T>(what: string, kind: string, read: Promise<T>): Promise<T | undefined> => {
    try {
      return await read;
    } catch (error) {
      if (!(error instanceof KubeError) || error.status === 0) throw error;
      if (error.status === 404) unserved.add(kind);
      else unseen.push({ what, message: error.message });
      return undefined;
    }
  };
  const list = async (resource: Resource, selection: Selection = {}): Promise<readonly KubeObject[] | undefined> => {
    const read = kube.list(resource, selection, signal);
    return (await unlessRefused(describeList(resource, selection), resource.kind, read))?.items;
  };
  const lists = (resources: readonly Resource[], selection?: Selection) =>
    Promise.all(resources.map((resource) => list(resource, selection))).then((all) => all.flatMap((one) => one ?? []));
  const [namespaces, workloads, services, named, configurations, gatewayLists, meshCertificates, rights] =
    await Promise.all([
      lists([RESOURCES.namespaces]),
      lists([RESOURCES.deployments, RESOURCES.daemonSets, RESOURCES.statefulSets]),
      lists([RESOURCES.services]),
      Promise.all(
        adapters
          .flatMap((adapter) => adapter.discover?.configMaps ?? [])
          .map((name) => lists([RESOURCES.configMaps], { fieldSelector: `metadata.name=${name}` })),
      ),
      Promise.all(
        onboardable(gateways)
          .flatMap(({ onboarding }) => onboarding.configMaps)
          .map((name) => lists([RESOURCES.configMaps], { fieldSelector: `metadata.name=${name}` })),
      ),
      Promise.all(kindsOf(gateways).map((resource) => lists([resource], ownedOnly(resource)))).then((all) =>
        all.flat(),
      ),
      list(RESOURCES.meshCertificates),
      lists([...ROLES, ...BINDINGS], { labelSelector: ONBOARD_LABEL }),
    ]);
  const get = (ref: ObjectRef) =>
    unlessRefused(`${ref.kind} ${ref.namespace}/${ref.name}`, ref.kind, kube.get(ref, signal));
  const certificates = new Map<string, string>();
  const listed = {
    namespaces,
    workloads,
    services,
    gatewayObjects: [...services, ...gatewayLists, ...configurations.flat()],
  };
  const installations = installationsIn(listed, gateways);
  const gatewayWorkloads = installations.flatMap(({ workload }) => workload ?? []);
  const reads = adapters.flatMap((adapter) => adapter.discover?.reads({ workloads, gatewayWorkloads }) ?? []);
  // Also of what belongs to the gateways.
  const homes = new Set(
    installations.flatMap(({ home, object, workload }) => [
      home,
      object.metadata.namespace ?? home,
      workload?.metadata.namespace ?? home,
    ]),
  );
  const routed = onboardable(gateways).flatMap(({ onboarding }) => onboarding.namespacesBehind(listed));
  const behind = [...new Set([...routed, ...homes])];
  // A RoleBinding of any namespace may name a ClusterRole.
  const granted = new Set(rights.map(({ metadata }) => metadata.namespace));
  const [configMaps, , pods, endpointSlices, leases, bindings] = await Promise.all([
    Promise.all(reads.filter(({ kind }) => kind === 'ConfigMap').map(get)),
    Promise.all(
      reads
        .filter(({ kind }) => kind === 'Secret')
        .map(async (ref) => {
          const pem = text(fields((await get(ref))?.data)['tls.crt']);
          if (pem) certificates.set(`${ref.namespace}/${ref.name}`, Buffer.from(pem, 'base64').toString('utf8'));
        }),
    ),
    Promise.all(behind.map((namespace) => lists([RESOURCES.pods], { namespace }))),
    Promise.all(behind.map((namespace) => lists([RESOURCES.endpointSlices], { namespace }))),
    Promise.all([...homes].map((namespace) => lists([RESOURCES.leases], { namespace }))),
    granted.has(undefined)
      ? lists(BINDINGS)
      : Promise.all([...granted].map((namespace) => lists([RESOURCES.roleBindings], { namespace }))),
  ]);
  return {
    ...listed,
    gatewayWorkloads,
    directories,
    configMaps: [...named.flat(), ...configMaps.filter((one) => one !== undefined)],
    meshCertificates: meshCertificates ?? [],
    defined: meshCertificates !== undefined,
    pods: pods.flat(),
    endpointSlices: endpointSlices.flat(),
    leases: leases.flat(),
    certificates,
    rights,
    bindings: bindings.flat(),
    unseen,
    unserved,
  };
}

const ROLES = [RESOURCES.roles, RESOURCES.clusterRoles];
const BINDINGS = [RESOURCES.roleBindings, RESOURCES.clusterRoleBindings];

const describeList = ({ plural }: Resource, { namespace }: Selection): string =>
  namespace === undefined ? plural : `${plural} in namespace ${namespace}`;

/** Of kinds of Kubernetes itself only what the agent has made: there may be very many. */
export const ownedOnly = ({ apiVersion }: Resource): Selection =>
  apiVersion === 'v1' ? { labelSelector: OWNER_LABEL } : {};

/** What the gateways request, each kind once, beside what is listed anyway. */
function kindsOf(gateways: readonly Gateway[]): Resource[] {
  const kinds = onboardable(gateways).flatMap(({ onboarding }) => [
    ...onboarding.routes,
    ...onboarding.reads,
    ...onboarding.own({ namespace: '', name: '' }).map(({ resource }) => resource),
  ]);
  const place = ({ apiVersion, plural }: Resource) => `${apiVersion}/${plural}`;
  const unique = new Map(kinds.map((kind) => [place(kind), kind]));
  unique.delete(place(RESOURCES.services));
  return [...unique.values()];
}

/** On all objects that `onboard` creates, so that `offboard` finds them. */
export const ONBOARD_LABEL = 'meshcert.dev/onboard';
export const isOnboarded = ({ metadata }: KubeObject): boolean => metadata.labels?.[ONBOARD_LABEL] !== undefined;
/** On a MeshCertificate that `onboard` creates, and on what stands in for the targets of routes. */
export const CREATED_LABELS = { [ONBOARD_LABEL]: 'true', [MANAGED_BY_LABEL]: 'meshcert' } as const;
/** On a route that was moved into a mesh: the label that the MeshCertificate selects by. On a stand-in: the name of the MeshCertificate. */
export const MESH_LABEL = 'meshcert.dev/mesh';

interface OnboardSpec {
  readonly installation: Installation;
  /** Adapter of that mesh. */
  readonly adapter: Adapter;
  /** Names of all meshes. */
  readonly meshes: readonly string[];
  readonly gateway: GatewayFinding;
  readonly gateways: readonly Gateway[];
  /** Its routes that are in the mesh. */
  readonly routes: readonly KubeObject[];
  /** The accounts behind its routes, if each has its own server name. */
  readonly targets: readonly Account[];
  readonly gatewayObjects: readonly KubeObject[];
  /** `trust.hold=5m`: fields of `spec` that the user sets. */
  readonly changes: readonly string[];
  /** The document of an earlier run: its fields stay, whatever would be created now. */
  readonly existing?: KubeObject | undefined;
}

/** The MeshCertificate as a user would write it: without the schema's defaults. */
export function documentFor(request: OnboardSpec): KubeObject {
  const { gateway, meshes, existing, installation } = request;
  const { mesh } = installation;
  const name = existing?.metadata.name ?? mesh;
  const spec = existing ? extended(fields(existing.spec), request, name) : created(request, name);
  return {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: {
      name,
      namespace: gateway.installation.home,
      ...(existing && !isOnboarded(existing) ? {} : { labels: CREATED_LABELS }),
    },
    spec: withChanges(spec, mesh, meshes, request.changes),
  };
}

const joinRequest = ({ gateway, routes, gatewayObjects }: OnboardSpec, name: string): JoinRequest => ({
  installation: gateway.installation,
  name,
  routes,
  namespaces: routes.map(({ metadata }) => metadata.namespace ?? ''),
  labels: { [MESH_LABEL]: name },
  gatewayObjects,
});

function created(request: OnboardSpec, name: string): Readonly<Record<string, unknown>> {
  const { gateway, installation, adapter, targets } = request;
  return {
    [installation.mesh]: adapter.discover?.configFor(installation, gateway.installation.serviceAccount, targets),
    ...gateway.gateway.onboarding.specFor(joinRequest(request, name)),
  };
}

/** Extended by the namespaces and targets of routes that came since, or by the gateway; nothing is removed. */
function extended(
  spec: Readonly<Record<string, unknown>>,
  request: OnboardSpec,
  name: string,
): Readonly<Record<string, unknown>> {
  const { onboarding } = request.gateway.gateway;
  const wanted = joinRequest(request, name);
  const used = usedGateways(spec, request.gateways);
  const isUsed = used.some(({ kind }) => kind === request.gateway.gateway.kind);
  // What is used by default is named once another gateway is.
  const named = onboardable(used).flatMap((one) => (isNamed(one, spec) ? [] : [one.onboarding.named]));
  const result = isUsed
    ? onboarding.extended(spec, wanted)
    : Object.assign({}, ...named, spec, onboarding.specFor(wanted));
  const { mesh } = request.installation;
  const { discover } = request.adapter;
  if (!discover?.withTargets) return result;
  return { ...result, [mesh]: discover.withTargets(fields(spec[mesh]), request.targets) };
}

/** Throws ERR_ONBOARD_INVALID with a line for each mistake. */
export function accepted(
  document: KubeObject,
  validate: (object: unknown) => Validation,
  advice = 'correct --set',
): MeshCertificate {
  const result = validate(document);
  if (result.ok) return result.value;
  const lines = result.issues.map(({ path, message }) => printable(`${formatPath(path)}: ${message}`));
  throw new OnboardError(
    'ERR_ONBOARD_INVALID',
    `MeshCertificate ${document.metadata.name} is refused; ${advice}:\n  ${lines.join('\n  ')}`,
  );
}

/** With `path=value` set; a path that begins with another mesh is for that mesh's document. */
function withChanges(spec: object, mesh: string, meshes: readonly string[], changes: readonly string[]): object {
  let result: unknown = spec;
  for (const change of changes) {
    const at = change.indexOf('=');
    const path = change.slice(0, at).trim().split('.');
    if (at < 1 || path.some((part) => part === '')) {
      throw new OnboardError('ERR_ONBOARD_INVALID', `--set ${change}: expected FIELD=VALUE, such as trust.hold=5m`);
    }
    const [first = ''] = path;
    if (meshes.includes(first) && first !== mesh) continue;
    result = withValue(result, path, parse(change.slice(at + 1)));
  }
  return result as object;
}

function withValue(below: unknown, [first, ...rest]: readonly string[], value: unknown): unknown {
  if (first === undefined) return value;
  const now = fields(below);
  const set = withValue(now[first], rest, value);
  return Object.fromEntries(Object.entries({ ...now, [first]: set }).filter(([, one]) => one !== null));
}

/**
 * Compares two objects as YAML, with this many lines around each change, and `+`, `-` or a blank before each line, as
 * in diff. Unless `whole`, only the fields in `after` are
 * compared: the others belong to somebody else or to the server.
 */
export function diffObjects(
  before: KubeObject | undefined,
  after: KubeObject | undefined,
  context = 2,
  whole = false,
): string[] {
  const old = before && after && !whole ? (within(before, after) as KubeObject) : before;
  return hunks(diffLines(linesOf(old), linesOf(after)), context);
}

/** The fields of an object that a wanted one has: the others belong to somebody else or to the server. */
function within(object: unknown, wanted: unknown): unknown {
  if (!isMap(object) || !isMap(wanted)) return object;
  const unchanged = Object.keys(wanted).filter((key) => key in object);
  return Object.fromEntries(unchanged.map((key) => [key, within(object[key], wanted[key])]));
}

/** Without the fields that the server maintains. */
export function bare(object: KubeObject): KubeObject {
  const { name, namespace, labels, annotations } = object.metadata;
  const { status: _, ...rest } = object;
  const metadata = Object.fromEntries(
    Object.entries({ name, namespace, labels, annotations }).filter(([, value]) => !isEmpty(value)),
  ) as unknown as KubeObject['metadata'];
  const { apiVersion, kind } = object;
  return {
    apiVersion,
    kind,
    metadata,
    ...Object.fromEntries(Object.entries(rest).filter(([key]) => key !== 'metadata')),
  };
}

const linesOf = (object: KubeObject | undefined): string[] =>
  object ? yamlOf(bare(object), { sorted: true }).trimEnd().split('\n') : [];

/** Keeps the longest common part of both; objects here have tens of lines, so the quadratic cost is small. */
function diffLines(before: readonly string[], after: readonly string[]): string[] {
  const common: number[][] = Array.from({ length: before.length + 1 }, () => Array(after.length + 1).fill(0));
  const at = (i: number, j: number) => common[i]?.[j] ?? 0;
  for (let i = before.length - 1; i >= 0; i--) {
    const row = common[i];
    for (let j = after.length - 1; row && j >= 0; j--) {
      row[j] = before[i] === after[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const lines: string[] = [];
  for (let i = 0, j = 0; i < before.length || j < after.length; ) {
    if (i < before.length && j < after.length && before[i] === after[j]) {
      lines.push(`  ${before[i]}`);
      i++;
      j++;
    } else if (j >= after.length || (i < before.length && at(i + 1, j) >= at(i, j + 1))) {
      lines.push(`- ${before[i]}`);
      i++;
    } else {
      lines.push(`+ ${after[j]}`);
      j++;
    }
  }
  return lines;
}

function hunks(lines: readonly string[], context: number): string[] {
  const isChange = (line: string | undefined) => line !== undefined && !line.startsWith('  ');
  const near = lines.map((_, i) => lines.slice(Math.max(0, i - context), i + context + 1).some(isChange));
  return lines.flatMap((line, i) => (near[i] ? [line] : near[i - 1] ? ['  …'] : []));
}

/** The server treats absent and empty labels as equal. */
const isEmpty = (value: unknown): boolean => value === undefined || (isMap(value) && Object.keys(value).length === 0);

const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** YAML as people write it: lists of plain words in one line, and no aliases. */
export function yamlOf(object: object, options: { readonly sorted: boolean }): string {
  const document = new Document(object, { aliasDuplicateObjects: false, sortMapEntries: options.sorted });
  visit(document, {
    Seq(_, list) {
      list.flow = list.items.every((item) => isScalar(item) && !String(item.value).includes('\n'));
    },
  });
  return document.toString({ lineWidth: 0, flowCollectionPadding: false });
}

const ONBOARD_CODES = [
  'ERR_ONBOARD_NO_GATEWAY',
  'ERR_ONBOARD_WHICH_GATEWAY',
  'ERR_ONBOARD_UNSUPPORTED',
  'ERR_ONBOARD_NO_MESH',
  'ERR_ONBOARD_UNKNOWN_NAME',
  'ERR_ONBOARD_INVALID',
  'ERR_ONBOARD_UNSEEN',
  'ERR_ONBOARD_NOT_READY',
  'ERR_ONBOARD_NOT_OURS',
  'ERR_ONBOARD_NOT_CONFIRMED',
  'ERR_ONBOARD_LEFT_BEHIND',
  'ERR_OFFBOARD_IN_USE',
] as const;

type OnboardCode = (typeof ONBOARD_CODES)[number];

/** Why the gateway cannot join or leave; the message ends with the next step. */
export class OnboardError extends CodedError<OnboardCode> {
  override readonly name = 'OnboardError';
}
