import { setMaxListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import { environments } from '../../adapters/environments.ts';
import { Agent, type CertificateSource } from '../agent/agent.ts';
import { alone, type Leadership, LeaseLeadership } from '../agent/election.ts';
import { Health } from '../agent/health.ts';
import { LiveSink } from '../agent/live.ts';
import type { Sink } from '../agent/reporter.ts';
import { EventSink, LogSink, MetricsSink, OnceSink, StatusBoard } from '../agent/sinks.ts';
import { configFile, customResources } from '../agent/source.ts';
import { StatusWriter } from '../agent/status-writer.ts';
import { WritePriority } from '../agent/write-order.ts';
import { systemClock } from '../async/clock.ts';
import { type Allowed, ANY } from '../config/allow.ts';
import { API_VERSION, KIND } from '../config/schema/mesh-certificate.ts';
import { formatPath, validateObject } from '../config/validate.ts';
import type { LoadingEndpoint } from '../gateway/gateway.ts';
import { gateways } from '../gateways.ts';
import { startHttp } from '../http/server.ts';
import type { Kube } from '../kube/api.ts';
import { connect } from '../kube/client.ts';
import { recorder } from '../kube/events.ts';
import { requireKubeconfig } from '../kube/transport/credentials.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { LOG_LEVELS, type Log } from '../mesh/log.ts';
import { opensslPreflight } from '../preflight/preflight.ts';
import { createLog } from '../telemetry/log.ts';
import { createMetrics, type Metrics } from '../telemetry/metrics.ts';
import { loadAdapters } from './adapter-files.ts';
import {
  adapterFlag,
  bool,
  choice,
  duration,
  integer,
  list,
  many,
  parsed,
  text,
  texts,
  UsageError,
  type Values,
} from './flags.ts';
import { declare, type Io, VERSION } from './program.ts';

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
    'names: one watch for each Secret; a Role with resourceNames is enough. labels: one watch for all objects; needs a ' +
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
  run: async ({ flags }, io) => runAgent(flags, io),
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

const clock = systemClock;
const random = Math.random;

export async function runAgent(given: AgentFlags, io: Io): Promise<number> {
  const flags = agentSettings(given);
  const log = createLog({ level: flags.logLevel });
  const namespace = flags.namespace ?? io.env.POD_NAMESPACE ?? (await podNamespace()) ?? 'default';
  const metrics = createMetrics({ version: VERSION });
  const choice = { kubeconfig: flags.kubeconfig ?? io.env.KUBECONFIG, context: flags.context };
  await requireKubeconfig(choice);
  const kube = connect({
    ...choice,
    userAgent: `meshcert/${VERSION}`,
    limited: (limit) => metrics.kubeWriteLimit.set({}, limit),
    answered: (verb, resource, status) => metrics.kubeRequests.inc({ verb, resource, status: String(status) }),
  });
  const board = new StatusBoard();
  const stop = new AbortController();
  const signal = AbortSignal.any([io.signal, stop.signal]);
  // Each reconciler, watch and wait listens to it.
  setMaxListeners(0, signal);
  const leadership = flags.leaderElect
    ? new LeaseLeadership({
        kube,
        clock,
        random,
        log,
        namespace,
        name: flags.leaseName,
        shards: flags.shards,
        identity: io.env.POD_NAME ?? `${io.env.HOSTNAME ?? 'agent'}-${process.pid}`,
      })
    : alone;
  metrics.onCollect(() => {
    for (const { name, isHeld } of leadership.leases) metrics.leader.set({ lease: name }, isHeld ? 1 : 0);
  });
  const fromResources = flags.config === undefined && flags.environment === undefined;
  const health = new Health(leadership);
  const { adapters, failures } = await loadAdapters(flags.adapter);
  for (const { code, message } of failures) {
    log.error({ code }, `${message}; MeshCertificates of other meshes are served`);
    health.problem(message, { code, message });
  }
  const writers: { flush(): Promise<void> }[] = [];
  const once = flags.once
    ? new OnceSink(() => void flushed(writers, signal).then(() => stop.abort(new Error('published'))))
    : undefined;
  const writePriority = new WritePriority(clock);
  const sinks: Sink[] = [board, new LogSink(log, clock), new MetricsSink(metrics, clock)];
  const endpoints = flags.gatewayDiagnostics;
  if (endpoints.length > 0 || gateways.some(({ loading }) => loading?.statuses)) {
    sinks.push(new LiveSink({ endpoints, gateways, random, kube, clock, log, metrics, signal }));
  }
  if (fromResources && !flags.dryRun) {
    const instance = io.env.POD_NAME ?? 'meshcert';
    const events = recorder(kube, { component: 'meshcert', instance, clock, log, signal });
    const leads = (key: string) => leadership.leads(key);
    const statuses = new StatusWriter({ kube, clock, random, log, leads, signal, writePriority });
    sinks.push(statuses, new EventSink(events));
    writers.push(statuses, events);
  }
  const tracing = await startTraces(flags.otlpEndpoint, io, log);
  if (tracing) sinks.push(tracing.sink);
  // The last, so that the writers before it have received what it waits for.
  if (once) sinks.push(once);
  const certificates = certificateSource(flags, {
    adapters,
    kube,
    log,
    metrics,
    namespace,
    leadership,
    io,
    once,
    health,
  });
  const running = new Agent({
    kube,
    adapters,
    gateways,
    certificates: certificates,
    leadership,
    sinks,
    clock,
    preflight: opensslPreflight(),
    random,
    log,
    observe: { by: flags.observe, namespaces: watched(flags, namespace) },
    writePriority,
    dryRun: flags.dryRun,
    filesBelow: flags.filesBelow,
    allow: flags.allow,
  });
  health.watching = () => running.problem;
  log.info({ version: VERSION, namespace, node: process.versions.node }, 'meshcert agent started');
  const address = flags.once ? undefined : listenAddress(flags.listen, io.env.KUBERNETES_SERVICE_HOST !== undefined);
  const http =
    address &&
    (await startHttp({
      host: address.host,
      port: address.port,
      allowedHosts: flags.allowedHosts,
      version: VERSION,
      source: board,
      health: () => health.read(),
      metrics,
      clock,
      log,
    }));
  if (http) log.info({ url: http.url }, 'serving status page, /metrics and probes');
  const cancel = once && clock.after(flags.timeout, () => stop.abort(new Error('timeout')));
  try {
    await running.run(signal);
  } finally {
    cancel?.();
    await tracing?.stop();
    await http?.stop();
    kube.close();
  }
  log.info({}, 'meshcert agent stopped; what it published stays');
  if (!once) return 0;
  if (!once.done) io.stderr.write(`meshcert agent: not everything was published:\n${once.explain()}\n`);
  return once.done ? 0 : 1;
}

/** Traces publications if an endpoint is configured; otherwise nothing of OpenTelemetry is loaded. */
async function startTraces(flag: URL | undefined, io: Io, log: Log) {
  const given = io.env.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!flag && !given) return undefined;
  if (!flag && !URL.canParse(given ?? '')) {
    throw new UsageError('OTEL_EXPORTER_OTLP_ENDPOINT is not a URL, such as http://otel-collector:4318');
  }
  const [{ startTracing }, { TraceSink }] = await Promise.all([
    import('../telemetry/otlp.ts'),
    import('../agent/trace-sink.ts'),
  ]);
  const instance = io.env.POD_NAME ?? `pid-${process.pid}`;
  const { tracer, stop } = startTracing({
    endpoint: flag ?? new URL(given ?? ''),
    version: VERSION,
    instance,
    clock,
    log,
  });
  return { sink: new TraceSink(tracer, clock), stop };
}

/** Longer than a slow API server takes, shorter than an operator waits for a Job that is done. */
const FLUSH_MS = 10_000;

/** Resolves when the writers have stored all reports, or after a while: the certificates are published already. */
async function flushed(writers: readonly { flush(): Promise<void> }[], signal: AbortSignal): Promise<void> {
  const done = new AbortController();
  const late = clock.sleep(FLUSH_MS, AbortSignal.any([signal, done.signal])).catch(() => {});
  await Promise.race([Promise.all(writers.map((writer) => writer.flush())), late]);
  done.abort(new Error('flushed'));
}

interface SourceContext {
  readonly adapters: readonly Adapter[];
  readonly kube: Kube;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly namespace: string;
  readonly leadership: Leadership;
  readonly io: Io;
  readonly once: OnceSink | undefined;
  readonly health: Health;
}

function certificateSource(flags: AgentSettings, context: SourceContext): CertificateSource {
  const { adapters, kube, log, metrics, namespace, leadership, io, once, health } = context;
  const { config, environment } = flags;
  if (environment) {
    return async function* (signal) {
      const document = await environment.document(io.env, namespace);
      const result = validateObject({ apiVersion: API_VERSION, kind: KIND, ...document }, adapters, gateways);
      if (!result.ok) {
        const issues = result.issues.map(({ path, message }) => ({ path: formatPath(path), message }));
        throw await environment.refused(issues);
      }
      const desired = [result.value];
      health.configured();
      once?.expect(desired);
      yield desired;
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    };
  }
  if (config !== undefined) {
    return async function* (signal) {
      for await (const state of configFile({ path: config, namespace, adapters, gateways, clock }, signal)) {
        metrics.configErrors.set({}, state.ok ? 0 : state.error.errors.length);
        if (state.ok) {
          health.configured();
          once?.expect(state.documents);
          yield state.documents;
        } else if (once || (state.isUnreadable && !health.read().ready)) throw state.error;
        else {
          const { code, message } = state.error;
          health.problem('config', { code, message });
          log.error({ code, file: config }, `${message}; the last valid configuration stays in use`);
        }
      }
    };
  }
  return async function* (signal) {
    const { allow } = flags;
    const namespaces = watched(flags, namespace);
    const onError = (error: Error) => {
      health.problem('watch', { code: String((error as { code?: unknown }).code), message: error.message });
    };
    const stream = customResources(
      { kube, adapters, gateways, allow, clock, random, log, namespaces, leadership, onError },
      signal,
    );
    for await (const desired of stream) {
      health.configured();
      health.clear('watch');
      once?.expect(desired);
      yield desired;
    }
  };
}

function watched(flags: AgentSettings, namespace: string): Allowed {
  return flags.allNamespaces ? ANY : (flags.watchNamespaces ?? [namespace]);
}

/** Where Kubernetes provides a pod with its namespace. */
async function podNamespace(): Promise<string | undefined> {
  try {
    return (await readFile('/var/run/secrets/kubernetes.io/serviceaccount/namespace', 'utf8')).trim();
  } catch {
    return undefined;
  }
}

/** 9464 is the default of OpenTelemetry's Prometheus exporters, so that scrape configurations often know it. */
const PORT = 9464;

/**
 * Where to listen, from `--listen`: `host:port`, `:port` for all addresses, or `off`. Without the flag only a pod
 * listens on addresses other than loopback, since probes and scrapes come from outside the pod.
 */
function listenAddress(flag: string | undefined, inPod: boolean): { host: string; port: number } | undefined {
  if (flag === 'off') return undefined;
  if (flag === undefined) return { host: inPod ? '0.0.0.0' : '127.0.0.1', port: PORT };
  const match = /^(\[[^\]]+\]|[^:]*):(\d{1,5})$/.exec(flag);
  const port = Number(match?.[2]);
  if (!match || port > 65_535) throw new UsageError(`--listen ${flag}: expected host:port, :port or off`);
  const host = match[1]?.replace(/^\[|\]$/g, '');
  return { host: host === undefined || host === '' ? '0.0.0.0' : host, port };
}

const FILES_BELOW = ['/var/run/secrets/meshcert'];

/** The combined meaning of the flags. */
function agentSettings(flags: AgentFlags) {
  const given: Readonly<Record<string, unknown>> = flags;
  const environment = environments.find(({ attribute }) => given[attribute] === true);
  const fromFile = flags.config !== undefined || environment !== undefined;
  const mustList = !fromFile && (flags.observe === 'labels' || flags.allNamespaces);
  const listed = (entries: readonly string[]): Allowed => (mustList || entries.length > 0 ? entries : ANY);
  return {
    ...flags,
    environment,
    allow: {
      serviceAccounts: listed(flags.allowServiceAccount),
      audiences: listed(flags.allowAudience),
      addresses: listed(flags.allowAddress),
    },
    filesBelow: fromFile ? ANY : (flags.filesBelow ?? FILES_BELOW),
    // A one-shot run is a single writer by its nature; waiting for a Lease would only delay an init container.
    leaderElect: flags.leaderElect && !flags.once && !flags.dryRun,
    allowedHosts: flags.allowedHosts ?? [],
    gatewayDiagnostics: flags.gatewayDiagnostics ?? [],
  } as const;
}

type AgentSettings = ReturnType<typeof agentSettings>;
