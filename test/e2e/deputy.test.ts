import assert from 'node:assert/strict';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { say } from '../../src/cli/io.fixture.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { gateways } from '../../src/gateways.ts';
import { connect } from '../../src/kube/client.ts';
import { RESOURCES } from '../../src/kube/resources.ts';
import { SandboxCa } from '../../src/sandbox/ca.ts';
import { ambassadorDefinitions } from '../../src/sandbox/kube/ambassador.ts';
import { startKubeApi } from '../../src/sandbox/kube/kube-api.ts';

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

interface Attack {
  readonly title: string;
  readonly spec: (attacker: number) => object;
}

/** A user who may create a MeshCertificate in team-a tries to receive a token of its ServiceAccount gateway. */
const login = (more: object) => ({ login: { method: 'any', serviceAccount: 'gateway', ...more } });
const ATTACKS: readonly Attack[] = [
  {
    title: "a token of the API server's audience",
    spec: (port) => ({
      consul: { http: { address: `http://127.0.0.1:${port}` }, auth: login({ audience: API_AUDIENCE }) },
    }),
  },
  {
    title: 'a token for a mesh, in plaintext',
    spec: (port) => ({
      consul: { http: { address: `http://attacker.test:${port}` }, auth: login({ audience: 'istio-ca' }) },
    }),
  },
  {
    title: 'a token for a mesh, by gRPC without TLS',
    spec: (port) => ({
      consul: {
        datacenter: 'dc1',
        grpc: { addresses: [`attacker.test:${port}`], plaintext: true },
        auth: login({ audience: 'istio-ca' }),
      },
    }),
  },
  {
    title: 'a token of another namespace',
    spec: (port) => ({
      linkerd: {
        serviceAccount: { name: 'gateway', namespace: 'team-b' },
        address: `127.0.0.1:${port}`,
        trustDomain: 'cluster.local',
      },
    }),
  },
];

const MODES: readonly { readonly title: string; readonly flags: readonly string[] }[] = [
  { title: 'the defaults', flags: ['-n', 'team-a'] },
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
  let attacker: Server;
  let stolen: string[];

  before(async () => {
    scratch = await mkdtemp(join(tmpdir(), 'meshcert-deputy-'));
    attacker = createServer(async (request, response) => {
      let body = '';
      for await (const part of request) body += part;
      stolen.push(`${request.url} ${body}`);
      response.writeHead(500).end();
    });
    await new Promise<void>((resolve) => attacker.listen(0, '127.0.0.1', resolve));
  });
  after(() => new Promise((resolve) => attacker.close(resolve)));

  const certificate = (name: string, namespace: string, spec: object) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace },
    spec,
  });

  /**
   * Runs the agent over these objects until each MeshCertificate has failed, and returns the message of Degraded of
   * each.
   */
  async function run(objects: readonly object[], flags: readonly string[]): Promise<readonly string[]> {
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
    const judged = new Map<string, string>();
    try {
      for await (const { object } of kube.watch(RESOURCES.meshCertificates, { resourceVersion }, stop.signal)) {
        const { conditions = [] } = (object.status ?? {}) as { conditions?: { type: string; message: string }[] };
        const message = conditions.find(({ type }) => type === 'Degraded')?.message;
        if (message?.startsWith('ERR_')) judged.set(object.metadata.name, message);
        if (judged.size === objects.length) break;
      }
      return [...judged.values()];
    } finally {
      stop.abort();
      await running;
      kube.close();
      await api.stop();
    }
  }

  for (const mode of MODES) {
    for (const attack of ATTACKS) {
      it(`does not get ${attack.title}, under ${mode.title}`, async () => {
        const { port } = attacker.address() as AddressInfo;
        const spec = attack.spec(port);
        const [message = ''] = await run([certificate('mine', 'team-a', spec)], mode.flags);
        assert.match(message, /^ERR_(NOT_ALLOWED|CONFIG|NO_CONSENT): /);
        assert.deepEqual(stolen, []);
      });
    }
  }
});
