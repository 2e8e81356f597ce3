import { parseArgs } from 'node:util';
import { adapters } from '../../adapters/index.ts';
import { nearest } from '../config/nearest.ts';
import { systemClock } from '../mesh/clock.ts';
import { parseDuration } from '../mesh/duration.ts';
import {
  carryOut,
  checkOnServer,
  isNothing,
  leftBehind,
  lookAndPlan,
  type OnboardOptions,
} from '../onboard/onboard.ts';
import { showFindings } from '../onboard/show-findings.ts';
import { planAsYaml, showPlan } from '../onboard/show-plan.ts';
import { parseConnectTo } from '../onboard/trial.ts';
import { CLUSTER_OPTIONS, clusterOf } from './cluster-flags.ts';
import { type Command, type Io, UsageError } from './command.ts';
import { confirmed } from './confirm.ts';
import { sayTo } from './say-to.ts';

const USAGE = `usage: meshcert onboard [flags]

Looks at the cluster, says what it found, and shows a plan: every object with
what changes in it. Once you agree, it applies the plan, waits until the
certificates are published, shows them to each upstream, and moves the Mappings
one by one; one that fails is put back. Run again, it changes nothing.

What it finds
  --mesh istio,…         join only these meshes (default: all that are found)
  --gateway NAMESPACE/NAME  which gateway, where more than one runs
  --mapping NAMESPACE/NAME  move only this Mapping; may be repeated
  --set FIELD=VALUE      a field of spec, such as istio.ca.clusterId=prod or
                         trust.hold=5m; may be repeated
  --agent IMAGE          also run the agent, as a Deployment with this image

What it does
  -y, --yes              do not ask
  --dry-run=client       show the plan and stop
  --dry-run=server       also let the API server check it; store nothing
  -o yaml                print the objects, for GitOps, and stop
  --timeout DURATION     to wait for the certificates (default 5m)

How it tries
  --no-probe             do not show the certificate to upstreams from here
  --connect-to HOST:PORT=HOST:PORT  reach an upstream elsewhere, such as through
                         kubectl port-forward; may be repeated
  --gateway-url URL      ask here whether requests arrive after each move
  --settle DURATION      for how long (default 10s)

  -n, --namespace NAME   the gateway's, where more than one runs
  --kubeconfig FILE      instead of KUBECONFIG
  --context NAME         context of the kubeconfig
`;

const OPTIONS = {
  ...CLUSTER_OPTIONS,
  mesh: { type: 'string' },
  gateway: { type: 'string' },
  mapping: { type: 'string', multiple: true },
  set: { type: 'string', multiple: true },
  agent: { type: 'string' },
  yes: { type: 'boolean', short: 'y', default: false },
  'dry-run': { type: 'string' },
  output: { type: 'string', short: 'o' },
  timeout: { type: 'string', default: '5m' },
  'no-probe': { type: 'boolean', default: false },
  'connect-to': { type: 'string', multiple: true },
  'gateway-url': { type: 'string' },
  settle: { type: 'string', default: '10s' },
} as const;

export const onboard: Command = {
  name: 'onboard',
  summary: 'Find meshes and gateway, and take the gateway into the mesh',
  usage: USAGE,
  async run(argv, io) {
    const { values } = parseArgs({ args: [...argv], options: OPTIONS });
    const dryRun = oneOf('--dry-run', values['dry-run'], ['client', 'server']);
    const output = oneOf('-o', values.output, ['yaml']);
    const kube = clusterOf(values, io);
    const options: OnboardOptions = {
      kube,
      adapters,
      clock: systemClock,
      random: Math.random,
      say: sayTo(io.stdout),
      wishes: {
        gateway: values.gateway,
        namespace: values.namespace,
        meshes: values.mesh?.split(',').map((name) => name.trim()),
        mappings: values.mapping,
        changes: values.set ?? [],
        image: values.agent,
      },
      probe: !values['no-probe'],
      connectTo: new Map((values['connect-to'] ?? []).map(connectTo)),
      gatewayUrl: values['gateway-url'] === undefined ? undefined : urlOf('--gateway-url', values['gateway-url']),
      timeoutMs: duration('--timeout', values.timeout),
      settleMs: duration('--settle', values.settle),
      signal: io.signal,
    };
    try {
      return await run(options, { dryRun, output, yes: values.yes }, io);
    } finally {
      kube.close();
    }
  },
};

interface Mode {
  readonly dryRun: 'client' | 'server' | undefined;
  readonly output: 'yaml' | undefined;
  readonly yes: boolean;
}

async function run(options: OnboardOptions, { dryRun, output, yes }: Mode, io: Io): Promise<number> {
  const plan = await lookAndPlan(options);
  const findings = showFindings(plan.findings, plan.gateway, plan.verdicts);
  if (output) {
    io.stderr.write(findings);
    io.stdout.write(planAsYaml(plan));
    return 0;
  }
  io.stdout.write(`${findings}\n${showPlan(plan)}\n`);
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
  io.stdout.write('Done. `meshcert status` shows what is published, `meshcert offboard` is the way back.\n');
  return 0;
}

export function oneOf<const T extends string>(flag: string, given: string | undefined, known: readonly T[]) {
  const found = known.find((one) => one === given);
  if (given === undefined || found !== undefined) return found;
  const meant = nearest(given, known);
  throw new UsageError(`${flag} must be ${known.join(' or ')}${meant ? `; did you mean ${meant}?` : ''}`);
}

function duration(flag: string, text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new UsageError(`${flag}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function connectTo(text: string): readonly [string, string] {
  const parsed = parseConnectTo(text);
  if (!parsed) throw new UsageError(`--connect-to ${text}: expected HOST:PORT=HOST:PORT`);
  return parsed;
}

function urlOf(flag: string, text: string): string {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text))
    throw new UsageError(`${flag} ${text}: expected http(s)://host`);
  return text;
}
