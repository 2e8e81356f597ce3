import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { peer } from '../build.ts';
import { type Authority, authority } from './authority.ts';
import { freePorts, listening } from './loopback.ts';
import { Daemon, type Server, scratchDir, serverOf } from './process.ts';

/** A one-node Consul in memory, unless `durable`: `restart` begins a new cluster, with a new trust domain. */
export interface Consul extends Server {
  /** `http://127.0.0.1:…` */
  readonly url: string;
  /** HTTPS and gRPC over TLS present a certificate for `serverName`, `localhost` and 127.0.0.1, under `ca`. */
  readonly httpsUrl: string;
  readonly grpcAddress: string;
  readonly grpcTlsAddress: string;
  readonly serverName: string;
  readonly ca: Authority;
  readonly caFile: string;
  /** The bootstrap token; it may do everything. */
  readonly token: string;
  /** One request with the bootstrap token, or another; a status that is not 2xx is an error that shows the body. */
  // biome-ignore lint/suspicious/noExplicitAny: answers of any endpoint
  api(method: string, path: string, body?: unknown, token?: string): Promise<any>;
  /** Starts again with this configuration merged into the last one, section by section. */
  reconfigure(config: ConsulConfig): Promise<void>;
  /** Runs the binary as a client with the bootstrap token. */
  readonly clientEnv: Readonly<Record<string, string>>;
}

export type ConsulConfig = Readonly<Record<string, unknown>>;

export interface ConsulOptions {
  /** Denies by default with ACLs on, unless false. */
  readonly acl?: boolean;
  /** Merged over the configuration made here, section by section. */
  readonly config?: ConsulConfig;
  /** Stores its state on disk, so that a restart, even after SIGKILL, continues with it. Default: in memory. */
  readonly durable?: boolean;
}

export async function startConsul(options: ConsulOptions = {}): Promise<Consul> {
  const dir = scratchDir('consul');
  const ports = await freePorts('http', 'https', 'grpc', 'grpc_tls', 'server', 'serf_lan', 'serf_wan');
  const token = randomUUID();
  const serverName = 'server.dc1.consul';
  const ca = await authority('consul test CA');
  const leaf = await ca.issue({ dns: [serverName, 'localhost'], ip: ['127.0.0.1'] });
  const files = { ca: join(dir, 'ca.pem'), cert: join(dir, 'cert.pem'), key: join(dir, 'key.pem') };
  await Promise.all([
    writeFile(files.ca, ca.root),
    writeFile(files.cert, leaf.chain),
    writeFile(files.key, leaf.key, { mode: 0o600 }),
  ]);

  let config = merge(
    {
      disable_update_check: true,
      ports: { ...ports, dns: -1 },
      acl: options.acl === false ? {} : aclSection(token),
      tls: { defaults: { ca_file: files.ca, cert_file: files.cert, key_file: files.key, verify_incoming: false } },
    },
    { ...(options.durable ? durable(dir) : {}), ...options.config },
  );
  const file = join(dir, 'consul.json');
  await writeFile(file, JSON.stringify(config), { mode: 0o600 });
  const url = `http://127.0.0.1:${ports.http}`;

  const api: Consul['api'] = async (method, path, body, bearer = token) => {
    const response = await fetch(url + path, {
      method,
      headers: { 'x-consul-token': bearer },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(10_000),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  };

  const daemon = await Daemon.start({
    name: 'consul',
    file: await peer('consul'),
    args: ['agent', ...(options.durable ? [] : ['-dev']), '-log-level=info', `-config-file=${file}`],
    dir,
    ready: async () => {
      // A leader answers this once it has set up ACLs and, unless it is switched off, its CA.
      const self = await api('GET', '/v1/agent/self');
      if (self.DebugConfig.ConnectEnabled && !(await api('GET', '/v1/connect/ca/roots')).ActiveRootID) return false;
      return (await api('GET', '/v1/status/leader')) !== '' && (await listening(ports.grpc));
    },
  });
  return {
    ...serverOf(daemon, dir),
    url,
    httpsUrl: `https://127.0.0.1:${ports.https}`,
    grpcAddress: `127.0.0.1:${ports.grpc}`,
    grpcTlsAddress: `127.0.0.1:${ports.grpc_tls}`,
    serverName,
    ca,
    caFile: files.ca,
    token,
    api,
    clientEnv: { CONSUL_HTTP_ADDR: url, CONSUL_HTTP_TOKEN: token },
    reconfigure: async (changes) => {
      config = merge(config, changes);
      await writeFile(file, JSON.stringify(config));
      await daemon.restart();
    },
  };
}

/** The settings of `-dev`, except for the state in memory. */
function durable(dir: string): ConsulConfig {
  return {
    server: true,
    bootstrap_expect: 1,
    data_dir: join(dir, 'data'),
    bind_addr: '127.0.0.1',
    connect: { enabled: true },
    performance: { raft_multiplier: 1 },
  };
}

function aclSection(token: string): ConsulConfig {
  return { enabled: true, default_policy: 'deny', tokens: { initial_management: token, agent: token } };
}

function merge(base: ConsulConfig, over: ConsulConfig): ConsulConfig {
  const isSection = (value: unknown): value is ConsulConfig =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(over)) {
    const old = merged[key];
    merged[key] = isSection(old) && isSection(value) ? merge(old, value) : value;
  }
  return merged;
}
