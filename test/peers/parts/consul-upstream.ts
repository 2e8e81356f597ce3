import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Consul } from '../servers/consul.ts';
import { startConsulConnectProxy } from '../servers/consul-connect-proxy.ts';
import { createServiceToken, setIntention } from '../servers/consul-levers.ts';

/** The plain service `web` behind a real Connect proxy, which accepts only one other service. */
export async function startConsulUpstream(
  consul: Consul,
  allowed: string,
): Promise<{ port: number } & AsyncDisposable> {
  const plain = createServer((_, response) => response.end('plain'));
  await new Promise<void>((resolve) => plain.listen(0, '127.0.0.1', resolve));
  const target = { port: (plain.address() as AddressInfo).port };
  const { secret } = await createServiceToken(consul, 'web');
  await setIntention(consul, allowed, 'web', 'allow');
  const proxy = await startConsulConnectProxy({ consul, service: 'web', target, token: secret });
  return {
    port: proxy.port,
    async [Symbol.asyncDispose]() {
      await proxy.stop();
      plain.closeAllConnections();
      await new Promise((resolve) => plain.close(resolve));
    },
  };
}
