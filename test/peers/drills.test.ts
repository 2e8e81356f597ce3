import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Kube } from '../../src/kube/api.ts';
import { connect } from '../../src/kube/client.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { type AgentProcess, isPublished, startAgentProcess } from './parts/agent-process.ts';
import { agentWrites, nameOf, succeeded } from './parts/agent-writes.ts';
import { type GatedWrite, startApiGate } from './parts/api-gate.ts';
import { DrillTable, seconds } from './parts/drill-table.ts';
import { eventually } from './parts/eventually.ts';
import { askingSpec, type MeshCa, startMeshCa } from './parts/mesh-ca.ts';
import { watchPair } from './parts/pair-watch.ts';
import { prepareCluster } from './parts/prepare.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';

const MINUTE = 60_000;
/** Long enough to survive every outage here, and due after a tenth of it. */
const LEAF_MS = 2 * MINUTE;

describe('drills on the cluster side', () => {
  const table = new DrillTable();
  let apiserver: KubeApiserver;
  let kube: Kube & { close(): void };
  let count = 0;
  let namespace = '';

  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, {});
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  });
  beforeEach(async () => {
    count += 1;
    namespace = `drill-${count}`;
    await prepareCluster(apiserver, { [namespace]: ['gateway'] });
  });
  after(async () => {
    kube.close();
    await apiserver.stop();
    table.print();
  });

  const watched = () => watchPair(kube, { namespace, identity: 'mesh-identity', ca: 'mesh-ca' });
  const authority = (leafLifetimeMs = LEAF_MS) => startMeshCa({ apiserver, namespaces: [namespace], leafLifetimeMs });
  const agentOn = (ca: MeshCa, kubeconfig = apiserver.kubeconfigFile, trust = '{hold: 1s, retain: 5m}') =>
    startAgentProcess({
      kubeconfig,
      documents: `apiVersion: meshcert.dev/v1alpha1
kind: MeshCertificate
metadata: {name: mesh, namespace: ${namespace}}
spec:
  istio: ${askingSpec(ca.istio)}
  mappings: {selector: {matchLabels: {mesh: istio}}}
  renewal: {at: 0.1, jitter: 0}
  trust: ${trust}
`,
      args: ['--namespace', namespace, '--no-leader-elect'],
    });

  /** Breaks something exactly when a renewed leaf was signed and not yet written; repairs it after a while. */
  async function midRotation(
    what: string,
    downMs: number,
    breakIt: () => Promise<void>,
    mendIt: () => Promise<void>,
  ): Promise<void> {
    await using pair = watched();
    await using ca = await authority();
    await using agent = await agentOn(ca);
    await pair.until(() => pair.leaves.length === 1, MINUTE, 'the first leaf');
    const { pid } = agent.daemon;
    const asked = new Promise<void>((resolve, reject) => {
      ca.onAsk(async () => {
        ca.onAsk(undefined);
        await breakIt().then(resolve, reject);
      });
    });
    await asked;
    await eventually('the failure in the status', async () => lastError(agent), agent.log);
    const issued = ca.istio.issued.length;
    await delay(downMs);
    const error = (await agent.statuses())[0]?.status.lastError?.code;
    assert.equal(pair.leaves.length, 1);
    await mendIt();
    const repairedAt = performance.now();
    await pair.until(() => pair.leaves.length > 1, MINUTE, 'the leaf of the broken rotation');
    const lateMs = performance.now() - repairedAt;
    assert.deepEqual(pair.violations, []);
    assert.equal(agent.daemon.pid, pid, 'the agent lives on');
    assert.ok((pair.leaves[0]?.notAfter ?? 0) > Date.now(), 'the old leaf was good all the while');
    const writes = (await agentWrites(apiserver, namespace)).filter(succeeded);
    const deleted = writes.filter(({ verb }) => verb === 'delete');
    assert.deepEqual(deleted, []);
    const reissued = ca.istio.issued.length - issued - 1;
    table.add(
      `${what} for ${seconds(downMs)} between signature and write`,
      'the pair stays whole; the rotation is finished when the API is back, by the same process',
      `${error}; published ${seconds(lateMs)} after it was back; ${pair.versions} versions, 0 violations, ${Math.max(0, reissued)} leaves asked for again`,
    );
  }

  it('completes a rotation after kube-apiserver was killed for a minute in the middle of it', () =>
    midRotation(
      'kube-apiserver killed −9',
      MINUTE,
      () => apiserver.kill('SIGKILL'),
      () => apiserver.restart(),
    ));

  it('completes a rotation after etcd was killed in the middle of it', () =>
    midRotation(
      'etcd killed −9',
      20_000,
      () => apiserver.etcd.kill('SIGKILL'),
      async () => {
        await apiserver.etcd.restart();
        const ready = async () => (await apiserver.call('GET', '/readyz')).status === 200;
        await eventually('an API server that has found etcd again', ready, apiserver.log);
      },
    ));

  it('converges when it is killed before and after each of its writes, and repeats none of them', async () => {
    await using pair = watched();
    await using ca = await authority();
    await using gate = await startApiGate(apiserver);
    const mapping = {
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: { name: 'web', labels: { mesh: 'istio' } },
      spec: { hostname: '*', prefix: '/', service: 'https://web.shop:443' },
    };
    await apiserver.ensure(`/apis/getambassador.io/v3alpha1/namespaces/${namespace}/mappings`, mapping);
    await using agent = await agentOn(ca, gate.kubeconfigFile);
    const kills: string[] = [];
    let phase = 'publish';
    const once = (moment: string, { path }: GatedWrite) => {
      const kill = `${phase} ${moment} ${path.split('/').slice(-2).join('/')}`;
      if (kills.includes(kill)) return false;
      kills.push(kill);
      return true;
    };
    gate.onWrite(async (write) => {
      if (/\/events|\/token$/.test(write.path)) return;
      if (once('before', write)) {
        await agent.kill('SIGKILL');
        return write.drop();
      }
      await write.forward();
      if (!once('after', write)) return;
      await agent.kill('SIGKILL');
      write.drop();
    });
    const survive = async (what: string, done: () => Promise<boolean>) => {
      for (const deadline = Date.now() + 2 * MINUTE; !(await done()); await delay(25)) {
        if (!agent.daemon.running) await agent.restart().catch(() => {});
        if (Date.now() > deadline) throw new Error(`${what} did not come; ${kills.join(', ')}\n${agent.log()}`);
      }
    };
    const mapped = async () => {
      const path = `/apis/getambassador.io/v3alpha1/namespaces/${namespace}/mappings/web`;
      return (await apiserver.call('GET', path)).body?.spec?.tls === 'mesh';
    };
    await survive('the first publication', async () => agent.daemon.running && kills.length >= 8 && (await mapped()));
    phase = 'rotate';
    const authorityOf = () => pair.leaves.at(-1)?.authorityKeyId;
    const first = authorityOf();
    await ca.istio.rotateRoot({ key: 'new' });
    await survive('a leaf under the new root', async () => authorityOf() !== first && agent.daemon.running);
    gate.onWrite(undefined);
    await eventually('a quiet agent', async () => isPublished(agent), agent.log);

    assert.deepEqual(pair.violations, []);
    const writes = (await agentWrites(apiserver, namespace)).filter(succeeded);
    const creates = writes.filter(({ responseStatus }) => responseStatus?.code === 201).map(nameOf);
    assert.deepEqual(
      writes.filter(({ verb }) => verb === 'delete'),
      [],
    );
    assert.deepEqual(creates.slice(0, 3), ['secrets/mesh-ca', 'secrets/mesh-identity', 'tlscontexts/mesh']);
    const moved = writes.filter((event) => nameOf(event) === 'mappings/web');
    assert.equal(moved.length, 1, 'the Mapping was written once');
    assert.ok(kills.filter((kill) => kill.startsWith('rotate')).length >= 4, kills.join(', '));
    table.add(
      `agent killed −9 before and after each write (${kills.length} kills)`,
      'no half publication, order kept, nothing written twice, the new root before the leaf under it',
      `created ${creates.join(', ')}; ${writes.length} writes, ${pair.leaves.length} leaves, 0 violations`,
    );
  });

  it('reverts a hundred foreign writes, each once, without a request to the mesh', async () => {
    await using pair = watched();
    await using ca = await authority(24 * 60 * MINUTE);
    await using agent = await agentOn(ca);
    await eventually('all published', async () => isPublished(agent), agent.log);
    const secrets = `/api/v1/namespaces/${namespace}/secrets`;
    const context = `/apis/getambassador.io/v3alpha1/namespaces/${namespace}/tlscontexts/mesh`;
    const wanted = await Promise.all([`${secrets}/mesh-identity`, `${secrets}/mesh-ca`, context].map(contentOf));
    const issued = ca.istio.issued.length;
    const before = (await agentWrites(apiserver, namespace)).length;
    const foreign = new Set<string>();
    const junk = Buffer.from('junk').toString('base64');
    const edits = [
      [`${secrets}/mesh-identity`, { data: { 'tls.crt': junk } }],
      [`${secrets}/mesh-identity`, { data: { 'tls.key': junk } }],
      [`${secrets}/mesh-ca`, { data: { 'ca.crt': junk } }],
      [context, { spec: { secret: 'elsewhere' } }],
      [`${secrets}/mesh-identity`, { metadata: { labels: { theirs: 'kept' } } }],
    ] as const;
    const contentType = 'application/merge-patch+json';
    for (let n = 0; n < 100; n++) {
      const [path, body] = edits[n % edits.length] ?? edits[0];
      const value = n % 5 === 4 ? { metadata: { labels: { theirs: `kept-${n}` } } } : body;
      const { status, body: answer } = await apiserver.call('PATCH', path, value, { contentType });
      assert.equal(status, 200);
      foreign.add((answer as KubeObject).metadata.resourceVersion ?? '');
      if (n % 10 === 9) await delay(200);
    }
    await eventually(
      'the publication as it was',
      async () => {
        const now = await Promise.all([`${secrets}/mesh-identity`, `${secrets}/mesh-ca`, context].map(contentOf));
        return JSON.stringify(now) === JSON.stringify(wanted);
      },
      agent.log,
    );
    const writes = (await agentWrites(apiserver, namespace)).slice(before);
    const repairs = writes.filter(succeeded).length;
    const ours = pair.violations.filter((violation) => !foreign.has(violation.split(':')[0] ?? ''));
    assert.deepEqual(ours, []);
    assert.ok(repairs <= 80, `${repairs} repairs of 80 edits that touch fields of ours`);
    assert.equal(ca.istio.issued.length, issued, 'no certificate was asked for');
    const labels = (await apiserver.call('GET', `${secrets}/mesh-identity`)).body.metadata.labels;
    assert.equal(labels.theirs, 'kept-99', 'what others add stays');
    const counted = [...(await agent.metrics()).matchAll(/^meshcert_drift_repairs_total\{.*\} (\d+)$/gm)];
    const reported = counted.reduce((sum, [, value]) => sum + Number(value), 0);
    assert.ok(reported > 0 && reported <= repairs, `${reported} repairs in the metrics, ${repairs} in the audit log`);
    table.add(
      '100 foreign writes',
      'what is ours is as it was, what is theirs stays; at most one write for each; no certificate is asked for',
      `${repairs} repairs of 80 edits in fields of ours, ${writes.length - repairs} conflicts, 0 of 20 in others'`,
    );
  });

  async function contentOf(path: string): Promise<unknown> {
    const { body } = await apiserver.call('GET', path);
    return body.data ?? body.spec;
  }
});

async function lastError(agent: AgentProcess): Promise<boolean> {
  return (await agent.statuses())[0]?.status.lastError !== undefined;
}
