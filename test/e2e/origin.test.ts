import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KubeObject } from '../../src/core/object.ts';
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
