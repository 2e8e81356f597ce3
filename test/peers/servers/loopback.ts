import { connect, createServer, type Server } from 'node:net';

/**
 * Below 32768, where Linux starts to assign ports of outgoing connections: a server that restarts finds its own free.
 */
const FIRST_PORT = 20_000;
const BLOCKS = 24;
const BLOCK_SIZE = 500;

/** The remaining ports of the blocks that this process holds. */
const left: number[] = [];
let taking: Promise<void> | undefined;

/**
 * Loopback ports that nothing listens on now, and that no other process of this suite gets before our server binds
 * them: each process uses the ports of its own blocks.
 */
export async function freePorts<Name extends string>(...names: readonly Name[]): Promise<Record<Name, number>> {
  const ports = {} as Record<Name, number>;
  for (const name of names) ports[name] = await freePort();
  return ports;
}

async function freePort(): Promise<number> {
  for (;;) {
    const port = left.pop();
    if (port === undefined) {
      taking ??= takeBlock().finally(() => {
        taking = undefined;
      });
      await taking;
    } else if (await bindable(port)) return port;
  }
}

/** Holding the first port of a block for the life of this process reserves the rest of it. */
async function takeBlock(): Promise<void> {
  const start = Math.floor(Math.random() * BLOCKS);
  for (let n = 0; n < BLOCKS; n++) {
    const first = FIRST_PORT + ((start + n) % BLOCKS) * BLOCK_SIZE;
    const holder = await listen(first);
    if (!holder) continue;
    holder.unref();
    for (let port = first + BLOCK_SIZE - 1; port > first; port--) left.push(port);
    return;
  }
  throw new Error(
    `all ports from ${FIRST_PORT} to ${FIRST_PORT + BLOCKS * BLOCK_SIZE} are in other hands; end what holds them`,
  );
}

async function bindable(port: number): Promise<boolean> {
  const server = await listen(port);
  await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
  return server !== undefined;
}

function listen(port: number): Promise<Server | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(undefined));
    server.listen({ port, host: '127.0.0.1' }, () => resolve(server));
  });
}

export function listening(port: number): Promise<boolean> {
  const socket = connect({ port, host: '127.0.0.1' });
  return new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  }).finally(() => socket.destroy()) as Promise<boolean>;
}

export async function answers(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
  await response.body?.cancel();
  return response.ok;
}
