import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { stringify } from 'yaml';
import { startIstio } from '../../sandbox/istio/istio.ts';
import { ROOT } from '../../scripts/tree.ts';
import { openssl } from '../property/openssl.ts';
import { peer } from './build.ts';
import { startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { answers, freePorts } from './servers/loopback.ts';
import { Daemon, discard, type Server, scratchDir, serverOf } from './servers/process.ts';
import { type Prometheus, startPrometheus } from './servers/prometheus.ts';

const ALERTS = join(ROOT, 'deploy/alerts');
/** Long enough to look at it while it is young, short enough to wait for its last quarter. */
const LEAF_MS = 90_000;

/**
 * The alert that needs nothing of meshcert's running, with the real kube-state-metrics and the real Prometheus.
 * x509-certificate-exporter is not here: the Go module proxy does not serve it. Its rule is simulated by promtool.
 */
describe('the alert on the status of a MeshCertificate, after the agent is gone', () => {
  let server: KubeApiserver;
  let dir: string;
  let exporter: Server;
  let exporterPort: number;
  let prometheus: Prometheus;

  before(async () => {
    dir = scratchDir('exporters');
    server = await startKubeApiserver();
    await prepareCluster(server, { emissary: [] });
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd', '--all', '--timeout=30s']);
    await publishOnce();
    exporter = await startExporter();
    prometheus = await startWithRules();
  });

  after(async () => {
    await prometheus?.stop();
    await exporter?.stop();
    await server?.stop();
    if (dir) discard(dir);
  });

  /** One certificate, by an agent that then is gone for good. */
  async function publishOnce(): Promise<void> {
    const istio = await startIstio({ leafLifetimeMs: LEAF_MS });
    const socket = join(dir, 'sds.sock');
    await istio.startPilotAgent({ socket, id: 'spiffe://cluster.local/ns/emissary/sa/emissary' });
    const metadata = { name: 'istio', namespace: 'emissary' };
    const spec = { istio: { sds: { socket } } };
    const object = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata, spec };
    await server.kubectl(['apply', '-f', '-'], { input: stringify(object) });
    const agent = await startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['-n', 'emissary'] });
    await server.kubectl(['wait', '--for=condition=Ready', 'mcert/istio', '-n', 'emissary', '--timeout=60s']);
    await agent.stop();
    await istio.stop();
  }

  async function startExporter(): Promise<Server> {
    const ports = await freePorts('metrics', 'telemetry');
    exporterPort = ports.metrics;
    const daemon = await Daemon.start({
      name: 'kube-state-metrics',
      file: await peer('kube-state-metrics'),
      args: [
        `--kubeconfig=${server.kubeconfigFile}`,
        ...['--host=127.0.0.1', `--port=${ports.metrics}`],
        ...['--telemetry-host=127.0.0.1', `--telemetry-port=${ports.telemetry}`],
        '--custom-resource-state-only=true',
        `--custom-resource-state-config-file=${join(ALERTS, 'kube-state-metrics.yaml')}`,
      ],
      dir,
      ready: () => answers(`http://127.0.0.1:${ports.metrics}/healthz`),
    });
    return serverOf(daemon, dir);
  }

  function startWithRules(): Promise<Prometheus> {
    const job = { job_name: 'kube-state-metrics', static_configs: [{ targets: [`127.0.0.1:${exporterPort}`] }] };
    const global = { scrape_interval: '1s', evaluation_interval: '1s' };
    return startPrometheus(dir, { global, rule_files: [join(ALERTS, 'independent.yaml')], scrape_configs: [job] });
  }

  interface Alert {
    readonly labels: Readonly<Record<string, string>>;
    readonly annotations: Readonly<Record<string, string>>;
    readonly state: string;
  }

  const alerts = async () => ((await prometheus.ask('/api/v1/alerts')) as { alerts: readonly Alert[] }).alerts;

  it('kube-state-metrics reports the times of the certificate as OpenSSL reads them from the Secret', async () => {
    const { body } = await server.call('GET', '/api/v1/namespaces/emissary/secrets/istio-identity');
    const file = join(dir, 'leaf.pem');
    await writeFile(file, Buffer.from(body.data['tls.crt'], 'base64'));
    const { output } = openssl(['x509', '-in', file, '-noout', '-dates', '-dateopt', 'iso_8601']);
    const read = (name: string) =>
      Date.parse(new RegExp(`${name}=(.*)`).exec(output)?.[1]?.replace(' ', 'T') ?? '') / 1000;
    await eventually('the metric', async () => {
      const text = await (await fetch(`http://127.0.0.1:${exporterPort}/metrics`)).text();
      const value = (metric: string) =>
        Number(
          new RegExp(`^kube_meshcertificate_${metric}_timestamp_seconds\\{.*name="istio".*\\} (\\S+)`, 'm').exec(
            text,
          )?.[1],
        );
      return value('not_after') === read('notAfter') && value('not_before') === read('notBefore');
    });
  });

  it('Prometheus raises MeshCertificateStatusEnds in the last quarter, and names the MeshCertificate', async () => {
    await eventually('the alert', async () => (await alerts()).length > 0, undefined, LEAF_MS + 60_000);
    const [alert, ...others] = await alerts();
    assert.deepEqual(others, []);
    assert.equal(alert?.labels.alertname, 'MeshCertificateStatusEnds');
    assert.deepEqual([alert?.labels.namespace, alert?.labels.name], ['emissary', 'istio']);
    assert.match(alert?.annotations.summary ?? '', /^MeshCertificate emissary\/istio: a quarter of the certificate's/);
  });
});
