import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface TcpProxy extends AsyncDisposable {
  readonly port: number;
  /** Connections that are open now. */
  readonly open: number;
  /** Of these, the connections that lead to this port. */
  openTo(port: number): number;
  /** From now on no data passes on the open connections, in either direction; neither side closes them. */
  stall(): void;
  /** Ends the open connections. */
  cut(): void;
}

/**
 * Forwards bytes to a loopback port, determined at each connection; later ones pass whatever happens to earlier ones.
 */
export async function startTcpProxy(target: () => number): Promise<TcpProxy> {
  const pairs = new Set<readonly [Socket, Socket]>();
  const server = createServer((client) => {
    const upstream = connect({ port: target(), host: '127.0.0.1' });
    const pair = [client, upstream] as const;
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      for (const socket of pair) socket.destroy();
    };
    for (const socket of pair) socket.on('error', end).on('close', end);
    client.pipe(upstream);
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const pair of pairs) for (const socket of pair) socket.destroy();
  };
  return {
    cut,
    port: (server.address() as AddressInfo).port,
    get open() {
      return pairs.size;
    },
    openTo: (port) => [...pairs].filter(([, upstream]) => upstream.remotePort === port).length,
    stall() {
      for (const [client, upstream] of pairs) {
        client.unpipe(upstream);
        upstream.unpipe(client);
        // It does not read the end either: a half-open connection does not learn that the other side is gone.
        client.pause();
        upstream.pause();
      }
    },
    async [Symbol.asyncDispose]() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
