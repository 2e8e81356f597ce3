import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Identity } from '../../../src/mesh/identity.ts';
import { parseCertificates } from '../../../src/pki/certificate.ts';
import { formatPem } from '../../../src/pki/der.ts';
import { PrivateKey } from '../../../src/pki/key.ts';
import { peer } from '../build.ts';
import { freePorts } from './loopback.ts';
import { Daemon, discard, output, type Server, scratchDir } from './process.ts';

/** A SPIRE server with one agent; `stop`, `kill` and `restart` act on both, `server` and `agent` on one. */
export interface Spire extends Server {
  /** The agent's Workload API and SDS socket. */
  readonly socket: string;
  /** With the option `broker`. */
  readonly brokerSocket: string;
  /** The same over TCP. */
  readonly brokerAddress: string;
  readonly trustDomain: string;
  readonly server: Daemon;
  readonly agent: Daemon;
  /** On: the agent is gone. Off: it runs again, and may not know its entries yet. */
  agentOutage(on: boolean): Promise<void>;
  /** Registers a workload of this user; the agent learns of it within about two seconds. Returns its SPIFFE ID. */
  createEntry(path: string, options?: EntryOptions): Promise<string>;
  /** What SPIRE's own client gets of the Workload API, as text; empty if it gets nothing. */
  offered(): Promise<string>;
  /** Deletes all entries of this SPIFFE ID. */
  deleteEntry(id: string): Promise<void>;
  /** A leaf of this server for a workload without an agent, with its chain and the roots of the domain. */
  mint(path: string): Promise<Identity>;
  /** The roots of the trust domain, PEM. */
  bundle(): Promise<string>;
  /** Takes the present bundle of another trust domain. */
  federateWith(other: Spire): Promise<void>;
  /** PEM of the key by which the server signs now, and of its certificate. */
  signingKey(): Promise<{ readonly key: string; readonly certificate: string }>;
  /** The server's command line on its own socket, for example `['localauthority', 'x509', 'prepare']`. */
  cli(args: readonly string[]): Promise<string>;
}

export interface EntryOptions {
  readonly ttlSeconds?: number;
  readonly selectors?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly hint?: string;
  /** Trust domains whose bundles the workload gets too. */
  readonly federatesWith?: readonly string[];
}

/** `next`: the newest release that builds, whose agents can do without SDS. */
export type SpireVersion = 'pinned' | 'next';

export interface SpireOptions {
  readonly trustDomain?: string;
  readonly version?: SpireVersion;
  /** Further settings of the agent. */
  readonly agent?: Readonly<Record<string, unknown>>;
  /** The agent serves its Broker API to this SPIFFE ID, for objects of this cluster. */
  readonly broker?: { readonly id: string; readonly kubeconfig: string };
  /** Go duration; a new CA is prepared at half of it and used when a sixth is left. */
  readonly caTtl?: string;
  /** Go duration; a leaf is renewed at about half of it, and never outlives the CA. */
  readonly svidTtl?: string;
}

export async function startSpire(options: SpireOptions = {}): Promise<Spire> {
  const { trustDomain = 'example.org', caTtl = '24h', svidTtl = '1h', version = 'pinned' } = options;
  const dir = scratchDir('spire');
  const { port, brokerPort } = await freePorts('port', 'brokerPort');
  const serverSocket = join(dir, 'server.sock');
  const socket = join(dir, 'public', 'agent.sock');
  const node = `spiffe://${trustDomain}/node`;
  const [serverFile, agentFile] =
    version === 'next'
      ? [await peer('spire-server-next'), await peer('spire-agent-next')]
      : [await peer('spire-server'), await peer('spire-agent')];
  await Promise.all(['server', 'agent', 'public', 'broker'].map((name) => mkdir(join(dir, name))));
  const brokerSocket = join(dir, 'broker', 'broker.sock');
  const brokerAddress = `127.0.0.1:${brokerPort}`;
  const { broker } = options;

  // The reload and sync intervals are 5 s by default; 1 s keeps tests short.
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
    [
      block('agent', {
        data_dir: join(dir, 'agent'),
        log_level: 'INFO',
        server_address: '127.0.0.1',
        server_port: String(port),
        socket_path: socket,
        trust_domain: trustDomain,
        insecure_bootstrap: true,
        experimental: {
          sync_interval: '1s',
          ...(broker ? { broker: brokerEndpoint(broker.id, brokerSocket, brokerAddress) } : {}),
        },
        ...options.agent,
      }),
      block('plugins', {
        'KeyManager "disk"': { plugin_data: { directory: join(dir, 'agent') } },
        'NodeAttestor "join_token"': { plugin_data: {} },
        'WorkloadAttestor "unix"': { plugin_data: {} },
        ...(broker ? { 'WorkloadAttestor "k8s"': { plugin_data: attestorOfObjects(broker.id) } } : {}),
      }),
    ].join('\n'),
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
      ...(broker ? { env: { KUBECONFIG: broker.kubeconfig } } : {}),
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
    brokerSocket,
    brokerAddress,
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
        ...(entry.hint ? ['-hint', entry.hint] : []),
        ...(entry.federatesWith ?? []).flatMap((domain) => ['-federatesWith', `spiffe://${domain}`]),
      ]);
      return id;
    },
    offered: () => output(agentFile, ['api', 'fetch', 'x509', '-socketPath', socket]).catch(() => ''),
    deleteEntry: async (id) => {
      const shown = await cli(['entry', 'show', '-spiffeID', id]);
      const ids = [...shown.matchAll(/^Entry ID\s*:\s*(\S+)$/gm)].map(([, one = '']) => one);
      for (const one of ids) await cli(['entry', 'delete', '-entryID', one]);
    },
    mint: async (path) => {
      const id = `spiffe://${trustDomain}${path}`;
      const to = join(dir, 'minted');
      await mkdir(to, { recursive: true });
      await cli(['x509', 'mint', '-spiffeID', id, '-write', to]);
      const read = (name: string) => readFile(join(to, name), 'utf8');
      const [chain, key, roots] = await Promise.all(['svid.pem', 'key.pem', 'bundle.pem'].map(read));
      return {
        id,
        key: PrivateKey.fromPem(key ?? ''),
        chain: parseCertificates(chain ?? ''),
        roots: parseCertificates(roots ?? ''),
      };
    },
    bundle: () => cli(['bundle', 'show', '-format', 'pem']),
    federateWith: async (other) => {
      const path = join(dir, `${other.trustDomain}.pem`);
      await writeFile(path, await other.bundle());
      await cli(['bundle', 'set', '-id', `spiffe://${other.trustDomain}`, '-path', path]);
    },
    signingKey: async () => {
      const { keys } = JSON.parse(await readFile(join(dir, 'server', 'keys.json'), 'utf8')) as {
        keys: Record<string, string>;
      };
      const all = Object.values(keys).map((text) =>
        PrivateKey.fromPem(formatPem('PRIVATE KEY', Buffer.from(text, 'base64'))),
      );
      for (const certificate of parseCertificates(await cli(['bundle', 'show', '-format', 'pem']))) {
        const key = all.find((one) => one.publicKeyFingerprint === certificate.publicKeyFingerprint);
        if (key) return { key: key.toPem(), certificate: certificate.pem };
      }
      throw new Error(`the server has no key of a root:\n${server.log()}`);
    },
    log: () => `${server.log()}\n${agent.log()}`,
    stop,
    agentOutage: (on) => (on ? agent.kill('SIGTERM') : agent.restart()),
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

/** HCL, whose form in JSON cannot express lists of objects with lists of objects. */
const block = (head: string, fields: object): string => `${head} {\n${bodyOf(fields)}\n}`;

function bodyOf(fields: object): string {
  return Object.entries(fields)
    .map(([name, value]) => (isFields(value) ? block(name, value) : `${name} = ${hclValue(value)}`))
    .join('\n');
}

function hclValue(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(hclValue).join(', ')}]`;
  return isFields(value) ? `{\n${bodyOf(value)}\n}` : JSON.stringify(value);
}

const isFields = (value: unknown): value is object => typeof value === 'object' && !Array.isArray(value);

const brokerEndpoint = (id: string, socket_path: string, bind_address: string) => ({
  socket_path,
  bind_address,
  brokers: [
    {
      id,
      allowed_reference_types: [
        { type_url: 'type.googleapis.com/spiffe.broker.KubernetesObjectReference', allow_over_tcp: true },
      ],
    },
  ],
});

/** The API server decides by RBAC; there is no kubelet. */
const attestorOfObjects = (id: string) => ({
  disable_kubelet_client: true,
  experimental: { broker: { access_policy: 'enforced', brokers: [{ id, pod_reference_scope: 'cluster' }] } },
});
