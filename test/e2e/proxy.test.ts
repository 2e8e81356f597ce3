import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { sandboxes } from '../../sandbox/meshes.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { builtBundle } from '../../scripts/built-bundle.ts';
import { systemClock } from '../../src/async/clock.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { gateways } from '../../src/gateways.ts';
import { reflect } from '../../src/kube/reflector.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { silentLog } from '../../src/mesh/log.ts';
import { AgentProcess } from '../hostile/agent-process.ts';
import { type LoopbackProxy, type ProxyOptions, startHttpProxy, startSocksProxy } from '../support/loopback-proxies.ts';

/** Of the domain that never resolves (RFC 6761): only the proxy knows where it is. */
const API = 'api.invalid:443';
const SECRET = 'the proxy@secret';
const USERINFO = `user:${encodeURIComponent(SECRET)}@`;

const ca = SandboxCa.root({ name: 'Proxy' });

const KINDS: Readonly<Record<string, (options: ProxyOptions) => Promise<LoopbackProxy>>> = {
  http: startHttpProxy,
  https(options) {
    const { chain, key } = ca.identity({ ips: ['127.0.0.1'], lifetimeMs: 3_600_000 });
    return startHttpProxy({ ...options, tls: { cert: chain.map(({ pem }) => pem).join(''), key: key.toPem() } });
  },
  socks5: startSocksProxy,
};

describe('a kubeconfig with proxy-url', { timeout: 240_000 }, () => {
  let bundle: string;
  let directory: string;

  before(async () => {
    bundle = await builtBundle();
    directory = await mkdtemp(join(tmpdir(), 'meshcert-proxy-'));
    await writeFile(join(directory, 'ca.pem'), ca.certificate.pem);
  });

  after(() => rm(directory, { recursive: true }));

  async function run(cluster: SandboxCluster, proxyUrl: string, args: readonly string[]): Promise<AgentProcess> {
    const kubeconfig = join(directory, 'kubeconfig');
    const place = `server: https://${API}\n      tls-server-name: kubernetes.default.svc\n      proxy-url: ${proxyUrl}`;
    await writeFile(kubeconfig, cluster.api.kubeconfig().replace(/server: .*/, place), { mode: 0o600 });
    const env = { NODE_EXTRA_CA_CERTS: join(directory, 'ca.pem') };
    return new AgentProcess(bundle, [...args, '-n', 'emissary', '--kubeconfig', kubeconfig], env);
  }

  for (const [scheme, start] of Object.entries(KINDS)) {
    it(`lets the agent publish and watch through a proxy of ${scheme} alone, and status read`, async () => {
      const cluster = await startCluster({ meshes: ['istio'], sandboxes });
      try {
        cluster.api.put(customResourceDefinition(adapters, gateways));
        for (const mesh of cluster.meshes) cluster.api.put(cluster.meshCertificate(mesh));
        const routes = { [API]: Number(new URL(cluster.api.url).port) };
        await using proxy = await start({ routes, credentials: `user:${SECRET}` });
        const proxyUrl = `${scheme}://${USERINFO}127.0.0.1:${proxy.port}`;
        await using agent = await run(cluster, proxyUrl, ['agent', '--listen', '127.0.0.1:0', '--log-level', 'debug']);
        await Promise.race([published(cluster), agent.ended.then(() => assert.fail(agent.stderr))]);
        assert.deepEqual([...new Set(proxy.targets)], [API]);
        const sent = cluster.api.requests.entries.filter(({ userAgent }) => userAgent.startsWith('meshcert/')).length;
        assert.ok(proxy.targets.length < sent, `${proxy.targets.length} connections for ${sent} requests`);
        await using status = await run(cluster, proxyUrl, ['status']);
        assert.equal((await status.ended).code, 0, status.stderr);
        assert.match(JSON.stringify(status.lines), /istio/);
        agent.stop();
        assert.equal((await agent.ended).code, 0, agent.stderr);
        assert.equal(proxy.open, 0);
        hides(agent, status);
      } finally {
        await cluster.stop();
      }
    });

    it(`names a proxy of ${scheme} that refuses or is down as the cause, without its password`, async () => {
      const cluster = await startCluster({ meshes: [], sandboxes });
      try {
        const proxy = await start({ routes: {}, behaviour: 'refuse' });
        const name = `${scheme}://127.0.0.1:${proxy.port}`;
        const proxyUrl = `${scheme}://${USERINFO}127.0.0.1:${proxy.port}`;
        const fails = async (args: readonly string[], expected: RegExp) => {
          await using command = await run(cluster, proxyUrl, args);
          assert.equal((await command.ended).code, 1, command.stderr);
          const said = command.stderr + JSON.stringify(command.lines);
          assert.match(said, /ERR_KUBE_UNREACHABLE/);
          assert.match(said, expected);
          assert.ok(said.includes(`the proxy ${name} `), said);
          hides(command);
        };
        const refused = /did not connect to api\.invalid:443 \((HTTP status 403|not allowed by its rules)\)\. Check/;
        await fails(['status'], refused);
        await fails(['agent', '--once', '--timeout', '2s'], refused);
        await proxy[Symbol.asyncDispose]();
        await fails(['status'], /connect ECONNREFUSED 127\S+\)\. Check proxy-url in the kubeconfig/);
      } finally {
        await cluster.stop();
      }
    });
  }
});

/** The password is in no form in what they wrote. */
function hides(...processes: readonly AgentProcess[]): void {
  const forms = [SECRET, encodeURIComponent(SECRET), Buffer.from(`user:${SECRET}`).toString('base64')];
  for (const { lines, stderr } of processes) {
    const written = stderr + JSON.stringify(lines);
    for (const form of forms) assert.ok(!written.includes(form), written);
  }
}

async function published({ kube }: SandboxCluster): Promise<void> {
  const stop = new AbortController();
  const options = { clock: systemClock, random: Math.random, log: silentLog, signal: stop.signal };
  const certificates = reflect(kube, RESOURCES.meshCertificates, { namespace: 'emissary' }, options);
  try {
    for await (const _ of certificates.changes()) {
      const statuses = [...certificates.items().values()].map(({ status }) => status as PublicationStatus | undefined);
      if (
        statuses.some((status) => status?.conditions.some(({ type, status }) => type === 'Ready' && status === 'True'))
      )
        return;
    }
  } finally {
    stop.abort(new Error('seen'));
  }
}
