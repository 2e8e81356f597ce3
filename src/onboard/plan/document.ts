import { parse } from 'yaml';
import { formatPath } from '../../config/issue.ts';
import { API_VERSION, KIND, type MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Validation } from '../../config/validate.ts';
import { type KubeObject, MANAGED_BY_LABEL } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { JoinRequest } from '../../gateway/onboarding.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Account, Installation } from '../../mesh/cluster.ts';
import { fields } from '../../mesh/kube-object.ts';
import { printable } from '../../mesh/secrets.ts';
import { type GatewayFinding, onboardable } from '../discover/gateway.ts';
import { OnboardError } from './error.ts';

/** On all objects that `onboard` creates, so that `offboard` finds them. */
export const ONBOARD_LABEL = 'meshcert.dev/onboard';
export const isOnboarded = ({ metadata }: KubeObject): boolean => metadata.labels?.[ONBOARD_LABEL] !== undefined;
/** On a MeshCertificate that `onboard` creates, and on what stands in for the targets of routes. */
export const CREATED_LABELS = { [ONBOARD_LABEL]: 'true', [MANAGED_BY_LABEL]: 'meshcert' } as const;
/** On a route that was moved into a mesh: the label that the MeshCertificate selects by. On a stand-in: the name of the MeshCertificate. */
export const MESH_LABEL = 'meshcert.dev/mesh';

export interface OnboardSpec {
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
  const used = usedBy(spec, request.gateways);
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

const isNamed = ({ fields: own }: Gateway, spec: Readonly<Record<string, unknown>>): boolean =>
  Object.keys(own).some((field) => spec[field] !== undefined);

/** The gateways that a MeshCertificate uses: those with a field, or else those that are used by default. */
function usedBy(spec: Readonly<Record<string, unknown>>, gateways: readonly Gateway[]): readonly Gateway[] {
  const named = gateways.filter((one) => isNamed(one, spec));
  return named.length > 0 ? named : gateways.filter(({ byDefault }) => byDefault);
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
