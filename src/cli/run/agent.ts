import { setMaxListeners } from 'node:events';
import { readFile } from 'node:fs/promises';
import { environments } from '../../../adapters/environments.ts';
import { Agent, type CertificateSource } from '../../agent/agent.ts';
import { alone, type Leadership } from '../../agent/election/leadership.ts';
import { LeaseLeadership } from '../../agent/election/leases.ts';
import { Health } from '../../agent/health.ts';
import { LiveSink } from '../../agent/live/live.ts';
import { WritePriority } from '../../agent/publish/write-priority.ts';
import { StatusBoard } from '../../agent/report/board.ts';
import { EventSink } from '../../agent/report/event-sink.ts';
import { LogSink } from '../../agent/report/log-sink.ts';
import { MetricsSink } from '../../agent/report/metrics-sink.ts';
import { OnceSink } from '../../agent/report/once.ts';
import type { Sink } from '../../agent/report/reporter.ts';
import { StatusWriter } from '../../agent/report/status-writer.ts';
import { configFile } from '../../agent/source/config-file.ts';
import { customResources } from '../../agent/source/custom-resources.ts';
import { systemClock } from '../../async/clock.ts';
import { type Allowed, ANY } from '../../config/allow.ts';
import { formatPath } from '../../config/issue.ts';
import { API_VERSION, KIND } from '../../config/schema/mesh-certificate.ts';
import { validateObject } from '../../config/validate.ts';
import { gateways } from '../../gateways.ts';
import { startHttp } from '../../http/server.ts';
import type { Kube } from '../../kube/api.ts';
import { connect } from '../../kube/client.ts';
import { recorder } from '../../kube/events.ts';
import { requireKubeconfig } from '../../kube/transport/kubeconfig.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Log } from '../../mesh/log.ts';
import { opensslPreflight } from '../../preflight/preflight.ts';
import { createLog } from '../../telemetry/log.ts';
import { createMetrics, type Metrics } from '../../telemetry/metrics.ts';
import type { AgentFlags } from '../commands/agent.ts';
import type { Io } from '../declare/command.ts';
import { UsageError } from '../declare/usage-error.ts';

import { VERSION } from '../declare/version.ts';
import { loadAdapters } from './adapter-files.ts';

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
    if (!(leadership instanceof LeaseLeadership)) return;
    for (const lease of leadership.names) metrics.leader.set({ lease }, leadership.held.includes(lease) ? 1 : 0);
  });
  const fromResources = flags.config === undefined && flags.environment === undefined;
  const health = new Health(flags.leaderElect ? leadership : undefined);
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
  const deadline = once ? clock.sleep(flags.timeout, signal).then(() => stop.abort(new Error('timeout'))) : undefined;
  deadline?.catch(() => {});
  try {
    await running.run(signal);
  } finally {
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
    import('../../telemetry/otlp.ts'),
    import('../../agent/report/trace-sink.ts'),
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
