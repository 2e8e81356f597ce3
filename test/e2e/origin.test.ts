import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PublicationStatus } from '../../src/core/status.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { AgentWorld } from '../support/agent-world.ts';
import { plantedSecrets } from '../support/planted.ts';
import { TOY_ID } from '../support/toy-mesh.ts';

const META = { apiVersion: 'v1', kind: 'Secret', namespace: 'emissary' } as const;

describe('Secrets that existed before the first write of the agent', () => {
  it('contribute no root and no identity, and nothing of them remains', async () => {
    await using world = await AgentWorld.start();
    const planted = plantedSecrets('emissary', TOY_ID, world.clock.now());
    for (const secret of planted.secrets) await world.kube.create(secret, { fieldManager: 'meshcert' });
    world.run();
    await world.untilReady();
    const { bundle, identity, since } = await world.published();
    assert.deepEqual(
      bundle.map(({ subject }) => subject),
      [world.mesh.ca.root.subject],
    );
    assert.notEqual(identity?.chain[0]?.fingerprint, planted.leaf.fingerprint);
    assert.equal(since.size, 0);
    for (const name of ['istio-ca', 'istio-identity']) {
      const { metadata, data } = (await world.secret(name)) as KubeObject;
      assert.equal(metadata.annotations?.['meshcert.dev/uid'], metadata.uid);
      assert.deepEqual([metadata.labels?.planted, metadata.ownerReferences], [undefined, undefined]);
      assert.deepEqual(
        Object.keys(data as object).filter((key) => key.includes('pem')),
        [],
      );
    }
    assert.equal(world.mesh.issued, 1);
    await world.stop();
    world.run();
    await world.untilReady();
    assert.equal(world.mesh.issued, 1, 'what the agent wrote over them is believed');
  });

  it('contribute no root when they replace Secrets of the agent that somebody deleted while it was down', async () => {
    await using world = await AgentWorld.start();
    world.run();
    await world.untilReady();
    await world.stop();
    const { secrets } = plantedSecrets('emissary', TOY_ID, world.clock.now());
    const [ca] = secrets as [KubeObject];
    await world.kube.delete({ ...META, name: 'istio-ca' }, {});
    await world.kube.create(ca, { fieldManager: 'meshcert' });
    const before = await world.leaf();
    world.run();
    await world.untilReady();
    const { bundle } = await world.published();
    assert.deepEqual(
      bundle.map(({ subject }) => subject),
      [world.mesh.ca.root.subject],
    );
    assert.equal(await world.leaf(), before, 'the identity Secret still proves its origin');
    assert.equal(world.mesh.issued, 1);
  });
});

describe('Secrets that the agent created for a custom resource', () => {
  const stored = async (world: AgentWorld) => {
    const ref = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace: 'emissary', name: 'istio' };
    return (await world.kube.get(ref)) as KubeObject & { readonly status?: Partial<PublicationStatus> };
  };
  const secrets = async (world: AgentWorld) => {
    const found = await Promise.all(['istio-ca', 'istio-identity'].map((name) => world.secret(name)));
    return found.map((secret) => secret?.metadata);
  };
  const publish = async (world: AgentWorld) => {
    world.putCertificate();
    world.follow();
    await world.untilReady();
    await world.until('the status', async () => (await stored(world)).status?.secrets?.length === 2);
  };

  it('are relied on after a restart, because the status has their uids', async () => {
    await using world = await AgentWorld.start();
    await publish(world);
    const before = await secrets(world);
    assert.deepEqual(
      (await stored(world)).status?.secrets?.map(({ uid }) => uid),
      before.map((metadata) => metadata?.uid),
    );
    assert.deepEqual(
      before.map((metadata) => metadata?.annotations?.['meshcert.dev/uid']),
      [undefined, undefined],
      'no second write was needed',
    );
    await world.stop();
    world.follow();
    await world.untilReady();
    assert.equal(world.mesh.issued, 1);
    assert.deepEqual(await secrets(world), before);
  });

  it('carry their uid after the first rotation, and what others added to them stays', async () => {
    await using world = await AgentWorld.start();
    await publish(world);
    const label = { metadata: { labels: { team: 'edge' } } };
    const ref = { apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name: 'istio-identity' };
    await world.kube.merge(ref, label, { fieldManager: 'somebody' });
    const leaf = await world.leaf();
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.until('a rotation', async () => (await world.leaf()) !== leaf);
    const metadata = (await world.secret('istio-identity'))?.metadata;
    assert.equal(metadata?.annotations?.['meshcert.dev/uid'], metadata?.uid);
    assert.equal(metadata?.labels?.team, 'edge');
  });

  it('are written again with a new certificate when the agent died before it wrote the status', async () => {
    await using world = await AgentWorld.start();
    world.putCertificate();
    world.api.fault({ status: 503, match: ({ subresource }) => subresource === 'status' });
    world.follow();
    await world.untilReady();
    await world.stop();
    world.api.clearFaults();
    world.follow();
    await world.untilReady();
    assert.equal(world.mesh.issued, 2);
    for (const metadata of await secrets(world))
      assert.equal(metadata?.annotations?.['meshcert.dev/uid'], metadata?.uid);
  });

  it('are not relied on when somebody replaced them', async () => {
    await using world = await AgentWorld.start();
    await publish(world);
    await world.stop();
    const planted = plantedSecrets('emissary', TOY_ID, world.clock.now());
    for (const secret of planted.secrets) {
      await world.kube.delete({ ...META, name: secret.metadata.name }, {});
      await world.kube.create(secret, { fieldManager: 'meshcert' });
    }
    world.follow();
    await world.untilReady();
    const { bundle, identity } = await world.published();
    assert.deepEqual(
      bundle.map(({ subject }) => subject),
      [world.mesh.ca.root.subject],
    );
    assert.notEqual(identity?.chain[0]?.fingerprint, planted.leaf.fingerprint);
  });
});
