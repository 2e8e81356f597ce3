import { parseArgs } from 'node:util';
import { parseDuration } from '../mesh/duration.ts';
import { LOG_LEVELS, type LogLevel } from '../telemetry/log.ts';
import { UsageError } from './command.ts';

export const AGENT_USAGE = `usage: meshcert agent [--config FILE | --consul-connector] [flags]

Keeps MeshCertificates published: fetches certificates from the mesh, verifies
them, writes Secrets and TLSContexts, and rotates them. Without --config, it
watches MeshCertificate resources in the cluster.

  --config FILE          MeshCertificate documents (YAML); reloaded on change
  --consul-connector     read the environment of the old Consul connector
  -n, --namespace NAME   namespace of the agent: default for documents, where
                         its Lease is, and what is watched
  --watch-namespaces A,B watch MeshCertificates in these namespaces
  -A, --all-namespaces   watch MeshCertificates in all namespaces
  --observe names|labels one watch for each object (a Role with resourceNames
                         is enough), or one for all (a Role that may list)
  --files-below DIR,…    where MeshCertificate resources may name token and CA
                         files (default /var/run/secrets/meshcert); documents
                         of --config may name any
  --once                 publish, then exit: 0 when all is published
  --timeout DURATION     how long --once may take (default 2m)
  --dry-run              let the API server check every write, store nothing
  --no-leader-elect      write without holding a Lease
  --lease-name NAME      name of the Lease (default meshcert)
  --shards N             split MeshCertificates over N Leases (default 1)
  --listen HOST:PORT     /healthz /readyz /metrics and the status page
                         (default 127.0.0.1:9464 off a cluster, :9464 in one;
                         "off" for none)
  --gateway-diagnostics URL,…  where the gateway tells what it uses: Emissary's
                         diagnostics (http://POD:8877) or, in its pod, Envoy's
                         admin interface (http://127.0.0.1:8001)
  --kubeconfig FILE      instead of KUBECONFIG or the pod's ServiceAccount
  --context NAME         context of the kubeconfig
  --log-level LEVEL      ${LOG_LEVELS.join(', ')} (default info)
`;

export interface AgentFlags {
  readonly config: string | undefined;
  readonly consulConnector: boolean;
  readonly namespace: string | undefined;
  readonly watchNamespaces: readonly string[] | undefined;
  readonly allNamespaces: boolean;
  readonly observe: 'names' | 'labels';
  readonly filesBelow: readonly string[] | undefined;
  readonly once: boolean;
  readonly timeoutMs: number;
  readonly dryRun: boolean;
  readonly leaderElect: boolean;
  readonly leaseName: string;
  readonly shards: number;
  readonly listen: string | undefined;
  readonly gatewayDiagnostics: string | undefined;
  readonly kubeconfig: string | undefined;
  readonly context: string | undefined;
  readonly logLevel: LogLevel;
}

export function parseAgentFlags(argv: readonly string[]): AgentFlags {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      config: { type: 'string' },
      'consul-connector': { type: 'boolean', default: false },
      namespace: { type: 'string', short: 'n' },
      'watch-namespaces': { type: 'string' },
      'all-namespaces': { type: 'boolean', short: 'A', default: false },
      observe: { type: 'string' },
      'files-below': { type: 'string', default: '/var/run/secrets/meshcert' },
      once: { type: 'boolean', default: false },
      timeout: { type: 'string', default: '2m' },
      'dry-run': { type: 'boolean', default: false },
      'no-leader-elect': { type: 'boolean', default: false },
      'lease-name': { type: 'string', default: 'meshcert' },
      shards: { type: 'string', default: '1' },
      listen: { type: 'string' },
      'gateway-diagnostics': { type: 'string' },
      kubeconfig: { type: 'string' },
      context: { type: 'string' },
      'log-level': { type: 'string', default: 'info' },
    },
  });
  const fromFile = values.config !== undefined || values['consul-connector'];
  if (values.config !== undefined && values['consul-connector']) {
    throw new UsageError('--config and --consul-connector exclude each other');
  }
  if (fromFile && (values['all-namespaces'] || values['watch-namespaces'] !== undefined)) {
    throw new UsageError('--all-namespaces and --watch-namespaces are for MeshCertificate resources, not for --config');
  }
  const observe = values.observe ?? (fromFile ? 'names' : 'labels');
  if (observe !== 'names' && observe !== 'labels') throw new UsageError('--observe must be names or labels');
  const shards = Number(values.shards);
  if (!Number.isInteger(shards) || shards < 1 || shards > 64) throw new UsageError('--shards must be 1 to 64');
  const logLevel = LOG_LEVELS.find((level) => level === values['log-level']);
  if (!logLevel) throw new UsageError(`--log-level must be one of ${LOG_LEVELS.join(', ')}`);
  return {
    config: values.config,
    consulConnector: values['consul-connector'],
    namespace: values.namespace,
    watchNamespaces: values['watch-namespaces']?.split(',').map((name) => name.trim()),
    allNamespaces: values['all-namespaces'],
    observe,
    filesBelow: fromFile ? undefined : values['files-below'].split(',').map((path) => path.trim()),
    once: values.once,
    timeoutMs: timeout(values.timeout),
    dryRun: values['dry-run'],
    // A one-shot run is a single writer by what it is; waiting for a Lease would only delay an init container.
    leaderElect: !values['no-leader-elect'] && !values.once && !values['dry-run'],
    leaseName: values['lease-name'],
    shards,
    listen: values.listen,
    gatewayDiagnostics: values['gateway-diagnostics'],
    kubeconfig: values.kubeconfig,
    context: values.context,
    logLevel,
  };
}

function timeout(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new UsageError(`--timeout: ${error instanceof Error ? error.message : String(error)}`);
  }
}
