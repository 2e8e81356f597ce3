import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { it } from 'node:test';
import { AgentWorld } from '../support/agent-world.ts';

const ROTATIONS = 20;

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

it('no signal gathers listeners while certificates rotate', async () => {
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
  };
  const most = () => Math.max(...made.signals().map((signal) => getEventListeners(signal, 'abort').length));
  await rotate();
  const early = most();
  await rotate();
  assert.ok(most() < early + ROTATIONS / 2, `${early} after ${ROTATIONS} rotations, ${most()} after as many more`);
});
