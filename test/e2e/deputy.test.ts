import assert from 'node:assert/strict';
import { mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { say } from '../support/io.ts';

const API_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';
const NAMESPACES = ['emissary', 'team-a', 'team-b'];
const ACCOUNTS = NAMESPACES.map((namespace) => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: { name: 'gateway', namespace },
}));

/** Like an older definition, which does not refuse anything itself. */
const unguarded = JSON.parse(
  JSON.stringify(customResourceDefinition(adapters, gateways), (key, value) =>
    key === 'x-kubernetes-validations' ? undefined : value,
  ),
);

/** Where the attacker listens. */
interface Attacker {
  readonly port: number;
  /** Path of a Unix socket. */
  readonly socket: string;
  /** Has the files of a usable certificate. */
  readonly directory: string;
}

interface Attack {
  readonly title: string;
  readonly spec: (attacker: Attacker) => object;
  /** Only the allow-list forbids it, so it is possible where there is none. */
  readonly onlyListed?: true;
}

/** A user who may create a MeshCertificate in team-a tries to receive a token of its ServiceAccount gateway. */
const login = (more: object) => ({ login: { method: 'any', serviceAccount: 'gateway', ...more } });
const ATTACKS: readonly Attack[] = [
  {
    title: "a token of the API server's audience",
    spec: ({ port }) => ({
      consul: { http: { address: `http://127.0.0.1:${port}` }, auth: login({ audience: API_AUDIENCE }) },
    }),
  },
  {
    title: 'a token for a mesh, in plaintext',
    spec: ({ port }) => ({
      consul: { http: { address: `http://attacker.test:${port}` }, auth: login({ audience: 'istio-ca' }) },
    }),
  },
  {
    title: 'a token for a mesh, by gRPC without TLS',
    spec: ({ port }) => ({
      consul: {
        datacenter: 'dc1',
        grpc: { addresses: [`attacker.test:${port}`], plaintext: true },
        auth: login({ audience: 'istio-ca' }),
      },
    }),
  },
  {
    title: 'a token of another namespace',
    spec: ({ port }) => ({
      linkerd: {
        serviceAccount: { name: 'gateway', namespace: 'team-b' },
        address: `127.0.0.1:${port}`,
        trustDomain: 'cluster.local',
      },
    }),
  },
  {
    title: 'a file of another directory',
    spec: ({ directory }) => ({ file: { directory } }),
  },
  {
    title: 'a connection to a socket of their choice',
    spec: ({ socket }) => ({ spiffe: { socket } }),
    onlyListed: true,
  },
];

const MODES: readonly { readonly title: string; readonly flags: readonly string[]; readonly unlisted?: true }[] = [
  { title: 'the defaults', flags: ['-n', 'team-a'], unlisted: true },
  { title: '--observe labels', flags: ['-n', 'team-a', '--observe', 'labels'] },
  { title: '--all-namespaces', flags: ['-n', 'emissary', '--all-namespaces', '--observe', 'labels'] },
  {
    title: 'an allow-list of other things',
    flags: [
      ...['-n', 'team-a', '--observe', 'labels', '--allow-service-account', 'team-a/gateway'],
      ...['--allow-audience', 'identity.l5d.io', '--allow-address', 'consul.test'],
    ],
  },
];

describe('a user who may create a MeshCertificate', () => {
  let scratch: string;
  let servers: readonly Server[];
  let attacker: Attacker;
  let stolen: string[];

  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'meshcert-deputy-'));
    const http = createHttpServer(async (request, response) => {
      let body = '';
      for await (const part of request) body += part;
      stolen.push(`${request.url} ${body}`);
      response.writeHead(500).end();
    });
    const raw = createServer((connection) => {
      stolen.push('a connection');
      connection.destroy();
    });
    servers = [http, raw];
    const socket = join(scratch, 'attacker.sock');
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
    await new Promise<void>((resolve) => raw.listen(socket, resolve));
    const directory = join(scratch, 'files');
    await mkdir(directory);
    const ca = SandboxCa.root();
    const { chain, key } = ca.identity({ uris: ['spiffe://td/ns/team-a/sa/gateway'] });
    await writeFile(join(directory, 'tls.crt'), chain.map(({ pem }) => pem).join(''));
    await writeFile(join(directory, 'tls.key'), key.toPem());
    await writeFile(join(directory, 'ca.crt'), ca.root.pem);
    attacker = { port: (http.address() as AddressInfo).port, socket, directory };
  });
  after(() => Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve)))));

  const certificate = (name: string, namespace: string, spec: object) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace },
    spec,
  });

  /** Runs the agent over these objects until `found` finds something in the status of the MeshCertificate. */
  async function run(
    objects: readonly object[],
    flags: readonly string[],
    found: (status: Status) => string | undefined,
  ): Promise<string | undefined> {
    stolen = [];
    const api = await startKubeApi({
      tls: false,
      namespaces: ['default', 'linkerd', ...NAMESPACES],
      objects: ACCOUNTS,
    });
    for (const definition of [unguarded, ...ambassadorDefinitions()]) api.put(definition);
    const roots = { 'ca-bundle.crt': SandboxCa.root().root.pem };
    api.put({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'linkerd-identity-trust-roots', namespace: 'linkerd' },
      data: roots,
    });
    for (const object of objects) api.put(object);
    const kubeconfig = join(scratch, `${Math.random()}.yaml`);
    await writeFile(kubeconfig, api.kubeconfig());
    const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'test' });
    const { resourceVersion } = await kube.list(RESOURCES.meshCertificates, {});
    const stop = new AbortController();
    const common = ['agent', '--no-leader-elect', '--listen', 'off', '--log-level', 'warn', '--kubeconfig', kubeconfig];
    const running = say([...common, ...flags], { signal: stop.signal });
    try {
      for await (const { object } of kube.watch(RESOURCES.meshCertificates, { resourceVersion }, stop.signal)) {
        const message = found((object.status ?? {}) as Status);
        if (message !== undefined) return message;
      }
      return undefined;
    } finally {
      stop.abort();
      await running;
      kube.close();
      await api.stop();
    }
  }

  for (const mode of MODES) {
    for (const { title, spec, onlyListed } of ATTACKS) {
      if (onlyListed && mode.unlisted) continue;
      it(`does not get ${title}, under ${mode.title}`, async () => {
        const message = await run([certificate('mine', 'team-a', spec(attacker))], mode.flags, degraded);
        assert.match(message ?? '', /^ERR_(NOT_ALLOWED|CONFIG|NO_CONSENT): |^ERR_MESH_CONFIG: .*--files-below/);
        assert.deepEqual(stolen, []);
      });
    }
  }

  it('does not get a certificate published to which a symlink leads out of --files-below', async () => {
    const directory = join(scratch, 'links');
    await mkdir(directory);
    for (const name of ['tls.crt', 'tls.key', 'ca.crt'])
      await symlink(join(attacker.directory, name), join(directory, name));
    const mine = certificate('mine', 'team-a', { file: { directory } });
    const flags = (below: string) => [
      '-n',
      'team-a',
      '--observe',
      'labels',
      '--files-below',
      below,
      '--allow-address',
      `file:${directory}`,
    ];
    assert.match((await run([mine], flags(directory), degraded)) ?? '', /^ERR_[A-Z_]+: .* is a symlink to .*not below/);
    assert.equal(await run([mine], flags(scratch), degraded), 'it was published');
  });

  it('does not get a handshake with an upstream of their choice by a Mapping, where addresses are listed', async () => {
    const { port, directory } = attacker;
    const address = `127.0.0.1:${port}`;
    const mappings = { selector: { matchLabels: { mesh: 'mine' } } };
    const mapping = {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: { name: 'web', namespace: 'team-a', labels: { mesh: 'mine' } },
      spec: { hostname: '*', prefix: '/', service: `https://${address}` },
    };
    const spec = { file: { directory }, mappings, upstreams: { interval: '10s' } };
    const flags = ['-n', 'team-a', '--observe', 'labels', '--files-below', scratch];
    const state = await run(
      [certificate('mine', 'team-a', spec), mapping],
      [...flags, '--allow-address', `file:${directory}`],
      ({ upstreams = [] }) => upstreams[0]?.state,
    );
    assert.equal(state, 'ERR_NOT_ALLOWED');
    assert.deepEqual(stolen, []);
  });
});

interface Status {
  readonly conditions?: readonly { readonly type: string; readonly status: string; readonly message: string }[];
  readonly upstreams?: readonly { readonly state: string }[];
}

function degraded({ conditions = [] }: Status): string | undefined {
  if (conditions.some(({ type, status }) => type === 'Published' && status === 'True')) return 'it was published';
  const message = conditions.find(({ type }) => type === 'Degraded')?.message;
  return message?.startsWith('ERR_') ? message : undefined;
}
