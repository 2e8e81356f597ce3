import { after, before } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { istio } from '../../adapters/istio/adapter.ts';
import { adapterContract } from '../contract/adapter-contract.ts';
import { spireSuite } from '../contract/istio-suite.ts';
import { RawSds } from '../contract/sds-client.ts';
import { type Spire, startSpire } from './servers/spire.ts';

/** Renewed after half of its life; the agent checks each second. */
const LEAF_SECONDS = 20;
const SLOW = { timeoutMs: 120_000 };

let spire: Spire;
let id: string;

before(async () => {
  spire = await startSpire();
  id = await spire.createEntry('/gateway', { ttlSeconds: LEAF_SECONDS });
  await known();
});
after(() => spire?.stop());

/** Resolves once the agent has learnt of the entry. */
async function known(): Promise<void> {
  const sds = new RawSds(spire.socket);
  try {
    while (!(await sds.fetch([id]).catch(() => undefined))) await delay(100);
  } finally {
    sds.close();
  }
}

spireSuite('The real SPIRE agent', async () => {
  const { socket, trustDomain } = spire;
  // It rotates by itself within ten seconds.
  return { socket, id, trustDomain, rotate: () => {}, stop: async () => {} };
});

for (const disableSpiffeValidation of [true, false]) {
  const roots = disableSpiffeValidation ? 'plain roots' : "Envoy's SPIFFE validator";
  adapterContract(
    `The istio adapter on the socket of the real SPIRE, with ${roots}`,
    async () => ({
      adapter: istio,
      config: { sds: { socket: spire.socket, disableSpiffeValidation }, trustDomain: spire.trustDomain, id },
      outage: async (on) => {
        await spire.agentOutage(on);
        if (!on) await known();
      },
      rotate: () => {},
      stop: () => {},
    }),
    SLOW,
  );
}
