import type { Clock } from '../async/clock.ts';
import { limitedTo } from '../async/linked-signal.ts';
import { ALLOW_ANY } from '../config/allow.ts';
import { rbacFor } from '../config/rbac.ts';
import type { MeshCertificate } from '../config/schema/mesh-certificate.ts';
import type { Preflight } from '../core/preflight.ts';
import { isTrouble } from '../core/status.ts';
import { verify } from '../core/verify.ts';
import { type Gateway, gatewaysOf } from '../gateway/gateway.ts';
import { parsedValue, readPair } from '../gateway/publication.ts';
import { gateways } from '../gateways.ts';
import type { Kube } from '../kube/api.ts';
import { readLease } from '../kube/lease.ts';
import { RESOURCES } from '../kube/resources.ts';
import { APPLY_DEFINITION, DEFINITION } from '../kube/transport/classify.ts';
import { absentIsUndefined, KubeError } from '../kube/transport/error.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { selectsPod } from '../mesh/cluster.ts';
import { MeshError } from '../mesh/error.ts';
import { type ExaminedCheck, Examiner } from '../mesh/examiner.ts';
import type { CheckTitle, Hit } from '../mesh/object-check.ts';
import { safeMessage } from '../mesh/secrets.ts';
import {
  describe,
  fields,
  type KubeObject,
  listOfFields,
  type ObjectRef,
  type Resource,
  refOf,
  text,
} from '../objects/objects.ts';
import { agentOf, doctorHost, type FoundAgent, userOf } from './observed.ts';

/**
 * The result of one check of the running system. The message says what was observed, what is wrong and its consequence,
 * or why it was not checked.
 */
export interface Seen extends ExaminedCheck, Pick<Hit, 'object' | 'severity'>, Partial<Pick<Hit, 'fix'>> {}

/** The checks of the running system, each with its area. */
export const LOOKS: readonly (CheckTitle & { readonly area: string })[] = [
  { code: 'MC6001', area: 'Kubernetes', severity: 'error', title: 'The API server does not answer' },
  { code: 'MC6002', area: 'Kubernetes', severity: 'warning', title: 'Two clocks differ' },
  {
    code: 'MC6003',
    area: 'Kubernetes',
    severity: 'error',
    title: 'The definition of MeshCertificate is missing or incomplete',
  },
  { code: 'MC6004', area: 'Kubernetes', severity: 'error', title: 'The definitions of the gateway are missing' },
  { code: 'MC6005', area: 'agent', severity: 'error', title: 'No agent runs' },
  { code: 'MC6006', area: 'agent', severity: 'error', title: 'The pods of the agent are not ready' },
  { code: 'MC6007', area: 'agent', severity: 'error', title: 'No agent leads' },
  { code: 'MC6008', area: 'agent', severity: 'error', title: 'The agent lacks a permission' },
  { code: 'MC6009', area: 'publication', severity: 'error', title: 'A MeshCertificate is not ready' },
  { code: 'MC6010', area: 'mesh', severity: 'error', title: 'The mesh does not issue' },
  {
    code: 'MC6011',
    area: 'publication',
    severity: 'error',
    title: 'An object that a MeshCertificate publishes is missing',
  },
  { code: 'MC6012', area: 'publication', severity: 'error', title: 'A published pair would not be published again' },
  {
    code: 'MC6013',
    area: 'Kubernetes',
    severity: 'warning',
    title: 'A definition of the gateway is of the experimental channel',
  },
  { code: 'MC6014', area: 'agent', severity: 'warning', title: 'A binding under a shared name is for another agent' },
  { code: 'MC6101', area: 'installation', severity: 'error', title: 'You lack a permission for the installation' },
  { code: 'MC6102', area: 'installation', severity: 'error', title: 'The API server is too old' },
  { code: 'MC6103', area: 'installation', severity: 'warning', title: 'No gateway was found' },
  { code: 'MC6104', area: 'installation', severity: 'warning', title: 'No mesh was found' },
];

export interface Tools {
  readonly kube: Kube;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** For each check. */
  readonly limitMs: number;
}

/** The whole cluster as the object of a check. */
export const CLUSTER: KubeObject = { apiVersion: 'v1', kind: 'Cluster', metadata: { name: 'kubernetes' } };

/** Runs a check under the time limit; throws its error, or one that says how long it took. */
async function within<T>({ clock, signal, limitMs }: Tools, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const late = () => new Error(`no answer within ${limitMs / 1000} s (--timeout)`);
  using limit = limitedTo(clock, limitMs, late, signal);
  return await run(limit.signal);
}

/** One check of one object; makes its results. */
class Look {
  readonly #code: string;
  readonly #object: KubeObject;
  readonly #fix: string;

  constructor(code: string, object: KubeObject, fix = '') {
    this.#code = code;
    this.#object = object;
    this.#fix = fix;
  }

  passed(message: string): Seen {
    return { code: this.#code, state: 'passed', object: this.#object, message };
  }

  skipped(message: string): Seen {
    return { code: this.#code, state: 'skipped', object: this.#object, message };
  }

  failed(message: string, other: Partial<Pick<Hit, 'fix' | 'severity'>> = {}): Seen {
    return { code: this.#code, state: 'failed', object: this.#object, message, fix: this.#fix, ...other };
  }

  /** What `run` finds. A refusal says nothing about what is behind it; any other error is a failure. */
  async try({ signal }: Tools, run: () => Promise<Seen | readonly Seen[]>): Promise<readonly Seen[]> {
    try {
      return [await run()].flat();
    } catch (error) {
      signal.throwIfAborted();
      const isRefused = error instanceof KubeError && error.status === 403;
      return [isRefused ? this.skipped(error.message) : this.failed(messageOf(error))];
    }
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** At most `limit` at a time, in order. */
async function pooled<T, R>(items: readonly T[], limit: number, run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let at = 0;
  const worker = async () => {
    for (let mine = at++; mine < items.length; mine = at++) results[mine] = await run(items[mine] as T);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  return results;
}

interface Judged {
  readonly object: KubeObject;
  readonly certificate: MeshCertificate;
}

interface VerdictOptions {
  readonly adapters: readonly Adapter[];
  readonly preflight: Preflight;
  /** Epoch ms. */
  readonly now: number;
}

/** Concurrent handshakes. */
const VERDICTS_AT_ONCE = 2;
const FIX =
  'docs/errors.md explains the code; do not delete the Secrets, since the gateway falls back to plaintext without them';

/** The results of both judges for the pair and the bundle in the current Secrets. */
export async function lookAtVerdicts(
  judged: readonly Judged[],
  objects: readonly KubeObject[],
  options: VerdictOptions,
): Promise<readonly Seen[]> {
  return (await pooled(judged, VERDICTS_AT_ONCE, (one) => lookAtVerdict(one, objects, options))).flat();
}

async function lookAtVerdict(
  { object, certificate }: Judged,
  objects: readonly KubeObject[],
  { adapters, preflight, now }: VerdictOptions,
): Promise<readonly Seen[]> {
  const { metadata, spec } = certificate;
  const { namespace = 'default' } = metadata;
  const look = new Look('MC6012', object, FIX);
  const refs = [spec.secretName, spec.caSecretName].map(
    (name): ObjectRef => ({ apiVersion: 'v1', kind: 'Secret', namespace, name }),
  );
  const [identity, ca] = refs.map(({ name }) =>
    objects.find(
      ({ kind, metadata: of }) => kind === 'Secret' && of.name === name && (of.namespace ?? 'default') === namespace,
    ),
  );
  const title = `the pair in ${refs.map(describe).join(' with the roots in ')}`;
  const read = readPair(identity, ca);
  const [key, chain, bundle] = [parsedValue(read?.key), parsedValue(read?.chain), parsedValue(read?.issuers)];
  if (!identity || !ca || !key || !chain || !bundle) {
    return [look.skipped(`${title} was not judged, since it could not be read`)];
  }
  const expected = adapters.find(({ mesh }) => mesh === spec.mesh.name)?.expect(spec.mesh.config, { namespace });
  if (!expected) return [look.skipped(`there is no adapter for ${spec.mesh.name}`)];
  const ours = verify({ key, chain }, bundle, expected, now);
  const openssl = await preflight({ key, chain }, bundle);
  return [
    { verdict: ours, accepts: 'the checks of meshcert accept', refuses: 'the checks of meshcert refuse' },
    { verdict: openssl, accepts: 'OpenSSL accepts in a handshake', refuses: 'OpenSSL refuses in a handshake' },
  ].map(({ verdict, accepts, refuses }) =>
    verdict.ok
      ? look.passed(`${accepts} ${title}`)
      : look.failed(`${refuses} ${title}: ${verdict.code}: ${verdict.message}`),
  );
}

const INSTALL =
  'install the agent (docs/onboarding.md), or find out why it is gone: kubectl get deployments,daemonsets -A';
/** A clock that is this far ahead of the API server's makes every deadline wrong. */
const CLOCK_MS = 5_000;

/** `certificates` are those that an agent should publish. */
export function lookForAgents(
  agents: readonly FoundAgent[],
  certificates: readonly KubeObject[],
  pods: readonly KubeObject[],
): Seen[] {
  const [first] = certificates;
  if (agents.length === 0 && first) {
    const count = `${certificates.length} MeshCertificate${certificates.length === 1 ? '' : 's'}`;
    const message = `no Deployment or DaemonSet runs meshcert agent: nothing renews the certificates of ${count}`;
    return [new Look('MC6005', first, INSTALL).failed(message)];
  }
  const alone = certificates.filter((certificate) => !agentOf(agents, certificate));
  return [
    ...alone.map((object) => {
      const namespace = object.metadata.namespace ?? '';
      const message = `no agent watches MeshCertificates in the namespace ${namespace}: ${agents.map(placesOf).join('; ')}`;
      const fix = `add ${namespace} to --watch-namespaces of an agent, or run one there`;
      return new Look('MC6005', object, fix).failed(message);
    }),
    ...agents.map(({ workload }) => new Look('MC6005', workload).passed('it runs meshcert agent')),
    ...agents.map((agent) => readiness(agent, pods)),
  ];
}

function placesOf({ workload, resources, namespaces }: FoundAgent): string {
  const title = describe(refOf(workload));
  return resources
    ? `${title} watches ${namespaces?.join(', ') ?? 'all'}`
    : `${title} reads MeshCertificates from a file`;
}

function readiness({ workload }: FoundAgent, pods: readonly KubeObject[]): Seen {
  const [spec, status] = [fields(workload.spec), fields(workload.status)];
  const own = pods.filter((pod) => selectsPod(workload, pod));
  const wanted = Number(workload.kind === 'DaemonSet' ? (status.desiredNumberScheduled ?? 0) : (spec.replicas ?? 1));
  const reported = status.readyReplicas ?? status.numberReady;
  const ready = typeof reported === 'number' ? reported : own.filter(isReady).length;
  const fix = `kubectl -n ${workload.metadata.namespace} describe pods; kubectl -n ${workload.metadata.namespace} logs ${workload.kind.toLowerCase()}/${workload.metadata.name}`;
  const look = new Look('MC6006', workload, fix);
  if (wanted === 0) return look.failed('it wants no pods: it is scaled to zero, or no node matches');
  if (ready >= wanted) return look.passed(`${ready} of ${wanted} pods ready`);
  const reasons = [...new Set(own.flatMap(reasonsOf))];
  const why = reasons.length === 0 ? '' : ` (${reasons.slice(0, 3).join('; ')})`;
  const message = `${ready} of ${wanted} pods are ready${why}${ready === 0 ? ': nothing is renewed' : ''}`;
  return look.failed(message, { severity: ready === 0 ? 'error' : 'warning' });
}

const isReady = (pod: KubeObject): boolean =>
  listOfFields(fields(pod.status).conditions).some(({ type, status }) => type === 'Ready' && status === 'True');

/** Why its containers do not run, as the kubelet reports, and why it is not scheduled. */
function reasonsOf(pod: KubeObject): string[] {
  const { containerStatuses, conditions } = fields(pod.status);
  const waiting = listOfFields(containerStatuses).flatMap(({ state, lastState }) => {
    const reason = text(fields(fields(state).waiting).reason);
    return reason === undefined ? [] : `${reason}${endOf(fields(fields(lastState).terminated))}`;
  });
  const unscheduled = listOfFields(conditions)
    .filter(({ type, status }) => type === 'PodScheduled' && status === 'False')
    .flatMap(({ reason, message }) => text(message) ?? text(reason) ?? []);
  return [...waiting, ...unscheduled];
}

/** How a container ended that the kubelet starts again, such as OOMKilled. */
function endOf({ reason, exitCode }: Readonly<Record<string, unknown>>): string {
  if (typeof exitCode !== 'number') return '';
  return `, it ended with ${text(reason) ?? 'Error'}, exit code ${exitCode}`;
}

/** Whether each Lease of the agent has a holder that renews it. `serverNow` by the API server's clock. */
export async function lookAtLeases(tools: Tools, agent: FoundAgent, serverNow: () => number): Promise<readonly Seen[]> {
  return (await Promise.all(agent.leases.map((name) => lookAtLease(tools, agent, name, serverNow)))).flat();
}

async function lookAtLease(
  tools: Tools,
  agent: FoundAgent,
  name: string,
  serverNow: () => number,
): Promise<readonly Seen[]> {
  const ref = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', namespace: agent.namespace, name };
  const object: KubeObject = { ...ref, metadata: { name, namespace: agent.namespace } };
  const fix = `find out why no pod leads: kubectl -n ${agent.namespace} logs ${agent.workload.kind.toLowerCase()}/${agent.workload.metadata.name}`;
  const look = new Look('MC6007', object, fix);
  return await look.try(tools, async () => {
    const lease = await within(tools, (signal) => tools.kube.get(ref, signal));
    if (!lease) return look.failed('it does not exist: no agent has led yet, and nothing is written');
    const { holder, renewedAt = 0, durationMs } = readLease(lease);
    const age = serverNow() - renewedAt;
    if (!holder) return look.failed('no agent holds it: nothing is written');
    const held = `${holder} holds it, renewed ${seconds(Math.abs(age))} ${age < 0 ? 'in the future' : 'ago'}`;
    if (age > durationMs)
      return look.failed(`${held}, and it lasts ${seconds(durationMs)}: no agent leads, and nothing is written`);
    if (age < -CLOCK_MS) {
      const message = `${held}: the clock of that node is ahead of the API server's`;
      return new Look('MC6002', object, 'set the clock of the node (NTP)').failed(message);
    }
    return look.passed(held);
  });
}

const seconds = (ms: number): string => {
  const whole = Math.round(ms / 1000);
  return whole < 120 ? `${whole} s` : whole < 7200 ? `${Math.round(whole / 60)} min` : `${Math.round(whole / 3600)} h`;
};

const WARNING_MS = 5_000;
/** Meshes backdate leaves by 20 s to two minutes. */
const ERROR_MS = 60_000;

/** `skewMs`: the API server's clock minus this one, from its last response. */
export async function lookAtApi(tools: Tools, skewMs: () => number | undefined): Promise<readonly Seen[]> {
  const fix =
    'check the server in the kubeconfig (--kubeconfig, --context), the network, and whether your credentials are still good';
  const look = new Look('MC6001', CLUSTER, fix);
  try {
    const answer = fields(await within(tools, (signal) => tools.kube.raw('/version', signal)));
    const answers = look.passed(`the API server answers (${text(answer.gitVersion) ?? 'of an unknown version'})`);
    return [answers, skew(skewMs())];
  } catch (error) {
    tools.signal.throwIfAborted();
    return [look.failed(messageOf(error))];
  }
}

function skew(ms: number | undefined): Seen {
  const look = new Look('MC6002', CLUSTER, 'set both clocks (NTP)');
  if (ms === undefined) return look.skipped('the response of the API server has no time');
  const seconds = Math.round(Math.abs(ms) / 1000);
  if (Math.abs(ms) < WARNING_MS) return look.passed("this clock and the API server's differ by less than 5 s");
  const message = `the API server's clock is ${seconds} s ${ms > 0 ? 'ahead of' : 'behind'} this machine's: certificates seem expired or not yet valid, and Leases seem lost`;
  return look.failed(message, { severity: Math.abs(ms) < ERROR_MS ? 'warning' : 'error' });
}

const CRD = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  name: DEFINITION,
};

/** `expected` is the definition of this version, `used` the gateways that MeshCertificates use. */
export async function lookAtDefinitions(
  tools: Tools,
  expected: KubeObject,
  absent: ReadonlySet<string>,
  used: readonly Gateway[],
): Promise<readonly Seen[]> {
  return [...(await meshCertificates(tools, expected, absent)), ...(await lookAtGatewayDefinitions(tools, used))];
}

async function meshCertificates(
  tools: Tools,
  expected: KubeObject,
  absent: ReadonlySet<string>,
): Promise<readonly Seen[]> {
  const look = new Look('MC6003', { ...CRD, metadata: { name: CRD.name } }, APPLY_DEFINITION);
  if (absent.has('MeshCertificate')) {
    return [
      look.failed('the API server does not know MeshCertificates, so none can be created, and no agent can watch them'),
    ];
  }
  return await look.try(tools, async () => {
    const found = await within(tools, (signal) => tools.kube.get(CRD, signal));
    if (!found) throw new Error('it is served, but its definition cannot be found');
    const lacking = missingProperties(schemaOf(expected), schemaOf(found));
    if (lacking.length === 0) return look.passed('MeshCertificate is defined, with every field of this version');
    const more = lacking.length > 3 ? ` and ${lacking.length - 3} more` : '';
    const message = `the definition is of another version: it lacks ${lacking.slice(0, 3).join(', ')}${more}, which the API server then drops from every MeshCertificate`;
    return look.failed(message, { severity: 'warning' });
  });
}

function schemaOf(definition: KubeObject): unknown {
  const [version] = (fields(definition.spec).versions as unknown[]) ?? [];
  return fields(fields(version).schema).openAPIV3Schema;
}

/** Paths of properties that `wanted` has and `found` has not. */
function missingProperties(wanted: unknown, found: unknown, path = ''): string[] {
  const [want, have] = [fields(wanted), fields(found)];
  if (have['x-kubernetes-preserve-unknown-fields'] === true) return [];
  const properties = Object.entries(fields(want.properties)).flatMap(([name, schema]) => {
    const at = path === '' ? name : `${path}.${name}`;
    const there = fields(have.properties)[name];
    return there === undefined ? [at] : missingProperties(schema, there, at);
  });
  return want.items === undefined
    ? properties
    : [...properties, ...missingProperties(want.items, have.items, `${path}[]`)];
}

/**
 * The definitions of these gateways. Without any gateway in use: of those that are installed, or of the default one.
 */
export async function lookAtGatewayDefinitions(tools: Tools, used: readonly Gateway[]): Promise<readonly Seen[]> {
  const looked = await Promise.all(
    (used.length > 0 ? used : gateways).map(async (gateway) => ({
      gateway,
      seen: await definitionsOf(tools, gateway),
    })),
  );
  if (used.length > 0) return looked.flatMap(({ seen }) => seen);
  const installed = looked.filter(({ seen }) => seen.some(({ code, state }) => code === MISSING && state === 'passed'));
  const shown = installed.length > 0 ? installed : looked.filter(({ gateway }) => gateway.byDefault);
  return shown.flatMap(({ seen }) => seen);
}

const MISSING = 'MC6004';

/** The kinds of one gateway, until the first that is missing. */
async function definitionsOf(tools: Tools, { title, diagnosis }: Gateway): Promise<readonly Seen[]> {
  const seen: Seen[] = [];
  for (const { resource, fix, experimental } of diagnosis?.served ?? []) {
    const [group = ''] = resource.apiVersion.split('/');
    const name = `${resource.plural}.${group}`;
    const object: KubeObject = { ...CRD, metadata: { name } };
    const look = new Look(MISSING, object, fix);
    const found = await look.try(tools, async () => {
      const problem = await unservedReason(tools, resource);
      if (problem !== undefined) return look.failed(problem);
      if (!experimental) return [];
      const definition = await within(tools, (signal) => tools.kube.get({ ...CRD, name }, signal));
      const warning = definition && experimental(definition);
      return warning ? new Look('MC6013', object, warning.fix).failed(warning.message) : [];
    });
    seen.push(...found);
    if (found.some(({ code }) => code === MISSING)) return seen;
  }
  return [new Look(MISSING, CLUSTER).passed(`the definitions of ${title} are served`), ...seen];
}

/** Why a kind is not served in its version, or undefined. */
async function unservedReason(tools: Tools, { apiVersion, kind }: Resource): Promise<string | undefined> {
  const [group = '', version = ''] = apiVersion.split('/');
  const read = async (path: string) => {
    const answer = await absentIsUndefined(within(tools, (signal) => tools.kube.raw(path, signal)));
    return answer === undefined ? undefined : fields(answer);
  };
  const found = await read(`/apis/${group}`);
  if (!found) return `the API server does not know ${group}: no ${kind} can be published`;
  const versions = listOfFields(found.versions).map((one) => String(one.version));
  if (!versions.includes(version))
    return `${group} is served as ${versions.join(', ')}, without ${version}, in which ${kind}s are written`;
  const kinds = listOfFields((await read(`/apis/${apiVersion}`))?.resources);
  return kinds.some((one) => one.kind === kind) ? undefined : `${apiVersion} is served without ${kind}`;
}

/** What was discovered in the cluster, in sentences. */
export interface InstallationContext {
  readonly gateways: readonly string[];
  readonly meshes: readonly { readonly title: string; readonly problem?: string | undefined }[];
  /** The meshes that were searched for. */
  readonly known: readonly string[];
  /** What could not be read, and therefore may exist. */
  readonly unseen: readonly string[];
}

/** CustomResourceDefinitions with CEL rules. */
const LEAST_MINOR = 25;

/** What an installation creates. `namespaced` kinds are checked in the namespace of the agent. */
const CREATED: readonly Resource[] = [
  RESOURCES.customResourceDefinitions,
  RESOURCES.serviceAccounts,
  RESOURCES.roles,
  RESOURCES.roleBindings,
  RESOURCES.deployments,
  RESOURCES.meshCertificates,
];

/** Before anything is installed: version, rights, and whether there are a gateway and a mesh to connect. */
export async function lookBeforeInstallation(
  tools: Tools,
  namespace: string,
  surroundings: () => Promise<InstallationContext>,
): Promise<readonly Seen[]> {
  return [...(await version(tools)), ...(await rights(tools, namespace)), ...(await around(tools, surroundings))];
}

async function version(tools: Tools): Promise<readonly Seen[]> {
  const look = new Look('MC6102', CLUSTER, `upgrade Kubernetes to 1.${LEAST_MINOR} or later`);
  return await look.try(tools, async () => {
    const answer = fields(await within(tools, (signal) => tools.kube.raw('/version', signal)));
    const minor = Number.parseInt(String(answer.minor), 10);
    if (answer.major === '1' && minor < LEAST_MINOR) {
      return look.failed(`Kubernetes 1.${minor} does not check the rules in the definition of MeshCertificate (CEL)`);
    }
    return look.passed(`Kubernetes ${answer.major}.${answer.minor} checks the rules of definitions`);
  });
}

async function rights(tools: Tools, namespace: string): Promise<readonly Seen[]> {
  const fix = `ask an administrator to install, or for these rights (and for "escalate" or the rights that the agent's Role grants)`;
  const look = new Look('MC6101', CLUSTER, fix);
  return await look.try(tools, async () => {
    const allowed = await pooled(CREATED, CREATED.length, (resource) =>
      within(tools, (signal) => canI(tools.kube, 'create', resource, resource.namespaced ? { namespace } : {}, signal)),
    );
    const missing = CREATED.filter((_, at) => !allowed[at]);
    if (missing.length === 0)
      return look.passed(`you may create everything that an installation in namespace ${namespace} needs`);
    const list = missing.map(({ apiVersion, plural, namespaced }) => {
      const [group = '', v] = apiVersion.split('/');
      return describeRight({
        verb: 'create',
        group: v ? group : '',
        resource: plural,
        namespace: namespaced ? namespace : undefined,
      });
    });
    return look.failed(`you may not ${list.join(', ')}`);
  });
}

async function around(tools: Tools, surroundings: () => Promise<InstallationContext>): Promise<readonly Seen[]> {
  const gateway = new Look('MC6103', CLUSTER, 'see the message');
  const mesh = new Look('MC6104', CLUSTER, 'the guide of the mesh in docs/ says what it needs');
  return await gateway.try(tools, async () => {
    const { gateways: found, meshes, known, unseen } = await surroundings();
    const blind =
      unseen.length === 0 ? '' : ` (not seen: ${unseen.slice(0, 3).join(', ')}${unseen.length > 3 ? ' and more' : ''})`;
    const titles = gateways.map(({ title }) => title).join(', ');
    const noGateway = gateway.failed(`no Deployment or DaemonSet of ${titles} was found${blind}`, {
      fix: 'install one, or check another cluster (--context)',
    });
    const noMesh = mesh.failed(`neither ${known.join(' nor ')} was found in this cluster${blind}`, {
      fix: 'install the mesh first; one that runs elsewhere is configured by its address',
    });
    return [
      ...(found.length > 0 ? found.map((title) => gateway.passed(title)) : [noGateway]),
      ...(meshes.length > 0
        ? meshes.map(({ title, problem }) =>
            problem === undefined ? mesh.passed(title) : mesh.failed(`${title}: ${problem}`),
          )
        : [noMesh]),
    ];
  });
}

interface AccessQuestion {
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  readonly subresource?: string | undefined;
}

/**
 * Whether the connection's own user may do this, according to the API server's authorizer (SelfSubjectAccessReview).
 */
export async function canI(
  kube: Kube,
  verb: string,
  resource: Resource,
  about: AccessQuestion = {},
  signal?: AbortSignal,
): Promise<boolean> {
  const [version = '', group = ''] = resource.apiVersion.split('/').reverse();
  const { apiVersion, kind } = RESOURCES.selfSubjectAccessReviews;
  const resourceAttributes = { verb, group, version, resource: resource.plural, ...about };
  const review = { apiVersion, kind, metadata: { name: '' }, spec: { resourceAttributes } };
  const answer = await kube.post(RESOURCES.selfSubjectAccessReviews, review, signal);
  return (answer.status as { allowed?: boolean } | undefined)?.allowed === true;
}

export interface MeshOptions {
  readonly adapters: readonly Adapter[];
  readonly agents: readonly FoundAgent[];
  /** Whether the user's own rights are checked if there is no agent. */
  readonly ownRights: boolean;
  /** Whether certificates may be requested. */
  readonly issue: boolean;
  /** Whether this process has the agent's files and sockets. */
  readonly here: boolean;
}

/** Meshes that are tried concurrently. */
const MESHES_AT_ONCE = 4;

interface Tried {
  readonly object: KubeObject;
  readonly certificate: MeshCertificate;
}

/** Tries the mesh of each MeshCertificate as the agent would; the issued certificate is discarded. */
export async function lookAtMeshes(
  tools: Tools,
  tried: readonly Tried[],
  options: MeshOptions,
): Promise<readonly Seen[]> {
  const groups = new Map<string, Tried>();
  for (const one of tried) groups.set(keyOf(one), groups.get(keyOf(one)) ?? one);
  const seen = await pooled([...groups.values()], MESHES_AT_ONCE, (one) => lookAtMesh(tools, one, options));
  return seen.flat();
}

/** Equal configurations need not be tried twice. */
const keyOf = ({ certificate: { metadata, spec } }: Tried): string => JSON.stringify([metadata.namespace, spec.mesh]);

async function lookAtMesh(
  tools: Tools,
  { object, certificate }: Tried,
  options: MeshOptions,
): Promise<readonly Seen[]> {
  const { namespace = 'default' } = certificate.metadata;
  const { name, config } = certificate.spec.mesh;
  const adapter = options.adapters.find(({ mesh }) => mesh === name);
  const agent = agentOf(options.agents, object);
  const host = doctorHost({
    kube: tools.kube,
    clock: tools.clock,
    namespace,
    filesBelow: options.here ? (agent?.filesBelow ?? ['/var/run/secrets/meshcert']) : undefined,
    allow: agent?.allow ?? ALLOW_ANY,
    agentless: agent === undefined,
    mayMint: (account) => mayMint(tools, agent, account, options),
  });
  const seen: Seen[] = [];
  const examiner = new Examiner({
    clock: tools.clock,
    limitMs: tools.limitMs,
    issue: options.issue,
    here: options.here,
    signal: tools.signal,
    tell: (check) => seen.push(seenOf(object, check)),
  });
  try {
    await using opened = adapter?.open(config, host);
    if (opened?.check) await opened.check(examiner);
    else examiner.skip(name, 'its adapter has no checks');
  } catch (error) {
    tools.signal.throwIfAborted();
    examiner.fail(name, error instanceof MeshError ? `${error.code}: ${error.message}` : String(error));
  }
  return seen;
}

/** Doctor mints only what the agent may mint: the objects determine the addresses that tokens are sent to. */
async function mayMint(
  tools: Tools,
  agent: FoundAgent | undefined,
  account: { readonly name: string; readonly namespace: string },
  { ownRights }: MeshOptions,
): Promise<string | undefined> {
  const title = `ServiceAccount ${account.namespace}/${account.name}`;
  if (!agent) {
    return ownRights
      ? undefined
      : `no agent was found that may mint a token for ${title}; with --agent none, doctor checks your own right`;
  }
  try {
    const may = await within(tools, (signal) => agentMay(tools, agent, mintRight(account), signal));
    return may ? undefined : `${titleOf(agent)} may not mint a token for ${title} (MC6008), so doctor does not either`;
  } catch (error) {
    return `whether ${titleOf(agent)} may mint a token for ${title} is not known: ${messageOf(error)}`;
  }
}

function seenOf(object: KubeObject, { code, state, message }: ExaminedCheck): Seen {
  const named = /\bERR_[A-Z_]+/.exec(message)?.[0];
  const fix = named ? `follow the message; docs/errors.md explains ${named}` : 'follow the message';
  const severity = code.endsWith('-expiry') ? ({ severity: 'warning' } as const) : {};
  return new Look('MC6010', object, fix)[state](safeMessage(`${code}: ${message}`), severity);
}

/** The agent's report in the status of a MeshCertificate. */
export function lookAtStatus(object: KubeObject): Seen {
  const status = fields(object.status);
  const conditions = listOfFields(status.conditions);
  const ready = conditions.find(({ type }) => type === 'Ready');
  const fix = `meshcert status -n ${object.metadata.namespace}, then the log of the agent; docs/errors.md and docs/runbook.md explain codes and reasons`;
  const look = new Look('MC6009', object, fix);
  if (fields(object.spec).paused === true) {
    return look.skipped('it is paused (spec.paused), so no agent works on it');
  }
  if (!ready) {
    return look.failed('its status is empty: no agent has processed it', {
      fix: 'see MC6005 to MC6008; an agent writes the first status within seconds',
    });
  }
  const { generation } = object.metadata;
  const observed = Number(ready.observedGeneration ?? generation);
  if (generation !== undefined && observed < generation) {
    const message = `its spec was changed (generation ${generation}), and the agent has processed only generation ${observed}`;
    return look.failed(message, { severity: 'warning' });
  }
  const troubles = conditions.filter(
    ({ type, status }) => status !== 'Unknown' && isTrouble({ type: String(type), status: String(status) }),
  );
  if (ready.status === 'True' && troubles.length === 0) {
    const until = text(status.notAfter);
    return look.passed(`the agent reports Ready${until ? `, its leaf ends at ${until}` : ''}`);
  }
  const lastError = fields(status.lastError);
  const cause = text(lastError.message);
  // Ready, Published and Degraded all name the cause; once is enough.
  const first = troubles.findIndex(({ message }) => cause !== undefined && text(message)?.includes(cause));
  const sentences = troubles
    .filter(({ message }, at) => at <= first || cause === undefined || !text(message)?.includes(cause))
    .map(({ type, reason, message }) => `${type} ${reason}: ${text(message)?.replace(/\.$/, '')}`);
  const causes =
    cause && !sentences.some((one) => one.includes(cause)) ? [`last error ${lastError.code}: ${cause}`] : [];
  const message =
    [...sentences, ...causes, ...attempts(status)].join('; ') || `the agent reports Ready=${ready.status}`;
  return look.failed(message, { severity: ready.status === 'True' ? 'warning' : 'error' });
}

/** Since when it fails, and the times of the last and the next attempt. */
function attempts(status: Record<string, unknown>): string[] {
  const { firstTime, time } = fields(status.lastError);
  if (typeof time !== 'string') return [];
  const next = text(status.nextAttemptTime);
  const since = text(firstTime) ?? time;
  return [`failing since ${since}, last attempt at ${time}${next === undefined ? '' : `, next attempt at ${next}`}`];
}

/** Whether its published objects exist. `known` returns whether the objects of a kind were all read. */
export function lookAtObjects(
  certificate: MeshCertificate,
  object: KubeObject,
  objects: readonly KubeObject[],
  known: (kind: string) => boolean,
  perTarget: boolean,
): Seen[] {
  const { metadata, spec } = certificate;
  const namespace = metadata.namespace ?? 'default';
  const secret = (name: string, hurts: string) => ({ kind: 'Secret', namespace, name, hurts });
  const meta = { name: metadata.name, namespace };
  const wanted = [
    secret(spec.secretName, 'the gateway has no certificate to send'),
    secret(spec.caSecretName, 'the gateway has no roots to verify upstreams with'),
    // One for each target means none while there is no target.
    ...gatewaysOf(spec, gateways).flatMap(({ gateway, config }) =>
      gateway
        .references({ meta, spec, config, targets: perTarget ? [] : undefined })
        .map(({ kind, name, namespace: place = namespace }) => ({
          kind,
          namespace: place,
          name,
          hurts: gateway.wording.missing,
        })),
    ),
  ];
  const fix = 'see MC6009 and MC6010 for the reason; once the mesh issues, the agent creates it';
  const look = new Look('MC6011', object, fix);
  return wanted.map(({ kind, namespace: place, name, hurts }) => {
    const title = describe({ apiVersion: '', kind, namespace: place, name });
    const there = objects.some(
      (one) => one.kind === kind && one.metadata.name === name && one.metadata.namespace === place,
    );
    if (there) return look.passed(`${title} exists`);
    return known(kind) ? look.failed(`${title} does not exist: ${hurts}`) : look.skipped(`${title} could not be read`);
  });
}

/** One question to the authorizer. */
interface Right {
  readonly verb: string;
  readonly group: string;
  readonly resource: string;
  readonly subresource?: string | undefined;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
}

/** Concurrent questions; the API server answers each from memory. */
const REVIEWS_AT_ONCE = 8;
const SHOWN = 5;

const describeRight = ({ verb, group, resource, subresource, namespace, name }: Right): string => {
  const what = `${resource}${group === '' ? '' : `.${group}`}${subresource ? `/${subresource}` : ''}`;
  return `${verb} ${what}${name ? ` ${name}` : ''} ${namespace ? `in namespace ${namespace}` : 'in all namespaces'}`;
};

/**
 * Whether the agent's ServiceAccount may do all that these MeshCertificates need, according to the API server's
 * authorizer.
 */
export async function lookAtRights(
  tools: Tools,
  agent: FoundAgent,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): Promise<readonly Seen[]> {
  const { workload, serviceAccount } = agent;
  const home = workload.metadata.namespace ?? agent.namespace;
  const fix = `grant it what \`meshcert render --rbac\` prints for these MeshCertificates, or update the chart's values`;
  const look = new Look('MC6008', workload, fix);
  return await look.try(tools, async () => {
    const needed = rightsOf(agent, certificates, adapters);
    const allowed = await pooled(needed, REVIEWS_AT_ONCE, (right) =>
      within(tools, (signal) => agentMay(tools, agent, right, signal)),
    );
    const missing = needed.filter((_, at) => !allowed[at]);
    const who = `ServiceAccount ${home}/${serviceAccount}`;
    if (missing.length === 0) return look.passed(`${who} has the ${needed.length} rights that it needs`);
    const more = missing.length > SHOWN ? `, and ${missing.length - SHOWN} more` : '';
    const list = missing.slice(0, SHOWN).map(describeRight).join(', ');
    return look.failed(`${who} may not ${list}${more}`);
  });
}

/** The name of all Roles and bindings before they carried the agent's namespace. */
const SHARED = 'meshcert';

/**
 * Whether another agent is bound where agents of several namespaces had rights under one name. It was bound last, and the
 * others lost theirs.
 */
export async function lookAtSharedNames(
  tools: Tools,
  agent: FoundAgent,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): Promise<readonly Seen[]> {
  const { workload, serviceAccount: name } = agent;
  const home = workload.metadata.namespace ?? agent.namespace;
  const bindings = rolesOf(agent, certificates, adapters).filter(
    ({ kind, metadata }) => kind.endsWith('Binding') && metadata.namespace !== home,
  );
  const seen = await pooled(bindings, REVIEWS_AT_ONCE, async ({ apiVersion, kind, metadata }) => {
    const ref = { apiVersion, kind, namespace: metadata.namespace, name: SHARED };
    const object: KubeObject = { ...ref, metadata: { ...metadata, name: SHARED } };
    const fix = `grant each agent what \`meshcert render --rbac\` or \`meshcert onboard\` of this version gives it; then delete ${describe(ref)} and its Role`;
    const look = new Look('MC6014', object, fix);
    return await look.try(tools, async () => {
      const found = await within(tools, (signal) => tools.kube.get(ref, signal));
      // The agent of that namespace itself is bound there by any version.
      const others = listOfFields(found?.subjects).filter(
        (one) => one.namespace !== metadata.namespace && (one.name !== name || one.namespace !== home),
      );
      if (found === undefined || others.length === 0) return [];
      const who = others.map((one) => `${String(one.namespace)}/${String(one.name)}`).join(', ');
      return look.failed(
        safeMessage(
          `it binds ${who}; earlier versions gave the rights of every agent this name, and replaced those of ${home}/${name}`,
        ),
      );
    });
  });
  return seen.flat();
}

async function agentMay(tools: Tools, agent: FoundAgent, right: Right, signal: AbortSignal): Promise<boolean> {
  const { apiVersion, kind } = RESOURCES.subjectAccessReviews;
  const spec = { ...userOf(agent), resourceAttributes: right };
  const review: KubeObject = { apiVersion, kind, metadata: { name: '' }, spec };
  const answer = await tools.kube.post(RESOURCES.subjectAccessReviews, review, signal);
  return fields(answer.status).allowed === true;
}

function rolesOf(
  agent: FoundAgent,
  certificates: readonly MeshCertificate[],
  adapters: readonly Adapter[],
): readonly KubeObject[] {
  const { workload, serviceAccount: name, leaseName, shards, resources } = agent;
  const namespace = workload.metadata.namespace ?? agent.namespace;
  const serviceAccount = { name, namespace };
  return rbacFor(certificates, { serviceAccount, leaseName, shards, resources, name, adapters, gateways });
}

function rightsOf(agent: FoundAgent, certificates: readonly MeshCertificate[], adapters: readonly Adapter[]): Right[] {
  const roles = rolesOf(agent, certificates, adapters);
  const rights = roles.flatMap((role) => (Array.isArray(role.rules) ? rightsIn(role, role.rules.map(fields)) : []));
  const needed = agent.leases.length === 0 ? rights.filter(({ resource }) => resource !== 'leases') : rights;
  return [...new Map(needed.map((right) => [JSON.stringify(right), right])).values()];
}

function rightsIn(role: KubeObject, rules: readonly Readonly<Record<string, unknown>>[]): Right[] {
  const strings = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);
  return rules.flatMap((rule) =>
    strings(rule.apiGroups).flatMap((group) =>
      strings(rule.resources).flatMap((path) => {
        const [resource = '', subresource] = path.split('/');
        const names = rule.resourceNames === undefined ? [undefined] : strings(rule.resourceNames);
        const { namespace } = role.metadata;
        return strings(rule.verbs).flatMap((verb) =>
          names.map((name) => ({ verb, group, resource, subresource, namespace, name })),
        );
      }),
    ),
  );
}

/** Whether a token may be minted: what the agent may not do, doctor does not do in its place. */
const mintRight = (account: { readonly name: string; readonly namespace: string }): Right => ({
  verb: 'create',
  group: '',
  resource: 'serviceaccounts',
  subresource: 'token',
  ...account,
});

const titleOf = (agent: FoundAgent): string => describe(refOf(agent.workload));
