import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { LineCounter, parseAllDocuments } from 'yaml';
import { KIND, type MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { usedGateways } from '../config/validate.ts';
import type { Preflight } from '../core/preflight.ts';
import type { CheckArea, ClusterSnapshot, Gateway, GatewaySettings } from '../gateway/gateway.ts';

import { gateways } from '../gateways.ts';
import type { Kube } from '../kube/api.ts';
import { RESOURCES } from '../kube/resources.ts';
import { KubeError } from '../kube/transport/error.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { type CheckTitle, type Finding, SEVERITIES } from '../mesh/object-check.ts';
import {
  describe,
  fields,
  type KubeObject,
  keyOf,
  type ObjectRef,
  type Resource,
  refOf,
  text,
} from '../objects/objects.ts';

import {
  LOOKS,
  lookAtApi,
  lookAtDefinitions,
  lookAtLeases,
  lookAtMeshes,
  lookAtObjects,
  lookAtRights,
  lookAtSharedNames,
  lookAtStatus,
  lookAtVerdicts,
  lookForAgents,
  type MeshOptions,
  type Seen,
  type Tools,
} from './looks.ts';
import { agentOf, findAgents } from './observed.ts';

const diagnoses = gateways.flatMap(({ diagnosis }) => diagnosis ?? []);

/** Every check, by code. */
export function checksOf(adapters: readonly Adapter[]): CheckTitle[] {
  const own = diagnoses.flatMap(({ checks }) => checks);
  return [...own, ...adapters.flatMap(({ checks = [] }) => checks)].sort((a, b) => (a.code < b.code ? -1 : 1));
}

/** In the order of docs/checks.md. */
export function areasOf(adapters: readonly Adapter[]): CheckArea[] {
  const theirs = adapters.flatMap(({ title, checks }) =>
    checks?.[0] ? [{ prefix: checks[0].code.slice(0, 4), name: title }] : [],
  );
  return [...diagnoses.flatMap(({ areas }) => areas), ...theirs].sort((a, b) => (a.prefix < b.prefix ? -1 : 1));
}

/** What is wrong in a snapshot, by every kind of gateway. Worst first, then by code and object; each once. */
export function diagnose(snapshot: ClusterSnapshot, settings: GatewaySettings = {}): Finding[] {
  const findings = new Map<string, Finding>();
  const uses = (object: KubeObject, kind: string) =>
    usedGateways(fields(object.spec), gateways).some((gateway) => gateway.kind === kind);
  for (const finding of diagnoses.flatMap((one) => one.diagnose({ uses, ...snapshot }, settings))) {
    const key = `${finding.code} ${keyOf(refOf(finding.object))} ${finding.message}`;
    if (!findings.has(key)) findings.set(key, finding);
  }
  return worstFirst([...findings.values()]);
}

export function worstFirst(findings: readonly Finding[]): Finding[] {
  return [...findings].sort(
    (a, b) =>
      SEVERITIES.indexOf(b.severity) - SEVERITIES.indexOf(a.severity) ||
      a.code.localeCompare(b.code) ||
      keyOf(refOf(a.object)).localeCompare(keyOf(refOf(b.object))),
  );
}

interface ExamineOptions extends Omit<MeshOptions, 'agents' | 'ownRights'> {
  /** Reads the cluster; called once the API server answers. */
  readonly read: () => Promise<LiveObjects>;
  /** A valid MeshCertificate with its defaults, or undefined. */
  readonly parse: (object: KubeObject) => MeshCertificate | undefined;
  /** The CustomResourceDefinition of this version. */
  readonly definition: KubeObject;
  /** Flags of an agent that reads its one MeshCertificate from its environment. */
  readonly environmentFlags: readonly string[];
  /** False: there is none in this cluster, and the user's own rights are checked. */
  readonly agent: boolean;
  /** The API server's clock minus this one, in ms, from its last response. */
  readonly skewMs: () => number | undefined;
  readonly preflight: Preflight;
}

interface Examination {
  readonly live: LiveObjects;
  readonly seen: readonly Seen[];
}

export const NOTHING: LiveObjects = {
  objects: [],
  whole: new Set(),
  listed: new Set(),
  absent: new Set(),
  skipped: [],
};

/** Examines the running system: the API server, the agent, and each mesh, which is tried as the agent would. */
export async function examine(tools: Tools, options: ExamineOptions): Promise<Examination> {
  const api = await lookAtApi(tools, options.skewMs);
  if (api.some(({ code, state }) => code === 'MC6001' && state === 'failed')) return { live: NOTHING, seen: api };
  const live = await options.read();
  const all = (kind: string) => live.objects.filter((object) => object.kind === kind);
  const certificates = all('MeshCertificate');
  const valid = certificates.flatMap((object) => {
    const certificate = options.parse(object);
    return certificate ? [{ object, certificate }] : [];
  });
  const agents = options.agent ? findAgents(live.objects, options.environmentFlags) : [];
  const serverNow = () => tools.clock.now() + (options.skewMs() ?? 0);
  const isPerTarget = ({ spec }: MeshCertificate) =>
    options.adapters.some(({ mesh, sniPerTarget }) => mesh === spec.mesh.name && sniPerTarget === true);
  const known = (kind: string) => live.listed.has(kind);
  const seen = [
    ...api,
    ...(await lookAtDefinitions(tools, options.definition, live.absent, usedBy(certificates))),
    ...(options.agent ? lookForAgents(agents, certificates, all('Pod')) : []),
    ...(await Promise.all(agents.map((agent) => lookAtLeases(tools, agent, serverNow)))).flat(),
    ...(
      await Promise.all(
        agents.map(async (agent) => {
          const taken = valid.filter(({ object }) => agentOf(agents, object) === agent);
          const its = taken.map(({ certificate }) => certificate);
          return [
            ...(await lookAtRights(tools, agent, its, options.adapters)),
            ...(await lookAtSharedNames(tools, agent, its, options.adapters)),
          ];
        }),
      )
    ).flat(),
    ...certificates.map(lookAtStatus),
    ...valid
      .filter(({ object }) => fields(object.spec).paused !== true)
      .flatMap(({ object, certificate }) =>
        lookAtObjects(certificate, object, live.objects, known, isPerTarget(certificate)),
      ),
    ...(await lookAtVerdicts(valid, live.objects, { ...options, now: tools.clock.now() })),
    ...(await lookAtMeshes(tools, valid, { ...options, agents, ownRights: !options.agent })),
  ];
  return { live, seen };
}

const usedBy = (certificates: readonly KubeObject[]): readonly Gateway[] =>
  gateways.filter(({ kind }) =>
    certificates.some(({ spec }) => usedGateways(fields(spec), gateways).some((gateway) => gateway.kind === kind)),
  );

/** The failures, in addition to the findings in objects. */
export function findingsOf(seen: readonly Seen[]): Finding[] {
  return seen.flatMap(({ code, state, object, message, fix = '', severity }) => {
    const look = LOOKS.find((one) => one.code === code);
    if (!look || state !== 'failed') return [];
    return [{ code, severity: severity ?? look.severity, object, message, fix }];
  });
}

/** The location of an object. */
export interface Origin {
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

interface FileObjects {
  readonly objects: readonly KubeObject[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  /** What could not be read, such as templates. */
  readonly skipped: readonly (Origin & { readonly message: string })[];
}

const MANIFEST = /\.(ya?ml|json)$/;
/** Larger files are not manifests. */
const LARGEST = 4 * 1024 * 1024;

/** Reads manifests from files and, below directories, from every file that looks like one. */
export async function readFiles(
  paths: readonly string[],
  read: (file: string) => Promise<string> = (file) => readFile(file, 'utf8'),
): Promise<FileObjects> {
  const objects: KubeObject[] = [];
  const origins = new Map<KubeObject, Origin>();
  const skipped: (Origin & { message: string })[] = [];
  for (const path of paths) {
    for (const file of await manifestsIn(path)) {
      const manifest = parseManifest(await read(file), file);
      for (const { object, origin } of manifest.found) {
        objects.push(object);
        origins.set(object, origin);
      }
      skipped.push(...manifest.skipped);
    }
  }
  return { objects, origins, skipped };
}

async function manifestsIn(path: string): Promise<string[]> {
  const about = await stat(path);
  if (!about.isDirectory()) return [path];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile() && MANIFEST.test(entry.name));
  return files.map((entry) => join(entry.parentPath, entry.name)).sort();
}

export function parseManifest(
  content: string,
  file: string,
): {
  found: readonly { readonly object: KubeObject; readonly origin: Origin }[];
  skipped: readonly (Origin & { readonly message: string })[];
} {
  if (content.length > LARGEST)
    return { found: [], skipped: [{ file, line: 1, message: `is larger than ${LARGEST} bytes` }] };
  const lines = new LineCounter();
  const found: { object: KubeObject; origin: Origin }[] = [];
  const skipped: (Origin & { message: string })[] = [];
  const documents = parseAllDocuments(content, { lineCounter: lines, prettyErrors: false });
  for (const document of Array.isArray(documents) ? documents : []) {
    const [error] = document.errors;
    if (error) {
      skipped.push({ file, line: lines.linePos(error.pos[0]).line, message: error.message });
      continue;
    }
    const line = lines.linePos(document.contents?.range?.[0] ?? 0).line;
    for (const object of objectsIn(document.toJS())) found.push({ object, origin: { file, line } });
  }
  return { found, skipped };
}

/** An object, or the items of a List. */
function objectsIn(value: unknown): KubeObject[] {
  const object = fields(value);
  if (Array.isArray(object.items) && String(object.kind).endsWith('List')) return object.items.flatMap(objectsIn);
  const metadata = fields(object.metadata);
  if (!text(object.apiVersion) || !text(object.kind) || !text(metadata.name)) return [];
  return [
    { ...object, metadata: { ...metadata, namespace: text(metadata.namespace) ?? 'default' } } as unknown as KubeObject,
  ];
}

export interface LiveObjects {
  readonly objects: readonly KubeObject[];
  /** Kinds that were read completely. */
  readonly whole: ReadonlySet<string>;
  /** The only namespaces that were read; absent: all. */
  readonly namespaces?: readonly string[] | undefined;
  /** Kinds that were read wherever they were requested; if namespaces are given, not in others. */
  readonly listed: ReadonlySet<string>;
  /** Kinds that the API server does not know. */
  readonly absent: ReadonlySet<string>;
  /** What was refused, in sentences. */
  readonly skipped: readonly string[];
}

const LISTED: readonly Resource[] = [
  ...diagnoses.flatMap(({ resources }) => resources),
  RESOURCES.meshCertificates,
  RESOURCES.deployments,
  RESOURCES.daemonSets,
  RESOURCES.services,
  RESOURCES.namespaces,
  RESOURCES.pods,
];

/** Never listed: only those are fetched, by name, that an object of a gateway or a MeshCertificate names. */
const FETCHED = ['Secret', 'ConfigMap'];

/** Reads what the checks ask for; read-only. */
export async function readCluster(
  kube: Kube,
  namespaces: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<LiveObjects> {
  const objects: KubeObject[] = [];
  const whole = new Set<string>();
  const listed = new Set<string>();
  const absent = new Set<string>();
  const skipped: string[] = [];
  for (const resource of LISTED) {
    try {
      objects.push(...(await listIn(kube, resource, namespaces, signal)));
      listed.add(resource.kind);
      if (!namespaces) whole.add(resource.kind);
    } catch (error) {
      const reason = skippable(error);
      // A kind that the cluster does not serve has no objects.
      if (reason === 'absent') absent.add(resource.kind);
      if (reason === 'absent' && !namespaces) whole.add(resource.kind);
      else if (reason === 'refused') skipped.push(`${resource.plural} could not be read: ${(error as Error).message}`);
    }
  }
  const named = new Map(namedBy(objects).map((ref) => [keyOf(ref), ref]));
  const refused = new Set<string>();
  for (const ref of named.values()) {
    try {
      const found = await kube.get(ref, signal);
      if (found) objects.push(found);
    } catch (error) {
      skippable(error);
      refused.add(ref.kind);
      skipped.push(`${describe(ref)} could not be read: ${(error as Error).message}`);
    }
  }
  for (const kind of FETCHED.filter((one) => !refused.has(one))) {
    whole.add(kind);
    listed.add(kind);
  }
  return { objects, whole, namespaces, listed, absent, skipped };
}

/** Gateways and agents may run in another namespace than the objects they serve, so all namespaces are searched. */
async function listIn(
  kube: Kube,
  resource: Resource,
  namespaces: readonly string[] | undefined,
  signal: AbortSignal,
): Promise<readonly KubeObject[]> {
  if (!namespaces || !resource.namespaced) return (await kube.list(resource, {}, signal)).items;
  if (resource === RESOURCES.deployments || resource === RESOURCES.daemonSets) {
    try {
      return (await kube.list(resource, {}, signal)).items;
    } catch (error) {
      if (skippable(error) === 'absent') throw error;
    }
  }
  const lists = await Promise.all(namespaces.map((namespace) => kube.list(resource, { namespace }, signal)));
  return lists.flatMap(({ items }) => items);
}

function skippable(error: unknown): 'absent' | 'refused' {
  if (error instanceof KubeError && error.status === 404) return 'absent';
  if (error instanceof KubeError && error.status === 403) return 'refused';
  throw error;
}

function namedBy(objects: readonly KubeObject[]): ObjectRef[] {
  return objects.flatMap((object) => {
    const { namespace } = object.metadata;
    const own = object.kind === KIND ? namesIn(object) : [];
    return [
      ...own.map((name) => ({ apiVersion: 'v1', kind: 'Secret', namespace, name })),
      ...diagnoses.flatMap((one) => one.objectsToRead(object)),
    ];
  });
}

function namesIn(object: KubeObject): string[] {
  const spec = fields(object.spec);
  const { name } = object.metadata;
  return [text(spec.secretName) ?? `${name}-identity`, text(spec.caSecretName) ?? `${name}-ca`];
}
