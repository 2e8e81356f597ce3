import { readFile, writeFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, Agent as HttpsAgent, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { SandboxCa } from '../../../sandbox/tls/ca.ts';
import { formatCertificates } from '../../../src/pki/certificate.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import { discard, scratchDir } from '../servers/process.ts';

/** A request that may change something, before it has reached the API server. */
export interface GatedWrite {
  readonly method: string;
  readonly path: string;
  /** Forwards it; resolves with the status once the API server has answered. The caller waits until the hook ends. */
  forward(): Promise<number>;
  /** Disconnects the caller without an answer. */
  drop(): void;
}

export interface ApiGate extends AsyncDisposable {
  readonly kubeconfigFile: string;
  /** Sees each write; one that it neither forwards nor drops is forwarded. */
  onWrite(hook: ((write: GatedWrite) => Promise<void>) | undefined): void;
}

/** A proxy in front of the API server that reads along, so that something can happen at an exact request. */
export async function startApiGate(apiserver: KubeApiserver): Promise<ApiGate> {
  const dir = scratchDir('api-gate');
  const upstreamCa = await readFile(apiserver.caFile);
  const agent = new HttpsAgent({ keepAlive: true, ca: upstreamCa });
  const root = SandboxCa.root();
  const { key, chain } = root.identity({ ips: ['127.0.0.1'], lifetimeMs: 86_400_000 });
  let hook: ((write: GatedWrite) => Promise<void>) | undefined;

  const send = (
    incoming: IncomingMessage,
    body: Buffer,
    answer: (reply: IncomingMessage) => void,
    fail: () => void,
  ) => {
    const { host: _, ...headers } = incoming.headers;
    const sent = request(new URL(incoming.url ?? '/', apiserver.url), { method: incoming.method, headers, agent });
    sent.once('response', answer).once('error', fail);
    sent.end(body);
    return sent;
  };

  const handle = async (incoming: IncomingMessage, outgoing: ServerResponse) => {
    const parts: Buffer[] = [];
    for await (const part of incoming) parts.push(part as Buffer);
    const body = Buffer.concat(parts);
    const cut = () => outgoing.destroy();
    if (incoming.method === 'GET') {
      const sent = send(
        incoming,
        body,
        (reply) => {
          outgoing.writeHead(reply.statusCode ?? 502, reply.headers);
          outgoing.flushHeaders();
          reply.on('error', cut).pipe(outgoing);
        },
        cut,
      );
      outgoing.once('close', () => sent.destroy());
      return;
    }
    let reply: IncomingMessage | undefined;
    let text = Buffer.alloc(0);
    let dropped = false;
    const forward = async () => {
      reply = await new Promise<IncomingMessage>((resolve, reject) => {
        send(incoming, body, resolve, () => reject(new Error('the API server did not answer')));
      });
      const received: Buffer[] = [];
      for await (const part of reply) received.push(part as Buffer);
      text = Buffer.concat(received);
      return reply.statusCode ?? 502;
    };
    await hook?.({
      method: incoming.method ?? '',
      path: (incoming.url ?? '').split('?')[0] ?? '',
      forward,
      drop() {
        dropped = true;
      },
    });
    if (dropped) return cut();
    if (!reply) await forward();
    outgoing.writeHead(reply?.statusCode ?? 502, reply?.headers);
    outgoing.end(text);
  };

  const server = createServer({ key: key.toPem(), cert: formatCertificates(chain) }, (incoming, outgoing) => {
    handle(incoming, outgoing).catch(() => outgoing.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const caFile = join(dir, 'ca.crt');
  const kubeconfigFile = join(dir, 'kubeconfig');
  await writeFile(caFile, root.certificate.pem);
  const config = await readFile(apiserver.kubeconfigFile, 'utf8');
  await writeFile(
    kubeconfigFile,
    config.replaceAll(apiserver.url, `https://127.0.0.1:${port}`).replaceAll(apiserver.caFile, caFile),
    { mode: 0o600 },
  );
  return {
    kubeconfigFile,
    onWrite(next) {
      hook = next;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      agent.destroy();
      discard(dir);
    },
  };
}
