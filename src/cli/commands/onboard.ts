import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { declare } from '../declare/command.ts';
import { bool, choice, duration, hostAndPort, list, many, parsed, text, texts, type Values } from '../declare/flags.ts';
import { VERSION } from '../declare/version.ts';

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
  summary: 'Find meshes and gateway, and take the gateway into the mesh',
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
  run: async ({ flags }, io) => (await import('../run/onboard.ts')).runOnboard(flags, io),
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
