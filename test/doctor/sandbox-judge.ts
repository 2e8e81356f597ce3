import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { asEnvoySees, refusal } from '../../sandbox/emissary/configuration.ts';
import { UpstreamPool } from '../../sandbox/emissary/pool.ts';
import { startUpstream } from '../../sandbox/tls/upstream.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { Aim, type Judge, judgeOn } from './judge.ts';
import type { Sidecar } from './traps.ts';

/** The sandbox's own gateway, from configuration to connections. */
export async function startSandboxJudge(): Promise<Judge> {
  const aim = await Aim.create();
  const pools = new Map<string, UpstreamPool>();
  const drop = (name: string) => {
    pools.get(name)?.destroy();
    pools.delete(name);
  };
  const clear = async () => [...pools.keys()].forEach(drop);
  return judgeOn(
    {
      clear,
      async take(configuration) {
        const reason = refusal(configuration);
        if (reason !== undefined) return reason;
        for (const [name, pool] of pools) {
          const cluster = configuration.clusters.get(name);
          if (!cluster || asEnvoySees(cluster) !== pool.key) drop(name);
        }
        for (const [name, cluster] of configuration.clusters) {
          if (!pools.has(name)) pools.set(name, new UpstreamPool(cluster));
        }
        return undefined;
      },
      send: (name, path) =>
        new Promise((resolve) => {
          const pool = pools.get(name);
          if (!pool) return resolve({ status: 503, body: '' });
          const endpoint = { host: '127.0.0.1', port: aim.portOf(pool.cluster) };
          const sent = pool.send(endpoint, { method: 'GET', path }, true, (answer) => {
            const parts: Buffer[] = [];
            answer.on('data', (part: Buffer) => parts.push(part));
            answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts).toString() }));
          });
          sent.on('error', (error) => resolve({ status: 503, body: error.message }));
          sent.end();
        }),
      [Symbol.asyncDispose]: clear,
    },
    aim,
  );
}

/** As described at `Sidecar`, with the sandbox's upstreams. */
export async function startSandboxSidecar(identity: Identity, roots: readonly Certificate[]): Promise<Sidecar> {
  const mtls = { identity: () => identity, trust: () => roots };
  const strict = await startUpstream(mtls);
  const alpn = ['istio', 'istio-peer-exchange', 'istio-http/1.0', 'istio-http/1.1', 'istio-h2'];
  const permissive = await startUpstream({ ...mtls, alpn, plaintext: true });
  const app = createServer((_, response) => response.end(JSON.stringify({ peer: null })));
  await new Promise<void>((resolve) => app.listen(0, '127.0.0.1', resolve));
  return {
    strict,
    permissive,
    application: { port: (app.address() as AddressInfo).port },
    async [Symbol.asyncDispose]() {
      await strict.stop();
      await permissive.stop();
      app.closeAllConnections();
      await new Promise((resolve) => app.close(resolve));
    },
  };
}
