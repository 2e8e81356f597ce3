import assert from 'node:assert/strict';
import { it } from 'node:test';
import { queryObjects } from 'node:v8';
import { FakeClock } from '../../test/support/fake-clock.ts';
import type { PlanStep } from '../core/plan.ts';
import { emissary } from '../gateway/emissary/gateway.ts';
import type { Kube } from '../kube/api.ts';
import type { KubeObject } from '../objects/objects.ts';
import { publish } from './publisher.ts';
import { BatchGap, WritePriority } from './write-order.ts';

/** What the API server responds with, in a form that can be counted. */
class Response {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: KubeObject['metadata'];

  constructor({ apiVersion, kind, metadata }: KubeObject) {
    this.apiVersion = apiVersion;
    this.kind = kind;
    this.metadata = metadata;
  }
}

const create = (apiVersion: string, kind: string, more: object = {}): PlanStep => ({
  action: 'create',
  object: { apiVersion, kind, metadata: { name: 'istio', namespace: 'edge' } },
  changed: [],
  ...more,
});

it('keeps no response to a Secret while the gateway’s object has to wait', async () => {
  const clock = new FakeClock();
  const told: string[] = [];
  const options = {
    kube: { create: async (object: KubeObject) => new Response(object) } as unknown as Kube,
    clock,
    fence: { check: () => {} },
    batchGap: new BatchGap(clock, [emissary]),
    writePriority: new WritePriority(clock),
    gateways: [emissary],
    dryRun: false,
    isHeld: () => false,
    isProven: () => true,
    recordsOrigin: true,
    view: { get: () => undefined },
    wrote: ({ kind }: KubeObject, action: string) => told.push(`${action} ${kind}`),
  };
  const steps = [create('v1', 'Secret'), create('getambassador.io/v3alpha1', 'TLSContext', { gateway: emissary.kind })];
  const published = publish(steps, options, new AbortController().signal);
  await clock.advance(emissary.batchGapMs / 2);
  assert.deepEqual(told, ['create Secret']);
  assert.equal(queryObjects(Response, { format: 'count' }), 0);
  await clock.advance(emissary.batchGapMs);
  const { written, problems } = await published;
  assert.deepEqual(problems, []);
  assert.deepEqual(
    written.map(({ ref }) => ref.kind),
    ['Secret', 'TLSContext'],
  );
  assert.deepEqual(told, ['create Secret', 'create TLSContext']);
});
