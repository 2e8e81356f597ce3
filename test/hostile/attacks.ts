import { execFileSync } from 'node:child_process';
import { createServer as createHttpServer, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { ServerCredentials } from '@grpc/grpc-js';
import { adapters } from '../../adapters/index.ts';
import { rootsResource, secretResource } from '../../sandbox/istio/sds-wire.ts';
import { type LeafOptions, SandboxCa } from '../../sandbox/tls/ca.ts';
import { type Structural, structural } from '../../src/config/schema/crd.ts';
import { specSchema } from '../../src/config/schema/mesh-certificate.ts';
import { gateways } from '../../src/gateways.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { oddIdentity } from '../support/odd-identity.ts';
import { grpcPeer, onceAborted } from './grpc-peer.ts';
import { push, pushOf, SPIFFE_ID, sdsPeer } from './sds-peer.ts';

export interface AttackWorld {
  /** A directory that the agent may read, with `token` in it: a worthless ServiceAccount token. */
  readonly directory: string;
  /** The CA in Linkerd's ConfigMap of trust roots. */
  readonly linkerdCa: SandboxCa;
  /** The agent's HTTP server. */
  readonly url: URL;
  /** Stores a MeshCertificate of this name as an older API server would: without the checks of the definition. */
  put(name: string, spec: object): void;
  /** Stores a Mapping with the label `mesh: NAME` that leads to this address. */
  map(name: string, address: string): void;
  /** Whether the status of this MeshCertificate matches. */
  says(name: string, what: RegExp): boolean;
  until(what: string, done: () => boolean): Promise<void>;
}

export interface Attack {
  readonly name: string;
  /** The final status of the attacker's MeshCertificate; absent if the attack needs none. */
  readonly outcome?: RegExp;
  start(world: AttackWorld): Promise<AsyncDisposable>;
}

/** The largest message that grpc-js accepts by default. */
const FOUR_MIB = 4 * 1024 * 1024 - 5;
const EMPTY_RESOURCES = (size: number) => Buffer.alloc(size - (size % 2), Buffer.from([0x12, 0x00]));
const EMPTY_STRINGS = (size: number) => Buffer.alloc(size - (size % 2), Buffer.from([0x0a, 0x00]));
/** Connections that the agent closes are opened again. */
const AGAIN_MS = 2_000;
const UNREADABLE = /ERR_MESH_BAD_RESPONSE/;
const ADDRESS = /ERR_CONFIG: [^"]*spec\.[a-z.]*address: /;

const LINKERD_IDENTITY = 'linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local';

const sdsSpec = (socket: string) => ({ istio: { sds: { socket } } });
const named = (filename: string) =>
  push([
    secretResource({ name: 'ROOTCA', validation_context: { trusted_ca: { filename } } }),
    secretResource({
      name: 'default',
      tls_certificate: { certificate_chain: { filename }, private_key: { filename } },
    }),
  ]);

/** Each is repeated to the length that the place admits. */
export const WORST_TEXTS = {
  token: 'eyJaaaaaaaa-',
  key: '-----BEGIN A ',
  bearer: 'bearer  ',
  spaces: ' ',
  slashes: '/a/',
  nested: '((((a+)+)+)+[{',
  controls: '\u001b[2J\n\u009b',
  halves: '\ud800',
} as const;

export const repeated = (unit: string, length: number): string => unit.repeat(Math.ceil(length / unit.length));

export const ATTACKS: readonly Attack[] = [
  sds('sds-empty-resources', UNREADABLE, () => EMPTY_RESOURCES(FOUR_MIB)),
  sds('sds-empty-resources-1m', UNREADABLE, () => EMPTY_RESOURCES(1024 * 1024)),
  sds('sds-file-dev-zero', /ERR_MESH_CONFIG/, () => named('/dev/zero')),
  sds('sds-file-pipe', /ERR_MESH_CONFIG/, (directory) => {
    const pipe = join(directory, 'pipe');
    execFileSync('mkfifo', [pipe]);
    return named(pipe);
  }),
  sds('sds-file-directory', /ERR_MESH_CONFIG/, (directory) => named(directory)),
  {
    name: 'spiffe-empty-svids',
    outcome: UNREADABLE,
    async start({ put }) {
      const peer = await grpcPeer({
        path: '/SpiffeWorkloadAPI/FetchX509SVID',
        requestStream: false,
        responseStream: true,
        async *answers(signal) {
          yield EMPTY_STRINGS(FOUR_MIB);
          await onceAborted(signal);
        },
      });
      put('spiffe-empty-svids', { spiffe: { address: `127.0.0.1:${peer.port}` } });
      return peer;
    },
  },
  files('file-dev-zero', () => '/dev/zero'),
  files('file-pipe', (directory) => {
    const pipe = join(directory, 'files-pipe');
    execFileSync('mkfifo', [pipe]);
    return pipe;
  }),
  http('consul-nested-json', (answer) => answer.end('['.repeat(4_000_000))),
  http('consul-many-values', (answer) => answer.end(`{"TrustDomain":"x","Roots":[${'{},'.repeat(1_300_000)}{}]}`)),
  http('consul-single-bytes', (answer) => {
    // One byte a chunk: each would be an object of its own.
    const chunk = Buffer.from('1\r\n \r\n'.repeat(10_000));
    answer.writeHead(200);
    answer.flushHeaders();
    const { socket } = answer;
    const more = () => {
      while (socket?.writable && socket.write(chunk));
    };
    socket?.on('drain', more);
    more();
  }),
  {
    name: 'istio-ca-empty-strings',
    outcome: UNREADABLE,
    async start({ directory, put }) {
      const ca = SandboxCa.root();
      const peer = await grpcPeer({
        path: '/istio.v1.auth.IstioCertificateService/CreateCertificate',
        requestStream: false,
        responseStream: false,
        credentials: credentialsOf(ca, { ips: ['127.0.0.1'] }),
        answers: () => [EMPTY_STRINGS(FOUR_MIB)],
      });
      const root = { inline: ca.root.pem };
      const config = { address: `127.0.0.1:${peer.port}`, tokenFile: join(directory, 'token'), root };
      put('istio-ca-empty-strings', { istio: { id: SPIFFE_ID, ca: config } });
      return peer;
    },
  },
  {
    name: 'linkerd-empty-certificates',
    outcome: UNREADABLE,
    async start({ directory, linkerdCa, put }) {
      const peer = await grpcPeer({
        path: '/io.linkerd.proxy.identity.Identity/Certify',
        requestStream: false,
        responseStream: false,
        credentials: credentialsOf(linkerdCa, { dns: [LINKERD_IDENTITY] }),
        answers: () => [Buffer.alloc(1024 * 1024, Buffer.from([0x12, 0x00]))],
      });
      const linkerd = {
        tokenFile: join(directory, 'token'),
        address: `127.0.0.1:${peer.port}`,
        trustDomain: 'cluster.local',
        clusterDomain: 'cluster.local',
      };
      put('linkerd-empty-certificates', { linkerd });
      return peer;
    },
  },
  {
    name: 'consul-grpc-empty-roots',
    outcome: UNREADABLE,
    async start({ put }) {
      const peer = await grpcPeer({
        path: '/hashicorp.consul.connectca.ConnectCAService/WatchRoots',
        requestStream: false,
        responseStream: true,
        async *answers(signal) {
          yield Buffer.alloc(FOUR_MIB - (FOUR_MIB % 2), Buffer.from([0x1a, 0x00]));
          await onceAborted(signal);
        },
      });
      const grpc = { addresses: [`127.0.0.1:${peer.port}`], plaintext: true };
      put('consul-grpc-empty-roots', { consul: { datacenter: 'dc1', grpc } });
      return peer;
    },
  },
  probed('probe-odd-certificate', /ERR_PROBE_UPSTREAM_UNTRUSTED/, async () => {
    const { key, cert } = await oddIdentity();
    const server = createTlsServer({ key, cert, requestCert: true, rejectUnauthorized: false });
    server.on('tlsClientError', () => {});
    return server;
  }),
  checked('upstream-hangs', /ERR_PROBE_TIMEOUT/, async () => createServer()),
  // OpenSSL skips empty HelloRequests: 4,096 in each record, for as long as they come.
  checked('upstream-hello-requests', /ERR_PROBE_(TIMEOUT|UNREACHABLE)/, async () =>
    flooding(Buffer.concat([Buffer.from([0x16, 0x03, 0x03, 0x40, 0x00]), Buffer.alloc(16_384)])),
  ),
  checked('upstream-no-tls', /ERR_PROBE_UNREACHABLE/, async () => flooding(Buffer.alloc(65_536, 'x'))),
  checked('upstream-flood-after-handshake', /ERR_PROBE_UPSTREAM_UNTRUSTED/, async () => {
    const { key, cert } = await oddIdentity();
    const server = createTlsServer({ key, cert }, (socket) => endless(socket, Buffer.alloc(65_536, 'x')));
    server.on('tlsClientError', () => {});
    return server;
  }),
  probed('probe-port', ADDRESS, undefined, 'h:99999'),
  refused('consul-port', { consul: { http: { address: 'http://h:99999' } } }),
  refused('consul-bracket', { consul: { http: { address: 'http://[' } } }),
  flood('http-kept-alive', 300, (socket) => socket.write('GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n')),
  flood('http-pipelined', 200, (socket) => {
    socket.pause();
    socket.write('GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'.repeat(2_000));
  }),
  flood('http-half-headers', 300, (socket) => socket.write('GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ')),
];

/** Texts that are long, and bad for patterns and printers. Each needs memory of its own, so not all run at once. */
export const TEXT_ATTACKS: readonly Attack[] = [
  {
    name: 'text-one-field',
    outcome: /ERR_CONFIG/,
    async start({ put }) {
      const root = { file: `/${repeated(WORST_TEXTS.token, 240_000)}` };
      put('text-one-field', { istio: { ca: { address: 'h:1', serviceAccount: 'gateway', root } } });
      return { async [Symbol.asyncDispose]() {} };
    },
  },
  ...Object.entries(WORST_TEXTS).map(([what, unit]) => texts(`text-${what}`, unit)),
  http(
    'text-answer',
    (answer) => {
      answer.statusCode = 500;
      answer.end(repeated(WORST_TEXTS.token, 1_000_000));
    },
    /ERR_MESH_/,
  ),
  // gRPC percent-encodes UTF-8, which has no halves of a character.
  ...Object.entries(WORST_TEXTS).flatMap(([what, unit]) =>
    what === 'halves' ? [] : [statusMessage(`text-status-${what}`, unit)],
  ),
  longName('text-name', (text) => ({ uris: [`${SPIFFE_ID}${text}`] }), 600_000, /ERR_MESH_/),
  longName('text-issuer', () => ({ uris: [SPIFFE_ID] }), 20_000, /"reason":"InForce"/),
];

/** The most that Node.js accepts in the headers of one HTTP/2 message is 64 KiB; each character may take three. */
const LONGEST_STATUS = 20_000;

/** A gRPC server that refuses each call with this text. */
function statusMessage(name: string, unit: string): Attack {
  return {
    name,
    outcome: /ERR_MESH_/,
    async start({ put }) {
      const peer = await grpcPeer({
        path: '/SpiffeWorkloadAPI/FetchX509SVID',
        requestStream: false,
        responseStream: true,
        answers: () => {
          throw Object.assign(new Error('refused'), { code: 16, details: repeated(unit, LONGEST_STATUS) });
        },
      });
      put(name, { spiffe: { address: `127.0.0.1:${peer.port}` } });
      return peer;
    },
  };
}

/** A leaf whose own name, or its issuer's, has this length. */
function longName(name: string, names: (text: string) => LeafOptions, length: number, outcome: RegExp): Attack {
  return {
    name,
    outcome,
    async start({ directory, put }) {
      const text = repeated('/a-b', length);
      const ca = SandboxCa.root({ name: name === 'text-issuer' ? text : 'root' });
      const key = PrivateKey.generate();
      const leaf = formatPem('CERTIFICATE', ca.encode(key, { ...names(text), lifetimeMs: 600_000 }));
      const socket = join(directory, `${name}.sock`);
      const inline = (pem: string) => ({ inline_bytes: Buffer.from(pem) });
      const pair = { certificate_chain: inline(leaf), private_key: inline(key.toPem()) };
      const resources = [
        secretResource({ name: 'default', tls_certificate: pair }),
        rootsResource('ROOTCA', [ca.root]),
      ];
      const peer = await sdsPeer(socket, async function* (signal) {
        yield push(resources);
        await onceAborted(signal);
      });
      put(name, sdsSpec(socket));
      return peer;
    },
  };
}

function credentialsOf(ca: SandboxCa, names: LeafOptions): ServerCredentials {
  const { key, chain } = ca.identity({ ...names, lifetimeMs: 3_600_000 });
  const keys = { private_key: Buffer.from(key.toPem()), cert_chain: Buffer.from(formatCertificates(chain)) };
  return ServerCredentials.createSsl(null, [keys]);
}

function sds(name: string, outcome: RegExp, message: (directory: string) => Buffer): Attack {
  return {
    name,
    outcome,
    async start({ directory, put }) {
      const socket = join(directory, `${name}.sock`);
      const bytes = message(directory);
      const peer = await sdsPeer(socket, async function* (signal) {
        yield bytes;
        await onceAborted(signal);
      });
      put(name, sdsSpec(socket));
      return peer;
    },
  };
}

/** `spec.file` whose files are all this one. */
function files(name: string, path: (directory: string) => string): Attack {
  return {
    name,
    outcome: /ERR_MESH_(CONFIG|UNAVAILABLE)/,
    async start({ directory, put }) {
      const one = path(directory);
      put(name, { file: { certificate: one, key: one, bundle: one } });
      return { async [Symbol.asyncDispose]() {} };
    },
  };
}

/** A Consul agent on loopback with this answer to everything. */
function http(name: string, answer: (response: ServerResponse) => void, outcome = UNREADABLE): Attack {
  return {
    name,
    outcome,
    async start({ put }) {
      const server = createHttpServer((_, response) => answer(response.on('error', () => {})));
      const port = await listening(server);
      put(name, { consul: { http: { address: `http://127.0.0.1:${port}` } } });
      return { [Symbol.asyncDispose]: () => closed(server) };
    },
  };
}

/** A leaf under a new root waits for the probed upstream's answer. */
function probed(name: string, outcome: RegExp, open: (() => Promise<Server>) | undefined, at?: string): Attack {
  return {
    name,
    outcome,
    async start({ directory, put, says, until }) {
      const server = await open?.();
      const address = at ?? `127.0.0.1:${server && (await listening(server))}`;
      const [old, next] = [SandboxCa.root(), SandboxCa.root()];
      let rotate = () => {};
      const rotated = new Promise<void>((resolve) => {
        rotate = resolve;
      });
      const socket = join(directory, `${name}.sock`);
      const peer = await sdsPeer(socket, async function* (signal) {
        yield pushOf(old, [old.root], '1');
        await Promise.race([rotated, onceAborted(signal)]);
        yield pushOf(next, [old.root, next.root], '2');
        await onceAborted(signal);
      });
      put(name, { ...sdsSpec(socket), trust: { hold: '1h' }, probe: { address } });
      await until(`${name} to be published or refused`, () => says(name, ADDRESS) || says(name, /"fingerprint"/));
      rotate();
      return {
        async [Symbol.asyncDispose]() {
          await peer[Symbol.asyncDispose]();
          if (server) await closed(server);
        },
      };
    },
  };
}

/** The upstream of a route that uses the certificate. */
function checked(name: string, outcome: RegExp, open: () => Promise<Server>): Attack {
  return {
    name,
    outcome,
    async start({ directory, put, map }) {
      const server = await open();
      const ca = SandboxCa.root();
      const socket = join(directory, `${name}.sock`);
      const peer = await sdsPeer(socket, async function* (signal) {
        yield pushOf(ca, [ca.root], '1');
        await onceAborted(signal);
      });
      map(name, `127.0.0.1:${await listening(server)}`);
      const mappings = { selector: { matchLabels: { mesh: name } } };
      put(name, { ...sdsSpec(socket), mappings, upstreams: { interval: '10s' } });
      return {
        async [Symbol.asyncDispose]() {
          await peer[Symbol.asyncDispose]();
          await closed(server);
        },
      };
    },
  };
}

const flooding = (bytes: Buffer): Server => createServer((socket) => endless(socket, bytes));

function endless(socket: Socket, bytes: Buffer): void {
  const more = () => {
    while (socket.writable && socket.write(bytes));
  };
  socket
    .on('error', () => {})
    .on('drain', more)
    .resume();
  more();
}

/** The text in every field of every mesh, together as large as an object may be, and in a Mapping that is selected. */
function texts(name: string, unit: string): Attack {
  const whole = 1_000_000;
  return {
    name,
    outcome: /ERR_CONFIG/,
    async start({ put, map }) {
      const { properties = {} } = structural(specSchema(adapters, gateways));
      const shared = Object.entries(properties).filter(([field]) => !adapters.some(({ mesh }) => mesh === field));
      for (const { mesh } of adapters) {
        const all = Object.fromEntries([...shared, [mesh, properties[mesh] ?? {}] as const]);
        const count = JSON.stringify(filled({ type: 'object', properties: all }, '\u0001')).split('\\u0001').length;
        put(
          mesh === 'istio' ? name : `${name}-${mesh}`,
          filled({ type: 'object', properties: all }, repeated(unit, whole / count)) as object,
        );
      }
      map(name, repeated(unit, whole));
      return { async [Symbol.asyncDispose]() {} };
    },
  };
}

/** A value of this shape whose every string is the text. */
function filled(schema: Structural, text: string): unknown {
  if (schema.properties) {
    return Object.fromEntries(Object.entries(schema.properties).map(([name, one]) => [name, filled(one, text)]));
  }
  if (schema.items) return [filled(schema.items, text)];
  if (schema.additionalProperties) return { [text]: filled(schema.additionalProperties, text) };
  return schema.type === 'string' ? text : 1;
}

function refused(name: string, spec: object): Attack {
  return {
    name,
    outcome: ADDRESS,
    async start({ put }) {
      put(name, spec);
      return { async [Symbol.asyncDispose]() {} };
    },
  };
}

/** This many connections, opened again when the agent closes them, for as long as the attack lasts. */
function flood(name: string, connections: number, begin: (socket: Socket) => void): Attack {
  return {
    name,
    async start({ url }) {
      const sockets = new Set<Socket>();
      let over = false;
      const open = () => {
        if (over) return;
        const socket = connect(Number(url.port), url.hostname, () => begin(socket));
        sockets.add(socket);
        socket.on('error', () => {});
        socket.once('close', () => {
          sockets.delete(socket);
          setTimeout(open, AGAIN_MS).unref();
        });
      };
      for (let n = 0; n < connections; n++) open();
      return {
        async [Symbol.asyncDispose]() {
          over = true;
          for (const socket of sockets) socket.destroy();
        },
      };
    },
  };
}

function listening(server: Server): Promise<number> {
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
}

function closed(server: Server & { closeAllConnections?(): void }): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections?.();
    server.unref();
    resolve();
  });
}
