import { parse } from 'yaml';
import { formatPath } from '../../config/issue.ts';
import { API_VERSION, KIND, type MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Validation } from '../../config/validate.ts';
import { type KubeObject, MANAGED_BY_LABEL } from '../../core/object.ts';
import type { EmissaryEnv } from '../../gateway/emissary/reading/env.ts';
import { contextNameProblem } from '../../gateway/emissary/spec/names.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Account, Installation } from '../../mesh/cluster.ts';
import { fields } from '../../mesh/kube-object.ts';
import type { GatewayFinding } from '../discover/gateway.ts';
import { OnboardError } from './error.ts';

/** On all objects that `onboard` creates, so that `offboard` finds them. */
export const ONBOARD_LABEL = 'meshcert.dev/onboard';
/** On a Mapping that was moved into a mesh: the label that the MeshCertificate selects by. */
const MESH_LABEL = 'meshcert.dev/mesh';

export interface OnboardSpec {
  readonly installation: Installation;
  /** Adapter of that mesh. */
  readonly adapter: Adapter;
  /** Names of all meshes. */
  readonly meshes: readonly string[];
  readonly gateway: GatewayFinding;
  /** Namespaces of its Mappings. */
  readonly mappingNamespaces: readonly string[];
  /** The accounts behind its Mappings, if each has its own server name. */
  readonly targets: readonly Account[];
  /** TLSContexts in all namespaces; their names are global. */
  readonly contexts: readonly KubeObject[];
  /** `trust.hold=5m`: fields of `spec` that the user sets. */
  readonly changes: readonly string[];
  /** The document of an earlier run: its fields stay, whatever would be created now. */
  readonly existing?: KubeObject | undefined;
}

/** The MeshCertificate as a user would write it: without the schema's defaults. */
export function documentFor(request: OnboardSpec): KubeObject {
  const { gateway, meshes } = request;
  const { mesh } = request.installation;
  const { namespace } = gateway.env;
  const metadata = { namespace, labels: { [ONBOARD_LABEL]: 'true', [MANAGED_BY_LABEL]: 'meshcert' } };
  if (request.existing) {
    const spec = withChanges(grown(fields(request.existing.spec), request, namespace), mesh, meshes, request.changes);
    return {
      apiVersion: API_VERSION,
      kind: KIND,
      metadata: { name: request.existing.metadata.name, ...metadata },
      spec,
    };
  }
  const name = mesh;
  const elsewhere = request.mappingNamespaces.some((one) => one !== namespace);
  const labels = selectorLabels(gateway.env.labelSelector);
  const contextName = freeContextName(name, namespace, request.contexts);
  const tlsContext = {
    ...(contextName === name ? {} : { name: contextName }),
    ...(gateway.env.ambassadorId === 'default' ? {} : { ambassadorIds: [gateway.env.ambassadorId] }),
  };
  const spec = {
    [mesh]: request.adapter.discover?.configFor(request.installation, gateway.serviceAccount, request.targets),
    ...(Object.keys(tlsContext).length > 0 ? { tlsContext } : {}),
    ...(Object.keys(labels).length > 0 ? { labels } : {}),
    mappings: {
      selector: { matchLabels: { [MESH_LABEL]: name } },
      ...(elsewhere ? { namespaces: [...new Set(request.mappingNamespaces)].sort() } : {}),
    },
  };
  return {
    apiVersion: API_VERSION,
    kind: KIND,
    metadata: { name, ...metadata },
    spec: withChanges(spec, mesh, meshes, request.changes),
  };
}

/** Extended by the namespaces and targets of Mappings that came since; nothing is removed. */
function grown(
  spec: Readonly<Record<string, unknown>>,
  request: OnboardSpec,
  namespace: string,
): Record<string, unknown> {
  const mappings = fields(spec.mappings);
  const before = Array.isArray(mappings.namespaces) ? mappings.namespaces.map(String) : [namespace];
  const namespaces = [...new Set([...before, ...request.mappingNamespaces])].sort();
  const result: Record<string, unknown> = { ...spec };
  if (mappings.selector !== undefined && namespaces.length > before.length) {
    result.mappings = { ...mappings, namespaces };
  }
  const { mesh } = request.installation;
  const { discover } = request.adapter;
  if (discover?.withTargets) result[mesh] = discover.withTargets(fields(spec[mesh]), request.targets);
  return result;
}

/** Throws ERR_ONBOARD_INVALID with a line for each mistake. */
export function accepted(
  document: KubeObject,
  validate: (object: unknown) => Validation,
  advice = 'correct --set',
): MeshCertificate {
  const result = validate(document);
  if (result.ok) return result.value;
  const lines = result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`);
  throw new OnboardError(
    'ERR_ONBOARD_INVALID',
    `MeshCertificate ${document.metadata.name} is refused; ${advice}:\n  ${lines.join('\n  ')}`,
  );
}

/** The labels without which this gateway would ignore our objects: the equalities of its selector. */
export function selectorLabels(selector: EmissaryEnv['labelSelector']): Record<string, string> {
  const terms = (selector ?? '').split(',').map((term) => /^\s*([^=!\s]+)\s*==?\s*(\S+)\s*$/.exec(term));
  return Object.fromEntries(terms.flatMap((match) => (match?.[1] && match[2] ? [[match[1], match[2]]] : [])));
}

/** Names of contexts are global: the mesh's own, unless it is taken. */
function freeContextName(name: string, namespace: string, contexts: readonly KubeObject[]): string {
  const taken = new Set(
    contexts.filter((one) => !isOwn(one, `${namespace}.${name}`)).map(({ metadata }) => metadata.name),
  );
  const candidates = [name, `${name}-mtls`, `meshcert-${name}`];
  return candidates.find((one) => !taken.has(one) && !contextNameProblem(one)) ?? `${name}-${namespace}`;
}

const isOwn = ({ metadata }: KubeObject, owner: string): boolean => metadata.labels?.['meshcert.dev/owner'] === owner;

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
