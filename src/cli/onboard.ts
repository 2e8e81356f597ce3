import { readdir } from 'node:fs/promises';
import { adapters } from '../../adapters/index.ts';
import { systemClock } from '../async/clock.ts';
import { gateways } from '../gateways.ts';
import { carryOut, checkOnServer, isNothing, leftBehind, lookAndPlan, showFindings } from '../onboard/onboard.ts';
import { type OnboardOptions, planAsYaml, refuseBlocked, showCost, showPlan, titleOf } from '../onboard/plan.ts';
import { bool, choice, duration, hostAndPort, list, many, parsed, text, texts, type Values } from './flags.ts';
import { CLUSTER_FLAGS, clusterOf, declare, type Io, VERSION } from './program.ts';
import { confirmed, sayTo } from './terminal.ts';

const FINDS = 'What it finds:';
const DOES = 'What it does:';
const TRIES = 'How it checks each move:';

const flags = {
  mesh: list('--mesh <list>', 'Join only these meshes (default: all that it finds)').helpGroup(FINDS),
  gateway: text('--gateway <namespace/name>', 'Which gateway, where more than one runs').helpGroup(FINDS),
  mapping: texts('--mapping <namespace/name>', 'Move only this route').helpGroup(FINDS),
  files: texts('--files <directory>', "Take the certificate from files in this directory of the agent's pod").helpGroup(
    FINDS,
  ),
  set: texts('--set <field=value>', 'A field of spec, such as trust.hold=5m').helpGroup(FINDS),
  agent: text('--agent <image>', 'Also run the agent, as a Deployment with this image').helpGroup(FINDS),
  yes: bool('-y, --yes', 'Do not ask for confirmation').helpGroup(DOES),
  dryRun: choice('--dry-run <where>', 'Show the plan and stop; with server, let the API server check it too', [
    'client',
    'server',
  ]).helpGroup(DOES),
  output: choice('-o, --output <format>', 'Print the objects, for GitOps, and stop', ['yaml']).helpGroup(DOES),
  timeout: duration('--timeout <duration>', 'How long to wait for the certificates', '5m').helpGroup(DOES),
  probe: bool('--no-probe', 'Do not probe upstreams from here').helpGroup(TRIES),
  connectTo: many(
    '--connect-to <host:port=host:port>',
    'Reach an upstream elsewhere, such as through kubectl port-forward',
    connectTo,
  ).helpGroup(TRIES),
  gatewayUrl: parsed('--gateway-url <url>', 'Gateway URL for requests that check each move', urlOf).helpGroup(TRIES),
  settle: duration(
    '--settle <duration>',
    'How long to send these requests (default: 10s, or 20s where the gateway takes longer to change)',
  ).helpGroup(TRIES),
  ...CLUSTER_FLAGS,
};

export type OnboardFlags = Values<typeof flags>;

export const onboard = declare({
  name: 'onboard',
  description:
    'Looks at the cluster, shows what it found, and shows a plan: every object with what changes in it. Once you agree, ' +
    'it applies the plan, waits until the certificates are published, probes each upstream, and moves the ' +
    'routes one by one. It reverts a route whose answers get worse. A second run changes nothing.',
  flags,
  examples: [
    { does: 'Show what would be done', line: 'meshcert onboard --dry-run=client' },
    { does: 'Join the mesh, and run the agent', line: `meshcert onboard --agent ghcr.io/meshcert/meshcert:${VERSION}` },
    { does: 'Write the objects to a repository for GitOps', line: 'meshcert onboard -o yaml > meshcert.yaml' },
  ],
  run: async ({ flags }, io) => runOnboard(flags, io),
});

function connectTo(text: string): readonly [string, string] {
  const [from = '', to = '', ...more] = text.split('=');
  if (more.length > 0) throw new Error('expected HOST:PORT=HOST:PORT');
  return [hostAndPort(from), hostAndPort(to)];
}

function urlOf(text: string): string {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text)) throw new Error('expected http(s)://host');
  return text;
}

export async function runOnboard(flags: OnboardFlags, io: Io): Promise<number> {
  const kube = clusterOf(flags, io);
  const options: OnboardOptions = {
    kube,
    adapters,
    gateways,
    clock: systemClock,
    random: Math.random,
    say: sayTo(io.stdout),
    preferences: {
      gateway: flags.gateway,
      namespace: flags.namespace,
      meshes: flags.mesh,
      routes: flags.mapping.length === 0 ? undefined : flags.mapping,
      changes: flags.set,
      image: flags.agent,
    },
    directories: await namesIn(flags.files),
    probe: flags.probe,
    connectTo: new Map(flags.connectTo),
    gatewayUrl: flags.gatewayUrl,
    timeoutMs: flags.timeout,
    settleMs: flags.settle,
    signal: io.signal,
  };
  try {
    return await run(options, flags, io);
  } finally {
    kube.close();
  }
}

/** What is in each directory, if it is visible from here. */
async function namesIn(directories: readonly string[]): Promise<OnboardOptions['directories']> {
  const names = directories.map(async (directory) => {
    const path = directory.replace(/(?<!.\/)(?<=.)\/+$/, '');
    return [path, await readdir(path).catch(() => undefined)] as const;
  });
  return new Map(await Promise.all(names));
}

async function run(options: OnboardOptions, { dryRun, output, yes }: OnboardFlags, io: Io): Promise<number> {
  const plan = await lookAndPlan(options);
  const findings = showFindings(plan.findings, plan.gateway, plan.verdicts, options.adapters);
  if (output) {
    io.stderr.write(findings);
    for (const step of plan.steps) {
      if (step.action === 'blocked') io.stderr.write(`${titleOf(step)} ${step.note}: apply it there\n`);
    }
    io.stdout.write(planAsYaml(plan));
    return 0;
  }
  io.stdout.write(`${findings}\n${showPlan(plan)}${showCost(plan, options.gatewayUrl)}\n`);
  refuseBlocked(plan);
  if (dryRun === 'client') return 0;
  if (dryRun === 'server') {
    await checkOnServer(plan, options);
    return 0;
  }
  if (isNothing(plan)) {
    io.stdout.write('Nothing to do: everything is as it should be.\n');
    return 0;
  }
  if (!yes && !(await confirmed('Apply this plan?', io))) return 1;
  const left = leftBehind(await carryOut(plan, options));
  if (left) throw left;
  io.stdout.write('Done. `meshcert status` shows what is published. `meshcert offboard` reverses this.\n');
  return 0;
}
