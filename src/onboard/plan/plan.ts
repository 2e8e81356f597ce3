import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../../async/clock.ts';
import { nearest } from '../../config/nearest.ts';
import { customResourceDefinition } from '../../config/schema/crd.ts';
import { KIND, type MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { validator } from '../../config/validate.ts';
import { describe, type KubeObject, keyOf, preconditionOf, refOf } from '../../core/object.ts';
import { differences } from '../../core/plan/difference.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { AgentMount, Installation } from '../../mesh/cluster.ts';
import { fields } from '../../mesh/kube-object.ts';
import { printable } from '../../mesh/secrets.ts';
import type { GatewayFinding } from '../discover/gateway.ts';
import type { UpstreamFinding } from '../discover/upstream.ts';
import { type Choice, chooseGateway, chooseMeshes } from './choice.ts';
import { bare, type DiffLine, diffObjects, yamlOf } from './diff.ts';
import { isOnboarded } from './document.ts';
import { OnboardError } from './error.ts';
import { discover, type Findings, findUpstreams } from './findings.ts';
import { AGENT_NAME, accountFor, grantsFor } from './grants.ts';
import { join } from './join.ts';
import { moved, movePatch } from './moved.ts';
import { type Joined, judge, type MoveVerdict, standInRequest } from './moves.ts';
import { holderOf, rightsName, rightsOf, suffices, toolOf, withVersion } from './owned.ts';
import type { OnboardSnapshot } from './snapshot.ts';

export interface OnboardPreferences extends Choice {
  /** `namespace/name` of the routes to move; absent: all that can be. */
  readonly routes?: readonly string[] | undefined;
  /** Fields of `spec` that the user changes. */
  readonly changes: readonly string[];
  /** Image of the agent's Deployment; absent: none is created. */
  readonly image?: string | undefined;
}

/**
 * One object. In order: rights, then MeshCertificates, then the objects that send requests there, and last rights that
 * others replace. `blocked`: somebody else maintains it, and it is not as it must be.
 */
export interface OnboardStep {
  readonly action: 'create' | 'change' | 'delete' | 'none' | 'keep' | 'blocked';
  readonly object: KubeObject;
  /** What is applied, if it is not the whole object. */
  readonly patch?: KubeObject;
  readonly diff: readonly DiffLine[];
  /** Why it is not changed although it differs from what would be created. */
  readonly note?: string;
}

export interface OnboardPlan {
  readonly findings: Findings;
  readonly gateway: GatewayFinding;
  readonly joined: readonly Joined[];
  readonly verdicts: readonly MoveVerdict[];
  readonly steps: readonly OnboardStep[];
  /** The verdicts that move something, in the order of the moves. */
  readonly moves: readonly OnboardStep[];
}

/** From the discovered to the desired state. Nothing is read or written; `observed` has our existing objects. */
export async function planOnboarding(
  snapshot: OnboardSnapshot,
  preferences: OnboardPreferences,
  observed: ReadonlyMap<string, KubeObject>,
  means: { readonly adapters: readonly Adapter[]; readonly gateways: readonly Gateway[]; readonly clock: Clock },
  signal: AbortSignal,
): Promise<OnboardPlan> {
  const { adapters, gateways, clock } = means;
  const findings = discover(snapshot, means);
  const gateway = chooseGateway(findings, means.gateways, preferences);
  const upstreams = findUpstreams(snapshot, gateway, means.adapters);
  const { route } = gateway.gateway.onboarding.wording;
  const wanted = preferences.routes && named(preferences.routes, upstreams, route);
  // Rights in the namespaces of other routes are not needed.
  const chosenOnes = wanted ? upstreams.filter((one) => wanted.has(one)) : upstreams;
  const joined: Joined[] = [];
  const chosen = chooseMeshes(findings, preferences.meshes, means.adapters);
  for (const installation of chosen) {
    joined.push(
      await join(
        installation,
        { gateway, upstreams: chosenOnes, snapshot, changes: preferences.changes, adapters, gateways, clock },
        signal,
      ),
    );
  }
  const verdicts = upstreams.map((upstream) => {
    const verdict = judge(upstream, joined, snapshot);
    if (verdict.outcome.kind === 'done' || !wanted || wanted.has(upstream)) return verdict;
    const outcome = {
      kind: 'stay',
      code: 'ERR_TARGET_UNSELECTED',
      message: 'not among those named by --mapping',
    } as const;
    return { upstream, outcome };
  });
  const certificates = joined.map(({ certificate }) => certificate);
  const besides = certificatesBeside(certificates, gateway.installation.home, snapshot, means);
  const planned = [
    ...(snapshot.defined ? [] : [customResourceDefinition(means.adapters, means.gateways) as unknown as KubeObject]),
    ...accountFor(gateway, certificates, means.adapters),
    ...grantsFor([...certificates, ...besides], gateway.installation.home, preferences.image, {
      adapters,
      gateways,
      mounts: mountsFor(chosen, means.adapters),
    }),
    ...joined.flatMap(({ document }) => document ?? []),
    ...standInsFor(joined, verdicts, snapshot),
  ];
  const steps = planned.map((object) => stepTo(object, observed.get(keyOf(refOf(object)))));
  const replaced = rightsOf(
    { name: AGENT_NAME, namespace: gateway.installation.home },
    snapshot.rights,
    snapshot.bindings,
  )
    .own.filter(({ metadata }) => metadata.name !== rightsName(gateway.installation.home))
    .map(replacedStep);
  const unchanged = joined.filter(({ document }) => !document).map(({ certificate }) => unchangedStep(certificate));
  const moves = verdicts.flatMap(({ upstream, outcome }): OnboardStep[] => {
    if (outcome.kind !== 'move') return [];
    const object = moved(upstream.route, outcome.move);
    const diff = diffObjects(upstream.route, object);
    const patch = movePatch(object, outcome.move);
    return object === upstream.route ? [] : [{ action: 'change', object, patch, diff }];
  });
  return { findings, gateway, joined, verdicts, steps: [...steps, ...unchanged, ...replaced], moves };
}

/** The others of the agent's namespace, which keep their rights. An invalid one is not served anyway. */
function certificatesBeside(
  certificates: readonly MeshCertificate[],
  home: string,
  { meshCertificates }: OnboardSnapshot,
  { adapters, gateways }: { readonly adapters: readonly Adapter[]; readonly gateways: readonly Gateway[] },
): MeshCertificate[] {
  const validate = validator(adapters, gateways);
  const known = new Set(certificates.map(({ metadata }) => metadata.name));
  return meshCertificates.flatMap((one) => {
    if (one.metadata.namespace !== home || known.has(one.metadata.name)) return [];
    const result = validate(one);
    return result.ok ? [result.value] : [];
  });
}

/** What stands in for the targets of all routes that lead there, or will. */
const standInsFor = (
  joined: readonly Joined[],
  verdicts: readonly MoveVerdict[],
  snapshot: OnboardSnapshot,
): readonly KubeObject[] =>
  joined.flatMap((one) => {
    const request = standInRequest(one, snapshot);
    const routes = verdicts.flatMap(({ upstream, outcome }) =>
      outcome.kind !== 'stay' && outcome.mesh === one.mesh ? [upstream.route] : [],
    );
    return request ? (one.gateway.onboarding.standIns?.objects(routes, request) ?? []) : [];
  });

/** Each volume once. */
function mountsFor(installations: readonly Installation[], adapters: readonly Adapter[]): readonly AgentMount[] {
  const mounts = installations.flatMap((installation) => {
    const discover = adapters.find(({ mesh }) => mesh === installation.mesh)?.discover;
    return discover?.mounts?.(installation) ?? [];
  });
  return [...new Map(mounts.map((mount) => [mount.volume.name, mount])).values()];
}

function stepTo(object: KubeObject, observed: KubeObject | undefined): OnboardStep {
  if (!observed) return { action: 'create', object, diff: diffObjects(undefined, object) };
  const diff = diffObjects(observed, object);
  // Of a MeshCertificate, which its user may edit, a field that a tool would undo.
  const holder = object.kind === KIND ? toolOf(observed) : holderOf(observed);
  const isEqual = differences(object, observed).length === 0;
  if (holder !== undefined && !(object.kind === KIND && isEqual)) {
    const exists = `exists, and onboard did not create it, or no longer maintains it (${holder})`;
    return suffices(object, observed)
      ? { action: 'keep', object, diff: [], note: `${exists}; it is used as it is` }
      : { action: 'blocked', object, diff, note: exists };
  }
  if (isEqual) return { action: 'none', object, diff: [] };
  // Of an object of the user's, the fields that change.
  const patch =
    object.kind === KIND && !isOnboarded(observed) ? changedFields(object, observed) : withVersion(object, observed);
  return { action: 'change', object, patch, diff };
}

/** Rights that have the name of an earlier version. */
const replacedStep = (object: KubeObject): OnboardStep => ({
  action: 'delete',
  object,
  diff: [],
  note: 'an earlier version gave all agents this name; the rights are under another name now',
});

function changedFields({ apiVersion, kind, metadata, spec }: KubeObject, observed: KubeObject): KubeObject {
  const before = fields(observed.spec);
  const changes = Object.entries(fields(spec)).filter(([key, value]) => !isDeepStrictEqual(value, before[key]));
  const { name, namespace = '' } = metadata;
  return {
    apiVersion,
    kind,
    metadata: { name, namespace, ...preconditionOf(observed) },
    spec: Object.fromEntries(changes),
  };
}

function unchangedStep(certificate: MeshCertificate): OnboardStep {
  return {
    action: 'keep',
    object: certificate,
    diff: [],
    note: 'exists, and is used as it is: onboard did not create it',
  };
}

function named(
  wanted: readonly string[],
  upstreams: readonly UpstreamFinding[],
  title: string,
): ReadonlySet<UpstreamFinding> {
  const placeOf = ({ route: { metadata } }: UpstreamFinding) => `${metadata.namespace}/${metadata.name}`;
  return new Set(
    wanted.map((name) => {
      const found = upstreams.find((one) => placeOf(one) === name || one.route.metadata.name === name);
      if (found) return found;
      const known = upstreams.flatMap((one) => [placeOf(one), one.route.metadata.name]);
      const close = nearest(name, known);
      const hint = close ? `; did you mean "${close}"?` : `; this gateway serves ${upstreams.map(placeOf).join(', ')}`;
      throw new OnboardError('ERR_ONBOARD_UNKNOWN_NAME', `no ${title} is named "${name}"${hint}`);
    }),
  );
}

/** `MeshCertificate edge/web`: how messages name a step's object. */
export const titleOf = ({ object }: OnboardStep): string => describe(refOf(object));

const VERB = {
  create: 'create',
  change: 'change',
  delete: 'delete',
  none: 'unchanged',
  keep: 'keep',
  blocked: 'blocked',
} as const;

/** Throws ERR_ONBOARD_NOT_OURS for objects that are not as they must be, and that somebody else maintains. */
export function refuseBlocked({ steps }: Pick<OnboardPlan, 'steps'>): void {
  const blocked = steps.filter(({ action }) => action === 'blocked');
  if (blocked.length === 0) return;
  const list = blocked.map((step) => `${titleOf(step)} ${step.note}`).join('; ');
  throw new OnboardError(
    'ERR_ONBOARD_NOT_OURS',
    `nothing was changed: ${list}. Make the change that the plan shows there, where it is maintained, or delete it, and run this again`,
  );
}

/** Every object in the order of writing, with its changes. Ends in a newline. */
export function showPlan({ steps, moves }: Pick<OnboardPlan, 'steps' | 'moves'>): string {
  const all = [...steps, ...moves];
  const width = Math.max(...Object.values(VERB).map((verb) => verb.length));
  const lines = all.flatMap((step) => [
    `  ${VERB[step.action].padEnd(width)}  ${titleOf(step)}`,
    ...(step.note === undefined ? [] : [`      ${step.note}`]),
    ...shortened(step).map((line) => `      ${line}`),
  ]);
  return `Plan\n${lines.map(printable).join('\n')}\n`;
}

/** What the moves of a plan can cost, and how each is checked; empty without a move. Ends in a newline. */
export function showCost(
  { gateway: { gateway }, moves }: Pick<OnboardPlan, 'gateway' | 'moves'>,
  gatewayUrl?: string,
): string {
  if (moves.length === 0) return '';
  const { cost, route } = gateway.onboarding.wording;
  const check =
    gatewayUrl === undefined
      ? `No request checks what a move changes; --gateway-url URL sends some before and after, and moves a ${route} back if the answers get worse.`
      : `Requests to ${gatewayUrl} before and after each move check it; a ${route} is moved back if the answers get worse.`;
  return `\nWhat a move can cost\n  ${cost}\n  ${check}\n`;
}

/** Nobody reads the schema of a definition in a plan. */
function shortened({ object, diff }: OnboardStep): readonly string[] {
  if (object.kind !== 'CustomResourceDefinition') return diff;
  return diff.length === 0 ? [] : ['as `meshcert schema --crd` prints it'];
}

/** The objects to apply, as YAML documents: for a repository that another tool applies. */
export function planAsYaml({ steps, moves }: Pick<OnboardPlan, 'steps' | 'moves'>): string {
  const written = steps.filter(({ action }) => action !== 'keep' && action !== 'delete');
  const objects = [...written, ...moves].map(({ object }) => object);
  return objects.map((object) => `---\n${yamlOf(bare(object), { sorted: false })}`).join('');
}
