import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../async/clock.ts';
import { allowFlags, needsOf } from '../config/allow.ts';
import { rbacFor } from '../config/rbac.ts';
import { customResourceDefinition } from '../config/schema/crd.ts';
import { KIND, type MeshCertificate } from '../config/schema/mesh-certificate.ts';
import { nearest, validator } from '../config/validate.ts';
import { differences } from '../core/plan.ts';
import type { Gateway } from '../gateway/gateway.ts';
import type { Kube } from '../kube/api.ts';
import { type Adapter, tlsDefaults } from '../mesh/adapter.ts';
import type { Account, AgentMount, Installation } from '../mesh/cluster.ts';
import { KUBERNETES_AUDIENCE } from '../mesh/input.ts';
import { offlineHost, offlineRules } from '../mesh/offline-host.ts';
import { printable } from '../mesh/secrets.ts';
import {
  describe,
  fields,
  type KubeObject,
  keyOf,
  MANAGED_BY_LABEL,
  preconditionOf,
  refOf,
  text,
} from '../objects/objects.ts';
import { findGateways, findUpstream, type GatewayFinding, onboardable, type UpstreamFinding } from './discover.ts';
import {
  holderOf,
  type Joined,
  judge,
  type MoveVerdict,
  moved,
  movePatch,
  ONBOARD_FIELD_MANAGER,
  rightsName,
  rightsOf,
  standInRequest,
  stays,
  suffices,
  toolOf,
  withVersion,
} from './moves.ts';
import {
  accepted,
  bare,
  CREATED_LABELS,
  diffObjects,
  documentFor,
  isOnboarded,
  ONBOARD_LABEL,
  OnboardError,
  type OnboardSnapshot,
  type Unseen,
  yamlOf,
} from './snapshot.ts';

/** Receives reports of progress. */
export interface Announce {
  /** A permanent line. */
  line(text: string): void;
  /** What is currently waited for; printed again only when it changes. */
  waiting(text: string): void;
}

/** What joining and leaving have in common. */
export interface OnboardMeans {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly Gateway[];
  readonly clock: Clock;
  readonly say: Announce;
  readonly signal: AbortSignal;
}

export interface OnboardOptions extends OnboardMeans {
  readonly random: () => number;
  readonly preferences: OnboardPreferences;
  /** Directories of certificates that the user named, and the files in them; undefined: not visible from here. */
  readonly directories: ReadonlyMap<string, readonly string[] | undefined>;
  /** Present the pair to the upstream before a move. */
  readonly probe: boolean;
  /** Maps `host:port` of the cluster to the address that reaches it from here, such as a port-forward. */
  readonly connectTo: ReadonlyMap<string, string>;
  /** Where clients reach the gateway; absent: only the agent's confirmation is awaited. */
  readonly gatewayUrl: string | undefined;
  /** How long to wait for the certificates. */
  readonly timeoutMs: number;
  /** How long requests through the gateway are watched after a move; absent: as long as the gateway needs. */
  readonly settleMs?: number | undefined;
}

/** The user's restrictions; absent: whatever is found. */
export interface OnboardPreferences {
  /** `namespace/name`, or a name, or `Gateway namespace/name` where two kinds have the same. */
  readonly gateway?: string | undefined;
  /** The namespace of the gateway, if more than one runs. */
  readonly namespace?: string | undefined;
  readonly meshes?: readonly string[] | undefined;
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
  readonly diff: readonly string[];
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
  means: Pick<OnboardMeans, 'adapters' | 'gateways' | 'clock'>,
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
    return stays(upstream, 'ERR_TARGET_UNSELECTED', 'not among those named by --mapping');
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
  { adapters, gateways }: Pick<OnboardMeans, 'adapters' | 'gateways'>,
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

export function chooseGateway(
  { gateways, unseen }: Findings,
  kinds: readonly Gateway[],
  { gateway: wanted, namespace }: Pick<OnboardPreferences, 'gateway' | 'namespace'> = {},
): GatewayFinding {
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
function chooseMeshes(
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

/** The discovered state, before anything is planned. */
export interface Findings {
  readonly meshes: readonly Installation[];
  /** Further remarks of the meshes' adapters about this cluster, for people. */
  readonly remarks: readonly string[];
  readonly gateways: readonly GatewayFinding[];
  /** Our agents: their Deployments, and the holders of their Lease. */
  readonly agents: readonly string[];
  readonly unseen: readonly Unseen[];
}

export function discover(
  snapshot: OnboardSnapshot,
  { adapters, gateways }: Pick<OnboardMeans, 'adapters' | 'gateways'>,
): Findings {
  return {
    meshes: adapters.flatMap((adapter) => adapter.discover?.installations(snapshot) ?? []),
    remarks: adapters.flatMap((adapter) => adapter.discover?.remarks?.(snapshot) ?? []),
    gateways: findGateways(snapshot, gateways, adapters),
    agents: agentsOf(snapshot),
    unseen: snapshot.unseen,
  };
}

function agentsOf({ workloads, leases }: OnboardSnapshot): string[] {
  const deployed = workloads.filter(({ metadata }) => metadata.labels?.['app.kubernetes.io/name'] === 'meshcert');
  const held = leases.filter(({ metadata }) => /^meshcert(-\d+)?$/.test(metadata.name));
  const holders = held.flatMap((lease) => text(fields(lease.spec).holderIdentity) ?? []);
  return [...deployed.map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`), ...holders];
}

/** The routes that this gateway serves, by namespace and name. */
export function findUpstreams(
  snapshot: OnboardSnapshot,
  { gateway, installation }: GatewayFinding,
  adapters: readonly Adapter[],
): UpstreamFinding[] {
  const place = ({ route: { metadata, kind } }: UpstreamFinding) => `${metadata.namespace}/${metadata.name}/${kind}`;
  return gateway.onboarding
    .upstreams(installation, snapshot)
    .map((upstream) => findUpstream(upstream, snapshot, adapters))
    .sort((a, b) => (place(a) < place(b) ? -1 : 1));
}

/** The finding for a mesh that is used if there are several. */
const firstOf = (meshes: readonly Installation[], mesh: string): Installation | undefined =>
  meshes.find((one) => one.mesh === mesh && one.problem === undefined) ?? meshes.find((one) => one.mesh === mesh);

/** Name of the agent's ServiceAccount, Deployment and Lease. */
export const AGENT_NAME = 'meshcert';

const labels = {
  'app.kubernetes.io/name': AGENT_NAME,
  [MANAGED_BY_LABEL]: 'meshcert',
  [ONBOARD_LABEL]: 'true',
};

/** The account of a gateway that has none in its namespace, if a token for it is needed. */
function accountFor(
  { installation }: GatewayFinding,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): KubeObject[] {
  const { serviceAccount: name, home: namespace, workload } = installation;
  const isMinted = certificates
    .flatMap((certificate) => needsOf(certificate, adapters))
    .some((need) => need.kind === 'token' && need.name === name && need.namespace === namespace);
  if (!isMinted || workload?.metadata.namespace === namespace) return [];
  return [{ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace, labels: CREATED_LABELS } }];
}

/** What the agent needs for these certificates: its account, exactly the Roles, and on request the agent itself. */
export function grantsFor(
  certificates: readonly MeshCertificate[],
  namespace: string,
  image: string | undefined,
  {
    adapters,
    gateways,
    mounts,
  }: {
    readonly adapters: readonly Adapter[];
    readonly gateways: readonly Gateway[];
    readonly mounts: readonly AgentMount[];
  },
): KubeObject[] {
  const roles = rbacFor(certificates, {
    adapters,
    gateways,
    serviceAccount: { name: AGENT_NAME, namespace },
    leaseName: AGENT_NAME,
    shards: 1,
    resources: true,
    name: ONBOARD_FIELD_MANAGER,
  });
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: AGENT_NAME, namespace, labels } },
    ...roles.map((role) => ({
      ...role,
      metadata: { ...role.metadata, labels: { ...role.metadata.labels, ...labels } },
    })),
    ...(image === undefined
      ? []
      : [deployment({ namespace, image, flags: audienceFlags(certificates, adapters), adapters, mounts })]),
  ];
}

/**
 * Audiences that open the Kubernetes API must be listed, and if one is listed, all must be. Without them, none is
 * listed: a further MeshCertificate then needs no other flags.
 */
function audienceFlags(certificates: readonly MeshCertificate[], adapters: readonly Adapter[]): readonly string[] {
  const flags = allowFlags(certificates, adapters).filter((flag) => flag.startsWith('--allow-audience='));
  return flags.includes(`--allow-audience=${KUBERNETES_AUDIENCE}`) ? flags : [];
}

function deployment({
  namespace,
  image,
  flags,
  adapters,
  mounts,
}: {
  readonly namespace: string;
  readonly image: string;
  readonly flags: readonly string[];
  readonly adapters: readonly Adapter[];
  readonly mounts: readonly AgentMount[];
}): KubeObject {
  const volumeMounts = mounts.map(({ volume: { name }, mountPath }) => ({ name, mountPath, readOnly: true }));
  const selector = { 'app.kubernetes.io/name': AGENT_NAME };
  const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: AGENT_NAME, namespace, labels },
    spec: {
      replicas: 2,
      selector: { matchLabels: selector },
      template: {
        metadata: {
          labels: selector,
          // A sidecar would wrap the agent's own TLS to the mesh's CA in another TLS.
          annotations: Object.assign({}, ...adapters.map(({ pods }) => pods?.notInjected)),
        },
        spec: {
          serviceAccountName: AGENT_NAME,
          securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
          containers: [
            {
              name: 'agent',
              image,
              args: ['agent', '--observe', 'names', ...flags],
              env: [field('POD_NAME', 'metadata.name'), field('POD_NAMESPACE', 'metadata.namespace')],
              ports: [{ name: 'http', containerPort: 9464 }],
              readinessProbe: { httpGet: { path: '/readyz', port: 'http' } },
              livenessProbe: { httpGet: { path: '/healthz', port: 'http' } },
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ['ALL'] },
              },
              ...(mounts.length === 0 ? {} : { volumeMounts }),
            },
          ],
          ...(mounts.length === 0 ? {} : { volumes: mounts.map(({ volume }) => volume) }),
        },
      },
    },
  };
}

interface Ground {
  readonly gateway: GatewayFinding;
  readonly upstreams: readonly UpstreamFinding[];
  readonly snapshot: OnboardSnapshot;
  readonly changes: readonly string[];
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly Gateway[];
  readonly clock: Clock;
}

/** The gateway's membership in one mesh: the MeshCertificate, as it exists or as it will be applied. */
async function join(installation: Installation, ground: Ground, signal: AbortSignal): Promise<Joined> {
  const { gateway: found, upstreams, snapshot, changes, adapters, gateways, clock } = ground;
  const { gateway } = found;
  const { mesh } = installation;
  const adapter = adapters.find((one) => one.mesh === mesh);
  if (!adapter) throw new TypeError(`no adapter for mesh ${mesh}`);
  const meshes = adapters.map((one) => one.mesh);
  const validate = validator(adapters, gateways);
  const rulesFor = ({ metadata: { namespace = 'default' }, spec }: MeshCertificate) => {
    const host = offlineHost({ clock, namespace, objects: snapshot.configMaps });
    return offlineRules(adapter, spec.mesh.config, host, signal);
  };
  const joined = (certificate: MeshCertificate, rules: Joined['rules'], document?: KubeObject): Joined => ({
    mesh,
    gateway,
    certificate,
    document,
    rules,
    view: { ...adapter, tls: tlsDefaults(adapter, certificate.spec.mesh.config) },
  });
  const existing = snapshot.meshCertificates.find((one) => isFor(one, mesh, found.installation.home));
  if (existing && !isOnboarded(existing)) {
    const certificate = accepted(existing, validate, 'the cluster has this value; correct it there');
    // One of the user's is extended by a gateway that it does not use yet, and otherwise used as it is.
    if (certificate.spec.gateways[gateway.kind] !== undefined) {
      return joined(certificate, await rulesFor(certificate));
    }
  }
  const behind = upstreams.filter(({ membership }) => membership === mesh);
  const documentOf = (targets: readonly Account[]) =>
    documentFor({
      installation,
      adapter,
      meshes,
      gateway: found,
      gateways,
      routes: behind.map(({ route }) => route),
      targets,
      gatewayObjects: snapshot.gatewayObjects,
      changes,
      existing,
    });
  const draft = accepted(documentOf([]), validate);
  const rules = await rulesFor(draft);
  if (!rules || gateway.onboarding.standIns) return joined(draft, rules, documentOf([]));
  // A listed target has its object before any route needs it, so that each route moves in one write.
  const alone = [joined(draft, rules, documentOf([]))];
  const possible = behind.filter((one) => judge(one, alone, snapshot).outcome.kind !== 'stay');
  const document = documentOf(distinct(possible.flatMap(({ accounts }) => accounts)));
  const certificate = accepted(document, validate);
  return joined(certificate, await rulesFor(certificate), document);
}

const isFor = ({ metadata, spec }: KubeObject, mesh: string, namespace: string): boolean =>
  metadata.namespace === namespace && (spec as Record<string, unknown> | undefined)?.[mesh] !== undefined;

function distinct(accounts: readonly Account[]): Account[] {
  const byPlace = new Map(accounts.map((one) => [`${one.namespace}/${one.serviceAccount}`, one]));
  return [...byPlace.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => one);
}
