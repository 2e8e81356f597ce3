import { environments } from '../../adapters/environments.ts';
import { systemClock } from '../async/clock.ts';
import { customResourceDefinition } from '../config/schema/crd.ts';
import { formatPath, validator } from '../config/validate.ts';
import {
  areasOf,
  checksOf,
  diagnose,
  examine,
  findingsOf,
  type LiveObjects,
  NOTHING,
  type Origin,
  parseManifest,
  readCluster,
  readFiles,
  worstFirst,
} from '../doctor/doctor.ts';
import {
  type InstallationContext,
  LOOKS,
  lookAtApi,
  lookAtGatewayDefinitions,
  lookBeforeInstallation,
  type Seen,
  type Tools,
} from '../doctor/looks.ts';
import { FORMATS, report } from '../doctor/report.ts';
import type { ClusterSnapshot, GatewaySettings } from '../gateway/gateway.ts';
import { gateways } from '../gateways.ts';
import type { Kube } from '../kube/api.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { SEVERITIES } from '../mesh/object-check.ts';
import { describe, type KubeObject, refOf } from '../objects/objects.ts';
import { productOf } from '../onboard/onboard.ts';
import { discover } from '../onboard/plan.ts';
import { takeSnapshot } from '../onboard/snapshot.ts';
import { opensslPreflight } from '../preflight/preflight.ts';
import { adaptersWith } from './adapter-files.ts';
import { adapterFlag, bool, choice, duration, text, texts, UsageError, type Values } from './flags.ts';
import { CLUSTER_FLAGS, type ClusterFlags, clusterOf, declare, type Io, namespaceOf, VERSION } from './program.ts';
import { readInput, systemReason } from './terminal.ts';

const flags = {
  filename: texts(
    '-f, --filename <path>',
    'Check this file, all manifests below this directory, or "-" for standard input, instead of a cluster',
  ).offers('files'),
  output: choice('-o, --output <format>', 'Output format', FORMATS, 'text'),
  failOn: choice('--fail-on <severity>', 'Lowest severity that makes the exit code 1', SEVERITIES, 'error'),
  ambassadorId: text('--ambassador-id <id>', 'ID of the gateway, where its Deployment does not name it'),
  gatewayNamespace: text(
    '--gateway-namespace <name>',
    'Namespace of the gateway, where its Deployment does not show it',
  ).offers('namespaces'),
  list: bool('--list', 'List the checks'),
  pre: bool('--pre', 'Check whether meshcert can be installed: API server, rights, gateway, mesh').conflicts(
    'filename',
  ),
  issue: bool('--no-issue', 'Request no certificates from the meshes, for CAs that limit or charge for them'),
  agent: choice(
    '--agent <which>',
    'With "none", no agent runs in this cluster, and doctor checks your own rights instead',
    ['auto', 'none'] as const,
    'auto',
  ),
  timeout: duration('--timeout <duration>', 'Time limit of each step', '10s', '100ms'),
  adapter: adapterFlag(),
  ...CLUSTER_FLAGS,
};

export type DoctorFlags = Values<typeof flags>;

export const doctor = declare({
  name: 'doctor',
  description:
    'Finds what breaks mTLS or will break it: routes that fall back to plaintext, pairs that block the gateway, an ' +
    'agent that does not run, does not lead or lacks a right, a mesh that does not issue. Reads a cluster, or files ' +
    'before they are applied. Tries each mesh as the agent would, and discards the certificate. Changes nothing. ' +
    'With --namespace it checks only this namespace. docs/doctor.md and docs/checks.md explain each code.',
  flags,
  examples: [
    { does: 'Check the whole cluster', line: 'meshcert doctor' },
    { does: 'Check before anything is installed', line: 'meshcert doctor --pre' },
    { does: 'Check manifests in a pull request', line: 'meshcert doctor -f deploy/ --fail-on warning -o sarif' },
    { does: 'Check what Helm would apply', line: 'helm template edge ./chart | meshcert doctor -f -' },
  ],
  exitCodes:
    '0  nothing at or above the severity of --fail-on was found\n' +
    '1  something was found, the API server does not answer, or a file is not YAML\n2  wrong usage',
  run: async ({ flags }, io) => runDoctor(flags, io),
});

interface Read {
  readonly objects: readonly KubeObject[];
  readonly origins: ReadonlyMap<KubeObject, Origin>;
  readonly whole: ReadonlySet<string>;
  readonly namespaces?: readonly string[] | undefined;
  readonly skipped: readonly string[];
  readonly seen: readonly Seen[];
}

export async function runDoctor(flags: DoctorFlags, io: Io): Promise<number> {
  const adapters = await adaptersWith(flags.adapter);
  if (flags.list) {
    for (const { code, severity, title } of [...checksOf(adapters), ...LOOKS])
      io.stdout.write(`${code}  ${severity.padEnd(7)}  ${title}\n`);
    return 0;
  }
  const isFiles = flags.filename.length > 0;
  const { objects, origins, whole, namespaces, skipped, seen } = isFiles
    ? await fromFiles(flags.filename, io)
    : await fromCluster(flags, adapters, io);
  const inObjects = diagnose(
    { objects, whole, namespaces, adapters, now: systemClock.now(), ...validation(adapters) },
    settingsOf(flags),
  );
  const findings = worstFirst([...inObjects, ...findingsOf(seen)]);
  io.stdout.write(
    report(flags.output, {
      findings,
      checks: checksOf(adapters),
      areas: areasOf(adapters),
      seen,
      origins,
      judged: objects.length,
      skipped,
      version: VERSION,
    }),
  );
  const worst = Math.max(-1, ...findings.map(({ severity }) => SEVERITIES.indexOf(severity)));
  // A file that could not be read is not a clean result.
  return worst >= SEVERITIES.indexOf(flags.failOn) || (isFiles && skipped.length > 0) ? 1 : 0;
}

async function fromFiles(paths: readonly string[], io: Io): Promise<Read> {
  const { objects, origins, skipped } = await readFiles(
    paths.filter((path) => path !== '-'),
    (file) => readInput(file, io),
  ).catch((cause) => {
    if (cause.syscall === undefined && !(cause instanceof TypeError)) throw cause;
    throw new UsageError(`cannot read ${cause.path ?? paths.join(', ')}: ${systemReason(cause)}`);
  });
  const piped = paths.includes('-') ? parseManifest(await readInput('-', io), 'standard input') : undefined;
  const sentences = [...skipped, ...(piped?.skipped ?? [])].map(
    ({ file, line, message }) => `${file}:${line}: ${message}`,
  );
  return {
    objects: [...objects, ...(piped?.found.map(({ object }) => object) ?? [])],
    origins: new Map([...origins, ...(piped?.found.map(({ object, origin }) => [object, origin] as const) ?? [])]),
    whole: new Set(),
    skipped: sentences,
    seen: [],
  };
}

async function fromCluster(flags: DoctorFlags, adapters: readonly Adapter[], io: Io): Promise<Read> {
  const { live, seen } = await examineCluster(flags, adapters, io);
  const { objects, whole, namespaces, skipped } = live ?? NOTHING;
  return { objects, origins: new Map(), whole, namespaces, skipped, seen };
}

function validation(adapters: readonly Adapter[]): Pick<ClusterSnapshot, 'validate' | 'parse'> {
  const check = validator(adapters, gateways);
  return {
    validate(object) {
      const result = check(object);
      return result.ok ? [] : result.issues.map(({ path, message }) => `${formatPath(path)}: ${message}`);
    },
    parse(object) {
      const result = check(object);
      return result.ok ? result.value : undefined;
    },
  };
}

const settingsOf = ({ ambassadorId, gatewayNamespace }: DoctorFlags): GatewaySettings => ({
  id: ambassadorId,
  namespace: gatewayNamespace,
});

export interface ExamineFlags extends ClusterFlags {
  /** Before anything is installed. */
  readonly pre: boolean;
  /** Whether certificates may be requested. */
  readonly issue: boolean;
  /** `none`: no agent runs in this cluster, and the user's own rights are checked. */
  readonly agent: 'auto' | 'none';
  /** For each check, in ms. */
  readonly timeout: number;
}

export interface ClusterExamination {
  readonly live: LiveObjects | undefined;
  readonly seen: readonly Seen[];
}

/** Examines the cluster of the kubeconfig: objects, agent and meshes, or whether meshcert can be installed. */
export async function examineCluster(
  flags: ExamineFlags,
  adapters: readonly Adapter[],
  io: Io,
): Promise<ClusterExamination> {
  let skew: number | undefined;
  // The header is cut to whole seconds: adding half a second is the best estimate.
  const dated = (serverMs: number) => {
    skew = serverMs + 500 - systemClock.now();
  };
  const kube = clusterOf(flags, io, { dated });
  const tools: Tools = { kube, clock: systemClock, signal: io.signal, limitMs: flags.timeout };
  try {
    if (flags.pre)
      return { live: undefined, seen: await beforeInstallation(tools, adapters, namespaceOf(flags, io), () => skew) };
    const validate = validator(adapters, gateways);
    return await examine(tools, {
      read: () => readCluster(kube, flags.namespace === undefined ? undefined : [flags.namespace], io.signal),
      parse: (object) => {
        const result = validate(object);
        return result.ok ? result.value : undefined;
      },
      adapters,
      definition: customResourceDefinition(adapters, gateways) as unknown as KubeObject,
      environmentFlags: environments.map(({ flag }) => flag),
      agent: flags.agent === 'auto',
      issue: flags.issue,
      here: io.env.KUBERNETES_SERVICE_HOST !== undefined,
      skewMs: () => skew,
      preflight: opensslPreflight(),
    });
  } finally {
    kube.close();
  }
}

async function beforeInstallation(
  tools: Tools,
  adapters: readonly Adapter[],
  namespace: string,
  skewMs: () => number | undefined,
): Promise<readonly Seen[]> {
  const api = await lookAtApi(tools, skewMs);
  if (api.some(({ code, state }) => code === 'MC6001' && state === 'failed')) return api;
  const definitions = await lookAtGatewayDefinitions(tools, []);
  return [
    ...api,
    ...definitions,
    ...(await lookBeforeInstallation(tools, namespace, () => surroundings(tools.kube, adapters, tools.signal))),
  ];
}

async function surroundings(
  kube: Kube,
  adapters: readonly Adapter[],
  signal: AbortSignal,
): Promise<InstallationContext> {
  const kinds = { adapters, gateways };
  const { gateways: found, meshes, unseen } = discover(await takeSnapshot(kube, kinds, signal), kinds);
  const versioned = (name: string, version: string | undefined) =>
    version === undefined ? name : `${name} ${version}`;
  return {
    gateways: found.map(({ installation }) => `${productOf(installation)}, ${describe(refOf(installation.object))}`),
    meshes: meshes.map(({ mesh, namespace, version, problem }) => ({
      title: `${versioned(adapters.find((one) => one.mesh === mesh)?.title ?? mesh, version)} in namespace ${namespace}`,
      problem,
    })),
    known: adapters.flatMap(({ discover: finds, title }) => (finds ? [title] : [])),
    unseen: unseen.map(({ what }) => what),
  };
}
