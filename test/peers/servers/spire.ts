import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peer } from '../build.ts';
import { freePorts } from './loopback.ts';
import { Daemon, discard, output, type Server, scratchDir } from './process.ts';

/** A SPIRE server with one agent; `stop`, `kill` and `restart` act on both, `server` and `agent` on one. */
export interface Spire extends Server {
  /** The agent's Workload API and SDS socket. */
  readonly socket: string;
  readonly trustDomain: string;
  readonly server: Daemon;
  readonly agent: Daemon;
  /** Registers a workload of this user; the agent learns of it within about two seconds. Returns its SPIFFE ID. */
  createEntry(path: string, options?: EntryOptions): Promise<string>;
  /** The server's command line on its own socket, for example `['localauthority', 'x509', 'prepare']`. */
  cli(args: readonly string[]): Promise<string>;
}

export interface EntryOptions {
  readonly ttlSeconds?: number;
  readonly selectors?: readonly string[];
  readonly dnsNames?: readonly string[];
}

export interface SpireOptions {
  readonly trustDomain?: string;
  /** Go duration; a new CA is prepared at half of it and used when a sixth is left. */
  readonly caTtl?: string;
  /** Go duration; a leaf is renewed at about half of it, and never outlives the CA. */
  readonly svidTtl?: string;
}

export async function startSpire(options: SpireOptions = {}): Promise<Spire> {
  const { trustDomain = 'example.org', caTtl = '24h', svidTtl = '1h' } = options;
  const dir = scratchDir('spire');
  const { port } = await freePorts('port');
  const serverSocket = join(dir, 'server.sock');
  const socket = join(dir, 'agent.sock');
  const node = `spiffe://${trustDomain}/node`;
  const [serverFile, agentFile] = [await peer('spire-server'), await peer('spire-agent')];
  await Promise.all(['server', 'agent'].map((name) => mkdir(join(dir, name))));

  // HCL's JSON form. The reload and sync intervals are 5 s by default; 1 s keeps tests short.
  await writeFile(
    join(dir, 'server.conf'),
    JSON.stringify({
      server: {
        bind_address: '127.0.0.1',
        bind_port: String(port),
        socket_path: serverSocket,
        trust_domain: trustDomain,
        data_dir: join(dir, 'server'),
        log_level: 'INFO',
        ca_ttl: caTtl,
        default_x509_svid_ttl: svidTtl,
        ratelimit: { attestation: false },
        experimental: { cache_reload_interval: '1s' },
      },
      plugins: {
        DataStore: [
          {
            sql: { plugin_data: { database_type: 'sqlite3', connection_string: join(dir, 'server', 'data.sqlite3') } },
          },
        ],
        KeyManager: [{ disk: { plugin_data: { keys_path: join(dir, 'server', 'keys.json') } } }],
        NodeAttestor: [{ join_token: { plugin_data: {} } }],
      },
    }),
  );
  await writeFile(
    join(dir, 'agent.conf'),
    JSON.stringify({
      agent: {
        data_dir: join(dir, 'agent'),
        log_level: 'INFO',
        server_address: '127.0.0.1',
        server_port: String(port),
        socket_path: socket,
        trust_domain: trustDomain,
        insecure_bootstrap: true,
        experimental: { sync_interval: '1s' },
      },
      plugins: {
        KeyManager: [{ disk: { plugin_data: { directory: join(dir, 'agent') } } }],
        NodeAttestor: [{ join_token: { plugin_data: {} } }],
        WorkloadAttestor: [{ unix: { plugin_data: {} } }],
      },
    }),
  );

  const healthy = async (file: string, at: string): Promise<boolean> =>
    (await output(file, ['healthcheck', '-socketPath', at])) !== '';
  const cli: Spire['cli'] = (args) => output(serverFile, [...args, '-socketPath', serverSocket]);

  const server = await Daemon.start({
    name: 'spire-server',
    file: serverFile,
    args: ['run', '-config', join(dir, 'server.conf')],
    dir,
    ready: () => healthy(serverFile, serverSocket),
  });
  const agent = await (async () => {
    const token = /Token: (\S+)/.exec(await cli(['token', 'generate', '-spiffeID', node]))?.[1] ?? '';
    return Daemon.start({
      name: 'spire-agent',
      file: agentFile,
      args: ['run', '-config', join(dir, 'agent.conf'), '-joinToken', token],
      dir,
      ready: () => healthy(agentFile, socket),
    });
  })().catch(async (error) => {
    await server.stop();
    throw error;
  });

  const both = [agent, server];
  const stop = async (): Promise<void> => {
    await Promise.all(both.map((daemon) => daemon.stop()));
    discard(dir);
  };
  return {
    dir,
    socket,
    trustDomain,
    server,
    agent,
    cli,
    createEntry: async (path, entry = {}) => {
      const id = `spiffe://${trustDomain}${path}`;
      const selectors = entry.selectors ?? [`unix:uid:${process.getuid?.()}`];
      await cli([
        ...['entry', 'create', '-parentID', node, '-spiffeID', id],
        ...selectors.flatMap((selector) => ['-selector', selector]),
        ...(entry.dnsNames ?? []).flatMap((name) => ['-dns', name]),
        ...(entry.ttlSeconds ? ['-x509SVIDTTL', String(entry.ttlSeconds)] : []),
      ]);
      return id;
    },
    log: () => `${server.log()}\n${agent.log()}`,
    stop,
    kill: async (signal) => {
      await Promise.all(both.map((daemon) => daemon.kill(signal)));
    },
    restart: async () => {
      await server.restart();
      await agent.restart();
    },
    [Symbol.asyncDispose]: stop,
  };
}
