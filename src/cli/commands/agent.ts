import { setFlagsFromString } from 'node:v8';
import { environments } from '../../../adapters/environments.ts';
import type { LoadingEndpoint } from '../../gateway/loading.ts';
import { gateways } from '../../gateways.ts';
import { LOG_LEVELS } from '../../mesh/log.ts';
import { adapterFlag } from '../declare/adapter-flag.ts';
import { declare } from '../declare/command.ts';
import { bool, choice, duration, integer, list, many, parsed, text, texts, type Values } from '../declare/flags.ts';

const WHICH = 'Which MeshCertificates:';
const ALLOWED = 'What MeshCertificates may use:';
const HOW = 'How it writes:';
const WHERE = 'What it serves and connects to:';

const environmentFlags: object = Object.fromEntries(
  environments.map(({ attribute, flag, description }) => [
    attribute,
    bool(flag, description).conflicts(['config', 'allNamespaces', 'watchNamespaces']).helpGroup(WHICH),
  ]),
);

const flags = {
  config: text('--config <file>', 'MeshCertificate documents (YAML); reloaded on change')
    .conflicts(['allNamespaces', 'watchNamespaces'])
    .offers('files')
    .helpGroup(WHICH),
  ...environmentFlags,
  adapter: adapterFlag().helpGroup(WHICH),
  namespace: text(
    '-n, --namespace <name>',
    "Namespace of the agent: the default for documents, the place of its Lease, and what it watches (default: the pod's)",
  )
    .offers('namespaces')
    .helpGroup(WHICH),
  watchNamespaces: list('--watch-namespaces <list>', 'Watch MeshCertificates in these namespaces')
    .offers('namespaces')
    .helpGroup(WHICH),
  allNamespaces: bool('-A, --all-namespaces', 'Watch MeshCertificates in all namespaces')
    .conflicts('watchNamespaces')
    .helpGroup(WHICH),
  observe: choice(
    '--observe <how>',
    'names: one watch for each object; a Role with resourceNames is enough. labels: one watch for all objects; needs a ' +
      'Role that may read every Secret',
    ['names', 'labels'],
    'names',
  ).helpGroup(WHICH),
  filesBelow: list(
    '--files-below <list>',
    'Directories in which MeshCertificate resources may name files (default: ' +
      '/var/run/secrets/meshcert); documents of --config may name any',
  )
    .offers('files')
    .helpGroup(WHICH),
  allowServiceAccount: many(
    '--allow-service-account <id>',
    'Mint tokens for this ServiceAccount, as NAMESPACE/NAME; "*" matches part of a name',
    accountEntry,
  ).helpGroup(ALLOWED),
  allowAudience: texts('--allow-audience <name>', 'Mint tokens for this audience').helpGroup(ALLOWED),
  allowAddress: many(
    '--allow-address <address>',
    'Connect to this address: HOST, HOST:PORT, unix:/PATH, or file:/PATH to read certificates from; "*" matches part ' +
      'of a name. MeshCertificate resources ' +
      'need all three lists with --observe labels and with --all-namespaces. Otherwise a list that is not given allows ' +
      'everything of its kind, except audiences of the Kubernetes API',
    addressEntry,
  ).helpGroup(ALLOWED),
  once: bool('--once', 'Publish, then exit: with 0 when everything is published').helpGroup(HOW),
  timeout: duration('--timeout <duration>', 'How long --once may take', '2m').helpGroup(HOW),
  dryRun: bool('--dry-run', 'Let the API server check every write; store nothing').helpGroup(HOW),
  leaderElect: bool('--no-leader-elect', 'Write without holding a Lease').helpGroup(HOW),
  leaseName: text('--lease-name <name>', 'Name of the Lease', 'meshcert').helpGroup(HOW),
  shards: integer('--shards <n>', 'Split MeshCertificates over this many Leases', 1, 1, 64).helpGroup(HOW),
  listen: text(
    '--listen <host:port>',
    '/healthz, /readyz, /metrics and the status page; "off" for none (default: 127.0.0.1:9464 outside a cluster, :9464 in one)',
  ).helpGroup(WHERE),
  allowedHosts: list(
    '--allowed-hosts <list>',
    'Host names by which the HTTP server may be reached, such as meshcert.example.com or *.example.com, beside IP ' +
      'addresses, localhost and names of Services',
  ).helpGroup(WHERE),
  gatewayDiagnostics: parsed(
    '--gateway-diagnostics <list>',
    "Where the gateway reports which files it uses: its diagnostics (http://POD:8877) or, in its pod, Envoy's admin " +
      'interface (http://127.0.0.1:8001); KIND=URL for another kind of gateway than the default',
    loadingEndpoints,
  ).helpGroup(WHERE),
  otlpEndpoint: parsed(
    '--otlp-endpoint <url>',
    'Send traces of publications to this OTLP/HTTP receiver, such as http://otel-collector:4318 ' +
      '(default: $OTEL_EXPORTER_OTLP_ENDPOINT; without either, no traces)',
    httpUrl,
  ).helpGroup(WHERE),
  kubeconfig: text('--kubeconfig <file>', "Instead of $KUBECONFIG or the pod's ServiceAccount")
    .offers('files')
    .helpGroup(WHERE),
  context: text('--context <name>', 'Context of the kubeconfig').offers('contexts').helpGroup(WHERE),
  logLevel: choice('--log-level <level>', 'Lowest level to log', LOG_LEVELS, 'info').helpGroup(WHERE),
};

export type AgentFlags = Values<typeof flags>;

export const agent = declare({
  name: 'agent',
  summary: 'Keep the certificates of MeshCertificates published and rotated',
  description:
    'Keeps MeshCertificates published: fetches certificates from the mesh, verifies them, writes Secrets and the objects of the gateway, ' +
    'and rotates them. Without --config it watches MeshCertificate resources in the cluster.',
  usage: [`[${['--config FILE', ...environments.map(({ flag }) => flag)].join(' | ')}] [flags]`],
  flags,
  examples: [
    { does: 'Watch the MeshCertificates of the namespace of the agent', line: 'meshcert agent -n emissary' },
    { does: 'Run from a file', line: 'meshcert agent --config mesh.yaml' },
    {
      does: 'Publish once, in an init container or a Job',
      line: 'meshcert agent --config mesh.yaml --once --timeout 1m',
    },
    {
      does: 'Let the API server check what would be written',
      line: 'meshcert agent --config mesh.yaml --once --dry-run',
    },
  ],
  exitCodes:
    '0  stopped by a signal, or with --once: everything is published\n1  failed, or could not read the kubeconfig or --config at the start\n2  wrong usage',
  run: async ({ flags }, io) => {
    keepHeapSmall();
    return (await import('../run/agent.ts')).runAgent(flags, io);
  },
});

function accountEntry(entry: string): string {
  if (/^[^/\s]+\/[^/\s]+$/.test(entry)) return entry;
  throw new Error('expected NAMESPACE/NAME, such as edge/gateway');
}

function addressEntry(entry: string): string {
  if (/^((unix|file):\/\S+|(\[[0-9A-Fa-f:.]+\]|[^\s/:]+)(:\d{1,5})?)$/.test(entry)) return entry;
  throw new Error('expected HOST, HOST:PORT, unix:/PATH or file:/PATH');
}

function httpUrl(url: string): URL {
  if (/^https?:\/\//.test(url) && URL.canParse(url)) return new URL(url);
  throw new Error('expected http://host:port, such as http://otel-collector:4318');
}

/**
 * `[KIND=]URL`, separated by commas: a gateway's control plane and its data plane know different things. Without a kind,
 * the URL is for the first kind of gateway that answers requests.
 */
function loadingEndpoints(list: string): readonly LoadingEndpoint[] {
  const answering = gateways.filter(({ loading }) => loading?.answers);
  const kinds = answering.map(({ kind }) => kind).join(' or ');
  return list.split(',').map((part) => {
    const [, wanted, url = ''] = /^(?:([a-z][\w-]*)=)?(https?:\/\/.*)$/i.exec(part.trim()) ?? [];
    if (!URL.canParse(url)) throw new Error('expected http://host:port, such as http://127.0.0.1:8877');
    const gateway = answering.find(({ kind }) => wanted === undefined || kind === wanted);
    if (!gateway) throw new Error(`${wanted} is no gateway that can be asked; expected ${kinds}`);
    return { kind: gateway.kind, requests: gateway.loading?.answers?.requests(url) ?? [] };
  });
}

/**
 * Keeps the heap of a long-lived process close to its live data; must be called before much is loaded. By default V8
 * permanently grows the young generation to 32 MiB in the first burst, and doubles the old one between collections.
 * With 1,000 publications the agent's start costs 5 % more CPU time for it. Both flags are read when a size is chosen.
 */
function keepHeapSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
  setFlagsFromString('--heap-growing-percent=50');
}
