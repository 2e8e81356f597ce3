import { connect, createServer } from 'node:net';

const handedOut = new Set<number>();

/**
 * Loopback ports nobody listens on now. They lie below 32768, where Linux starts to pick the ports of outgoing
 * connections, so a server that restarts finds its port still free.
 */
export async function freePorts<Name extends string>(...names: readonly Name[]): Promise<Record<Name, number>> {
  const ports = {} as Record<Name, number>;
  for (const name of names) {
    let port: number;
    do port = 20_000 + Math.floor(Math.random() * 12_000);
    while (handedOut.has(port) || !(await bindable(port)));
    handedOut.add(port);
    ports[name] = port;
  }
  return ports;
}

function bindable(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1' }, () => server.close(() => resolve(true)));
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
