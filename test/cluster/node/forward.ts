import { existsSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../../peers/servers/loopback.ts';
import { Daemon } from '../../peers/servers/process.ts';
import type { Namespaces } from './namespaces.ts';

/** Addresses of the node's network, each under a port of the loopback of this machine. */
export interface Forwarding extends AsyncDisposable {
  /** The loopback port that leads to `HOST:PORT` in the node's network. */
  port(address: string): Promise<number>;
}

export async function startForwarding(namespaces: Namespaces): Promise<Forwarding> {
  const socket = join(namespaces.dir, 'relay.sock');
  const script = fileURLToPath(new URL('relay.mjs', import.meta.url));
  const [file, args] = namespaces.enter('net', process.execPath, [script, socket]);
  const relay = await Daemon.start({
    name: 'relay',
    file,
    args,
    dir: namespaces.dir,
    ready: async () => existsSync(socket),
  });
  const ports = new Map<string, Promise<number>>();
  const open = new Set<{ close(): void }>();

  const listen = async (address: string): Promise<number> => {
    const { port } = await freePorts('port');
    const server = createServer({ allowHalfOpen: true }, (client) => {
      const inside = connect({ path: socket, allowHalfOpen: true });
      inside.write(`${address}\n`);
      for (const [one, other] of [
        [client, inside],
        [inside, client],
      ] as const) {
        one.on('error', () => one.destroy());
        one.on('close', () => other.destroy());
        one.pipe(other);
      }
      const pair = { close: () => [client, inside].map((one) => one.destroy()) };
      open.add(pair);
      client.once('close', () => open.delete(pair));
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen({ port, host: '127.0.0.1' }, resolve);
    });
    open.add(server);
    return port;
  };

  return {
    port: (address) => {
      const known = ports.get(address) ?? listen(address);
      ports.set(address, known);
      return known;
    },
    async [Symbol.asyncDispose]() {
      for (const one of open) one.close();
      await relay.stop();
    },
  };
}
