import { nearest } from '../../config/nearest.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Installation } from '../../mesh/cluster.ts';
import { type GatewayFinding, onboardable } from '../discover/gateway.ts';
import { OnboardError } from './error.ts';
import { type Findings, firstOf } from './findings.ts';

/** The user's restrictions; absent: whatever is found. */
export interface Choice {
  /** `namespace/name`, or a name, or `Gateway namespace/name` where two kinds have the same. */
  readonly gateway?: string | undefined;
  /** The namespace of the gateway, if more than one runs. */
  readonly namespace?: string | undefined;
  readonly meshes?: readonly string[] | undefined;
}

export function chooseGateway(
  { gateways, unseen }: Findings,
  kinds: readonly Gateway[],
  choice: Choice = {},
): GatewayFinding {
  const { gateway: wanted, namespace } = choice;
  const nameOf = ({ installation }: GatewayFinding) => installation.object.metadata.name;
  const namespaceOf = ({ installation }: GatewayFinding) => installation.object.metadata.namespace ?? '';
  const placeOf = (one: GatewayFinding) => `${namespaceOf(one)}/${nameOf(one)}`;
  const titleOf = (one: GatewayFinding) => `${one.installation.object.kind} ${placeOf(one)}`;
  const isNamed = (one: GatewayFinding) => [placeOf(one), nameOf(one), titleOf(one)].includes(wanted ?? '');
  const usable = gateways.filter(({ installation }) => installation.problem === undefined);
  const fitting = usable
    .filter((one) => wanted === undefined || isNamed(one))
    .filter((one) => namespace === undefined || namespaceOf(one) === namespace);
  const [only] = fitting;
  if (only && fitting.length === 1) return only;
  const known = usable.map(placeOf);
  if (fitting.length > 1) {
    throw new OnboardError(
      'ERR_ONBOARD_WHICH_GATEWAY',
      `there is more than one gateway: ${fitting.map(titleOf).join(', ')}; name one with --gateway`,
    );
  }
  const problem = gateways.find((one) => wanted === undefined || isNamed(one))?.installation.problem;
  if (problem && (wanted !== undefined || usable.length === 0)) {
    throw new OnboardError('ERR_ONBOARD_UNSUPPORTED', problem.message);
  }
  if (wanted !== undefined && usable.length > 0) {
    throw new OnboardError('ERR_ONBOARD_UNKNOWN_NAME', `no gateway is named "${wanted}"${meant(wanted, known)}`);
  }
  if (namespace !== undefined && usable.length > 0) {
    const places = [...new Set(usable.map(namespaceOf))];
    throw new OnboardError(
      'ERR_ONBOARD_UNKNOWN_NAME',
      `no gateway runs in namespace "${namespace}"${meant(namespace, places)}`,
    );
  }
  if (unseen.some(({ what }) => what === 'deployments')) {
    throw new OnboardError(
      'ERR_ONBOARD_UNSEEN',
      'no gateway was found, and these credentials may not list the Deployments of this cluster; use an account that may',
    );
  }
  const absent = onboardable(kinds).map(({ onboarding }) => onboarding.wording.absent);
  throw new OnboardError(
    'ERR_ONBOARD_NO_GATEWAY',
    `${absent.join(', and ')}; install the gateway first, or check --context`,
  );
}

/** The meshes to join: the requested ones, or otherwise the ones that were found. */
export function chooseMeshes(
  findings: Findings,
  wanted: readonly string[] | undefined,
  adapters: readonly Adapter[],
): Installation[] {
  const meshes = adapters.map(({ mesh }) => mesh);
  const found = meshes.filter((mesh) => firstOf(findings.meshes, mesh));
  for (const name of wanted ?? []) {
    if (found.includes(name)) continue;
    const known = meshes.includes(name);
    const message = known
      ? `${name} was not found in this cluster; found: ${found.join(', ') || 'no mesh'}`
      : `no mesh is named "${name}"${meant(name, meshes)}`;
    throw new OnboardError('ERR_ONBOARD_UNKNOWN_NAME', message);
  }
  const isLast = (mesh: string) => firstOf(findings.meshes, mesh)?.lastResort === true;
  const preferred = found.some((mesh) => !isLast(mesh)) ? found.filter((mesh) => !isLast(mesh)) : found;
  const chosen = wanted === undefined ? preferred : found.filter((mesh) => wanted.includes(mesh));
  if (chosen.length === 0 && findings.unseen.length > 0) {
    const unseen = findings.unseen.map(({ what }) => what).join(', ');
    const message = `no mesh was found, and these credentials may not read ${unseen}; use an account that may`;
    throw new OnboardError('ERR_ONBOARD_UNSEEN', message);
  }
  if (chosen.length === 0) {
    const signs = adapters.flatMap(({ discover }) => discover?.sign ?? []);
    throw new OnboardError(
      'ERR_ONBOARD_NO_MESH',
      `neither ${signs.join(', nor ')} was found; install the mesh first, or write the MeshCertificate by hand (docs/reference/mesh-certificate.md)`,
    );
  }
  return chosen.flatMap((mesh) => firstOf(findings.meshes, mesh) ?? []);
}

/** `; did you mean "edge/web"?`, or the known ones. */
export function meant(word: string, known: readonly string[]): string {
  const close =
    nearest(word, known) ?? known.find((one) => one.split('/').some((part) => nearest(word, [part]) !== undefined));
  if (close !== undefined) return `; did you mean "${close}"?`;
  return known.length === 0 ? '' : `; known: ${known.join(', ')}`;
}
