import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { freePorts } from './loopback.ts';
import { Daemon } from './process.ts';

/** The loopback of this machine and that of another network namespace, joined by Unix sockets. */
export interface Forwarding extends AsyncDisposable {
  /** A process in the namespace, which lives as long as this does. */
  readonly pid: number;
  /** The port of this machine's loopback that leads to `HOST:PORT` in the namespace. */
  port(address: string): Promise<number>;
  /** From now on a port of this machine's loopback is found under the same number in the namespace. */
  expose(port: number): Promise<void>;
}

/** `enter`: the command that runs a program in the namespace. */
export async function startForwarding(
  dir: string,
  enter: (file: string, args: readonly string[]) => readonly [string, readonly string[]],
): Promise<Forwarding> {
  const [inward, outward] = [join(dir, 'relay.sock'), join(dir, 'outward.sock')];
  const [file, args] = enter(process.execPath, [fileURLToPath(new URL('relay.mjs', import.meta.url)), inward]);
  // The socket exists a moment before it accepts connections.
  const relay = await Daemon.start({ name: 'relay', file, args, dir, ready: async (it) => it.log() === 'ready\n' });
  const ports = new Map<string, Promise<number>>();
  const exposed = new Set<number>();
  const open = new Set<{ close(): void }>();

  const joined = (one: Socket, other: Socket) => {
    for (const [from, to] of [
      [one, other],
      [other, one],
    ] as const) {
      from.on('error', () => from.destroy());
      from.on('close', () => to.destroy());
      from.pipe(to);
    }
    const pair = { close: () => [one, other].map((end) => end.destroy()) };
    open.add(pair);
    one.once('close', () => open.delete(pair));
  };

  const listen = async (address: string): Promise<number> => {
    const { port } = await freePorts('port');
    const server = createServer({ allowHalfOpen: true }, (client) => {
      const inside = connect({ path: inward, allowHalfOpen: true });
      inside.write(`${address}\n`);
      joined(client, inside);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen({ port, host: '127.0.0.1' }, resolve);
    });
    open.add(server);
    return port;
  };

  const exits = createServer({ allowHalfOpen: true }, (inside) => {
    inside.once('error', () => inside.destroy());
    inside.once('data', (first) => {
      inside.pause();
      const end = first.indexOf('\n');
      const port = Number(first.subarray(0, end).toString().split(':')[1]);
      const target = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
      target.write(first.subarray(end + 1));
      joined(inside, target);
    });
  });
  await new Promise<void>((resolve, reject) => exits.once('error', reject).listen(outward, resolve));
  open.add(exits);

  return {
    pid: relay.pid,
    port: (address) => {
      const known = ports.get(address) ?? listen(address);
      ports.set(address, known);
      return known;
    },
    expose: async (port) => {
      if (exposed.has(port)) return;
      exposed.add(port);
      const asking = connect({ path: inward });
      asking.write(`listen ${port} ${outward}\n`);
      const answer = await text(asking);
      if (answer !== 'listening\n') throw new Error(`port ${port} cannot be exposed: ${answer}`);
    },
    async [Symbol.asyncDispose]() {
      for (const one of open) one.close();
      await relay.stop();
    },
  };
}
