import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { it } from 'node:test';
import { queryObjects } from 'node:v8';
import { Certificate } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { AgentWorld } from '../support/agent-world.ts';

/** Twice as many, and the first issue, are within what one MeshCertificate may request in an hour. */
const ROTATIONS = 14;

/** What a rotation creates in small, exact numbers. The bench measures the whole heap over 10,000 rotations. */
const COUNTED = [Certificate, PrivateKey, Map];

/** Every AbortController that the process makes from now on, as long as it is in use. */
function controllers(): { readonly signals: () => readonly AbortSignal[] } & Disposable {
  const Original = globalThis.AbortController;
  const made: WeakRef<AbortSignal>[] = [];
  globalThis.AbortController = class extends Original {
    constructor() {
      super();
      made.push(new WeakRef(this.signal));
    }
  };
  return {
    signals: () => made.flatMap((one) => one.deref() ?? []),
    [Symbol.dispose]: () => {
      globalThis.AbortController = Original;
    },
  };
}

it('no rotation leaves an object or a listener behind', async () => {
  using made = controllers();
  await using world = await AgentWorld.start();
  world.putCertificate();
  world.follow();
  await world.untilReady();
  const rotate = async () => {
    for (let rotation = 0; rotation < ROTATIONS; rotation++) {
      const before = await world.leaf();
      world.agent?.reconcilers.find('emissary', 'istio')?.renew();
      await world.until('another leaf', async () => (await world.leaf()) !== before);
    }
    await world.untilReady();
    // The sandbox remembers requests and changes.
    world.api.requests.reset();
    world.api.compact();
    const listeners = made.signals().map((signal) => getEventListeners(signal, 'abort').length);
    // Objects are counted after a full collection.
    const objects = COUNTED.map((one): [string, number] => [one.name, queryObjects(one, { format: 'count' })]);
    return new Map([['listeners', Math.max(...listeners)], ...objects]);
  };
  const early = await rotate();
  const late = await rotate();
  for (const [what, count] of late) {
    const before = early.get(what) ?? 0;
    assert.ok(
      count < before + ROTATIONS / 2,
      `${what}: ${before} after ${ROTATIONS} rotations, ${count} after as many more`,
    );
  }
});
