import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Istio, startIstio } from '../../sandbox/istio/istio.ts';
import { ambassadorDefinitions } from '../../sandbox/kube/ambassador.ts';
import { ROOT } from '../../scripts/tree.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { type AgentProcess, startAgentProcess } from './parts/agent-process.ts';
import { eventually } from './parts/eventually.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MCERTS = '/apis/meshcert.dev/v1alpha1/namespaces/emissary/meshcertificates';
const CONTEXTS = '/apis/getambassador.io/v3alpha1/namespaces/emissary/tlscontexts';
const SECRETS = '/api/v1/namespaces/emissary/secrets';

interface Resource {
  readonly metadata: { readonly name: string; readonly finalizers?: readonly string[] };
  readonly spec?: Record<string, unknown>;
  readonly status?: PublicationStatus;
}

describe('the controller on a real API server', () => {
  let server: KubeApiserver;
  let istio: Istio;

  before(async () => {
    [server, istio] = await Promise.all([
      startKubeApiserver(),
      startIstio({ authenticate: accountOf, leafLifetimeMs: 24 * 3_600_000 }),
    ]);
    await prepareCluster(server, { emissary: ['gateway'] });
    const roots = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'istio-ca-root-cert', namespace: 'emissary' },
    };
    await server.ensure('/api/v1/namespaces/emissary/configmaps', {
      ...roots,
      data: { 'root-cert.pem': istio.rootPem },
    });
  });
  after(async () => {
    await istio?.stop();
    await server?.stop();
  });

  const agent = (args: readonly string[] = []) =>
    startAgentProcess({ kubeconfig: server.kubeconfigFile, args: ['--namespace', 'emissary', ...args] });
  const create = (name: string, changes: Record<string, unknown> = {}) =>
    server.ensure(MCERTS, certificate(name, istio, changes));
  const read = async (name: string) => (await server.call('GET', `${MCERTS}/${name}`)).body as Resource;
  /** In the status, which may be the work of an agent before this one, and in this agent's own eyes. */
  const ready = (name: string, running: AgentProcess) =>
    eventually(
      `${name} Ready`,
      async () => {
        const seen = (await running.statuses()).find((entry) => entry.name === name);
        return [await read(name), seen ?? {}].every((one) =>
          ['Ready', 'Published'].every((type) => conditionOf(one, type) === 'True'),
        );
      },
      running.log,
    );

  it('waits for a definition that is applied after it started, and appears in kubectl', async () => {
    await using running = await agent();
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await server.kubectl(['wait', '--for=condition=Established', 'crd/meshcertificates.meshcert.dev']);
    await create('first');
    await ready('first', running);
    const table = await server.kubectl(['get', 'mcert', '-A']);
    assert.match(table, /NAMESPACE +NAME +MESH +IDENTITY +READY +NOT-AFTER +RENEWAL +AGE/);
    assert.match(table, /emissary +first +istio +spiffe:\/\/cluster\.local\/ns\/emissary\/sa\/gateway +True/);
    const described = await server.kubectl(['describe', 'mcert', '-n', 'emissary', 'first']);
    assert.match(described, /Reason: +Serving/);
    assert.match(described, /Normal +Published/);
    assert.match(await server.kubectl(['explain', 'mcert.spec.trust.hold']), /held back/);
    console.log(`${table}\n${described}`);
  });

  it('refuses what the definition forbids, with a helpful message', async () => {
    for (const [spec, words] of [
      [{}, /exactly one of istio, linkerd/],
      [
        {
          istio: { ca: { serviceAccount: 'a' } },
          consul: { service: 'a', datacenter: 'b', http: { address: 'http://consul:8500' } },
        },
        /exactly one of/,
      ],
      [{ istio: { ca: { serviceAccount: 'a' } }, renewal: { at: 7 } }, /renewal\.at/],
    ] as const) {
      const { status, body } = await server.call('POST', MCERTS, { ...certificate('bad', istio), spec });
      assert.equal(status, 422);
      assert.match((body as { message: string }).message, words);
    }
  });

  it('costs two requests a rotation and none but the Lease when idle', async () => {
    await using earlier = await agent();
    await settled(server, earlier);
    await earlier.stop();
    const stopped = (await requests(server)).length;
    await using running = await agent();
    await settled(server, running);
    assert.deepEqual(
      writes((await requests(server)).slice(stopped)).filter((line) => !/leases/.test(line)),
      [],
    );
    const before = await read('first');
    const mark = await requests(server);
    await server.kubectl(['annotate', 'mcert', '-n', 'emissary', 'first', 'meshcert.dev/renew=now', '--overwrite']);
    await eventually(
      'another leaf in the status',
      async () => (await read('first')).status?.fingerprint !== before.status?.fingerprint,
      running.log,
    );
    // The account, a token for the mesh, the audiences of the API server, and whether it would accept the token.
    const tokens = /serviceaccounts\/gateway|get \/version/;
    const spent = (await requests(server)).slice(mark.length);
    const rotation = spent.filter((line) => !/leases|events/.test(line) && !tokens.test(line));
    console.log(`requests of a rotation: ${rotation.join(', ')}`);
    assert.ok(rotation.length <= 2, rotation.join('\n'));
    const quiet = (await requests(server)).length;
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    const idle = (await requests(server)).slice(quiet).filter((line) => !/leases/.test(line));
    console.log(`requests of ten idle seconds but the Lease: ${idle.length}`);
    assert.deepEqual(idle, []);
  });

  it('keeps its publication when the resource is deleted, unless configured otherwise', async () => {
    await using running = await agent();
    await create('kept');
    await ready('kept', running);
    await server.call('DELETE', `${MCERTS}/kept`);
    await eventually(
      'no resource',
      async () => (await server.call('GET', `${MCERTS}/kept`)).status === 404,
      running.log,
    );
    assert.equal((await server.call('GET', `${SECRETS}/kept-identity`)).status, 200);

    await create('gone', { deletionPolicy: 'Delete' });
    await ready('gone', running);
    await eventually('a finalizer', async () => (await read('gone')).metadata.finalizers?.length === 1, running.log);
    const mapping = {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: { name: 'web', namespace: 'emissary' },
      spec: { hostname: '*', prefix: '/', service: 'https://web.shop:443', tls: 'gone' },
    };
    await server.ensure('/apis/getambassador.io/v3alpha1/namespaces/emissary/mappings', mapping);
    await eventually(
      'the Mapping in the status',
      async () => (await read('gone')).status?.mappings.length === 1,
      running.log,
    );
    await server.call('DELETE', `${MCERTS}/gone`);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    assert.equal((await server.call('GET', `${SECRETS}/gone-identity`)).status, 200, 'a Mapping still refers to it');
    await server.call('DELETE', '/apis/getambassador.io/v3alpha1/namespaces/emissary/mappings/web');
    await eventually(
      'no resource',
      async () => (await server.call('GET', `${MCERTS}/gone`)).status === 404,
      running.log,
    );
    assert.equal((await server.call('GET', `${SECRETS}/gone-identity`)).status, 404);
    assert.equal((await server.call('GET', `${CONTEXTS}/gone`)).status, 404);
  });

  it('loses nothing when the definition is deleted by mistake, and resumes when both are back', async () => {
    await using running = await agent();
    await ready('first', running);
    const standing = async () => [
      (await server.call('GET', `${SECRETS}/first-identity`)).body,
      (await server.call('GET', `${SECRETS}/first-ca`)).body,
      (await server.call('GET', `${CONTEXTS}/first`)).body,
    ];
    const before = await standing();
    const mark = (await requests(server)).length;
    await server.kubectl(['delete', 'crd', 'meshcertificates.meshcert.dev']);
    await eventually('no definition', async () => (await server.call('GET', MCERTS)).status === 404, running.log);
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    assert.deepEqual(await standing(), before);
    await server.kubectl(['apply', '-f', join(ROOT, 'deploy/crd/meshcertificate.yaml')]);
    await eventually('a definition', async () => (await server.call('GET', MCERTS)).status === 200, running.log);
    await create('first');
    await ready('first', running);
    assert.deepEqual(await standing(), before);
    assert.deepEqual(
      writes((await requests(server)).slice(mark)).filter((line) => /secrets|tlscontexts/.test(line)),
      [],
    );
  });

  it('continues after its watches are cut and its history is compacted', async () => {
    await using running = await agent();
    await ready('first', running);
    await server.etcd.restart();
    await server.restart();
    const before = await read('first');
    await server.kubectl(['annotate', 'mcert', '-n', 'emissary', 'first', 'meshcert.dev/renew=again', '--overwrite']);
    await eventually(
      'another leaf',
      async () => (await read('first')).status?.fingerprint !== before.status?.fingerprint,
      running.log,
    );
  });

  it('is Degraded while the API server is away, and no longer once it is back', async () => {
    await using running = await agent();
    await ready('first', running);
    const secret = async () => (await server.call('GET', `${SECRETS}/first-identity`)).body;
    const before = await secret();
    const degraded = (status: string, code: string | undefined) =>
      eventually(
        `Degraded ${status}`,
        async () => {
          const seen = (await running.statuses()).find(({ name }) => name === 'first');
          return conditionOf(seen ?? {}, 'Degraded') === status && seen?.status.lastError?.code === code;
        },
        running.log,
      );
    await server.kill();
    await degraded('True', 'ERR_KUBE_UNREACHABLE');
    await server.restart();
    await degraded('False', undefined);
    await server.kubectl(['wait', '--for=condition=Degraded=False', '-n', 'emissary', 'mcert/first']);
    assert.deepEqual(await secret(), before);
  });

  it('deletes what outlives the definitions of the gateway, and what never had them', async () => {
    const gone = (name: string, running: AgentProcess) =>
      eventually(
        `${name} gone`,
        async () => (await server.call('GET', `${MCERTS}/${name}`)).status === 404,
        running.log,
      );
    const kept = async (name: string, running: AgentProcess, changes: object = {}) => {
      await create(name, { deletionPolicy: 'Delete', ...changes });
      await ready(name, running);
      await eventually('a finalizer', async () => (await read(name)).metadata.finalizers?.length === 1, running.log);
    };
    await using running = await agent();
    await kept('outliving', running);
    const definitions = ambassadorDefinitions().map(({ metadata }) => `crd/${metadata.name}`);
    await server.kubectl(['delete', ...definitions]);
    await eventually('no definition', async () => (await server.call('GET', CONTEXTS)).status === 404, running.log);
    await server.call('DELETE', `${MCERTS}/outliving`);
    await gone('outliving', running);
    await running.stop();
    await using other = await agent();
    await kept('alone', other, { tlsContext: { enabled: false } });
    await server.call('DELETE', `${MCERTS}/alone`);
    await gone('alone', other);
    for (const name of ['outliving', 'alone'])
      assert.equal((await server.call('GET', `${SECRETS}/${name}-identity`)).status, 404, name);
  });
});

function certificate(name: string, istio: Istio, changes: Record<string, unknown> = {}) {
  return {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace: 'emissary' },
    spec: {
      istio: {
        trustDomain: 'cluster.local',
        ca: { address: istio.address, serverName: istio.serverName, serviceAccount: 'gateway' },
      },
      ...changes,
    },
  };
}

function conditionOf(resource: Pick<Resource, 'status'>, type: string): string | undefined {
  return resource.status?.conditions?.find((condition) => condition.type === type)?.status;
}

/** What the agents asked of the API server. */
async function requests(server: KubeApiserver): Promise<string[]> {
  const events = await server.audit();
  return events
    .filter(({ userAgent }) => userAgent?.startsWith('meshcert/'))
    .map(({ verb, requestURI }) => `${verb} ${requestURI.split('?')[0]}`);
}

const writes = (lines: readonly string[]) => lines.filter((line) => /^(patch|create|update|delete) /.test(line));

/** The agent follows, and requests nothing more. */
async function settled(server: KubeApiserver, running: AgentProcess): Promise<void> {
  await eventually('a status', async () => (await running.statuses()).length > 0, running.log);
  let last = -1;
  await eventually(
    'quiet',
    async () => {
      await new Promise((resolve) => setTimeout(resolve, 3_000));
      const now = (await requests(server)).filter((line) => !/leases/.test(line)).length;
      const quiet = now === last;
      last = now;
      return quiet;
    },
    running.log,
  );
}

/** The API server that minted these tokens judges them; only their subject matters here. */
function accountOf(token: string) {
  const { sub } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { sub: string };
  const [, , namespace = '', account = ''] = sub.split(':');
  return { namespace, account };
}
