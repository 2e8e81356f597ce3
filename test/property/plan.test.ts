import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { type Desired, type PlanStep, plan, type WriteStep } from '../../src/core/plan.ts';
import {
  FIELD_MANAGER,
  type KubeObject,
  keyOf,
  OWNER_LABEL,
  refOf,
  UID_ANNOTATION,
} from '../../src/objects/objects.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';

const owner = 'ns.name';
const now = Date.UTC(2026, 5, 1);
const hour = 3_600_000;
const text = fc.constantFrom('', 'a', 'b', 'c');
const map = fc.dictionary(fc.constantFrom('tls.crt', 'tls.key', 'ca.crt', 'x'), text, { noNullPrototype: true });
const spec = fc.record(
  { secret: text, hosts: fc.array(text, { maxLength: 2 }), nested: map },
  { noNullPrototype: true },
);

const desiredLists = fc
  .uniqueArray(
    fc.record({
      name: fc.constantFrom('a', 'b', 'c', 'd'),
      secret: fc.boolean(),
      order: fc.nat(4),
      labels: map,
      annotations: map,
      data: map,
      spec,
    }),
    {
      selector: ({ name, secret }) => `${name}${secret}`,
      maxLength: 6,
    },
  )
  .map((all) =>
    all.map(
      ({ name, secret, order, labels, annotations, data, spec: fields }): Desired => ({
        order,
        ...(secret ? {} : { gateway: 'emissary' }),
        object: {
          apiVersion: secret ? 'v1' : 'getambassador.io/v3alpha1',
          kind: secret ? 'Secret' : 'TLSContext',
          metadata: { name, namespace: 'ns', labels: { ...labels, [OWNER_LABEL]: owner }, annotations },
          ...(secret ? { type: 'Opaque', data } : { spec: fields }),
        },
      }),
    ),
  );

/** A cluster that merges maps like server-side apply and replaces everything else. */
class Cluster {
  readonly objects = new Map<string, KubeObject>();
  #version = 0;

  write(object: KubeObject): void {
    const key = keyOf(refOf(object));
    const before = this.objects.get(key);
    const merged = merge(before ?? {}, object) as KubeObject;
    this.objects.set(key, {
      ...merged,
      metadata: {
        ...merged.metadata,
        resourceVersion: String(++this.#version),
        managedFields: [
          ...(before?.metadata.managedFields ?? []),
          { manager: FIELD_MANAGER, operation: 'Apply', fieldsV1: {} },
        ],
      },
    });
  }

  foreign(object: KubeObject, how: 'unlabelled' | 'other owner' | 'unmanaged'): void {
    const labels = how === 'unlabelled' ? {} : { [OWNER_LABEL]: how === 'other owner' ? 'x.y' : owner };
    const managedFields = [{ manager: how === 'unmanaged' ? 'kubectl' : FIELD_MANAGER, operation: 'Update' as const }];
    this.objects.set(keyOf(refOf(object)), { ...object, metadata: { ...object.metadata, labels, managedFields } });
  }
}

function merge(before: unknown, after: unknown): unknown {
  if (typeof after !== 'object' || after === null || Array.isArray(after)) return after;
  const base = typeof before === 'object' && before !== null && !Array.isArray(before) ? before : {};
  const entries = Object.entries(after).map(([name, value]) => [
    name,
    merge((base as Record<string, unknown>)[name], value),
  ]);
  return { ...base, ...Object.fromEntries(entries) };
}

const writes = (steps: readonly PlanStep[]) =>
  steps.filter((step): step is WriteStep => step.action === 'create' || step.action === 'apply');

test('after a plan is carried out the next one is empty', () => {
  fc.assert(
    fc.property(desiredLists, desiredLists, (first, second) => {
      const cluster = new Cluster();
      for (const desired of [first, second]) {
        for (const step of writes(plan(desired, cluster.objects, owner, now))) cluster.write(step.object);
        assert.deepEqual(writes(plan(desired, cluster.objects, owner, now)), []);
      }
    }),
  );
});

test('an equivalent desired object is no change: key order, fields of others, filled-in defaults', () => {
  fc.assert(
    fc.property(desiredLists, (desired) => {
      const cluster = new Cluster();
      for (const { object } of desired) {
        const { metadata, ...rest } = object;
        const reversed = Object.fromEntries(Object.entries(rest).reverse()) as typeof rest;
        const annotations = { ...metadata.annotations, ...(object.kind === 'Secret' ? { [UID_ANNOTATION]: 'u' } : {}) };
        const more = { ...metadata, annotations, uid: 'u', generation: 3 };
        cluster.write({ ...reversed, metadata: more } as KubeObject);
        cluster.write({ ...object, status: { x: 1 }, extra: 1 });
      }
      assert.deepEqual(writes(plan(desired, cluster.objects, owner, now)), []);
    }),
  );
});

test('no step touches an object that is not ours, and each such object is refused by name', () => {
  fc.assert(
    fc.property(
      desiredLists,
      fc.constantFrom('unlabelled', 'other owner', 'unmanaged'),
      fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }),
      (desired, how, chosen) => {
        const cluster = new Cluster();
        const foreign = desired.filter((_, at) => chosen[at]);
        for (const { object } of foreign) cluster.foreign(object, how as 'unlabelled');
        const steps = plan(desired, cluster.objects, owner, now);
        const touched = new Set(writes(steps).map(({ object }) => keyOf(refOf(object))));
        for (const { object } of foreign) assert.ok(!touched.has(keyOf(refOf(object))));
        const refused = steps.filter((step) => step.action === 'refuse');
        assert.equal(refused.length, foreign.length);
        for (const step of refused) assert.equal(step.code, 'ERR_PLAN_FOREIGN');
      },
    ),
  );
});

test('steps keep the requested order, one for each desired object', () => {
  fc.assert(
    fc.property(desiredLists, (desired) => {
      const steps = plan(desired, new Map(), owner, now);
      assert.equal(steps.length, desired.length);
      const orderOf = new Map(desired.map(({ object, order }) => [object, order]));
      const orders = writes(steps).map(({ object }) => orderOf.get(object) ?? -1);
      assert.deepEqual(
        orders,
        [...orders].sort((a, b) => a - b),
      );
    }),
  );
});

test('every single edit of a field of ours is found and named without its value', () => {
  fc.assert(
    fc.property(
      desiredLists.filter((all) => all.length > 0),
      fc.string({ minLength: 5 }),
      (desired, edit) => {
        const cluster = new Cluster();
        for (const { object } of desired) cluster.write(object);
        for (const { object } of desired) {
          const field = object.kind === 'Secret' ? 'data' : 'spec';
          for (const [name, value] of Object.entries(object[field] as object)) {
            if (typeof value !== 'string') continue;
            const observed = new Map(cluster.objects);
            const key = keyOf(refOf(object));
            const live = observed.get(key) as KubeObject;
            observed.set(key, { ...live, [field]: { ...(live[field] as object), [name]: `edited ${edit}` } });
            const found = writes(plan(desired, observed, owner, now));
            assert.deepEqual(
              found.map(({ changed }) => changed),
              [[`${field}.${name}`]],
            );
          }
        }
      },
    ),
    { numRuns: 50 },
  );
});

test('over any history of leaves, the published one is never replaced by an older leaf while it is valid', () => {
  const keys = Array.from({ length: 3 }, () => PrivateKey.generate());
  const ca = SandboxCa.root({ notBefore: now - 1000 * hour, notAfter: now + 1000 * hour });
  const offers = fc.array(
    fc.record({ startsAt: fc.integer({ min: -20, max: 0 }), life: fc.integer({ min: 1, max: 40 }), key: fc.nat(2) }),
    { minLength: 2, maxLength: 8 },
  );
  fc.assert(
    fc.property(offers, (given) => {
      const cluster = new Cluster();
      let standing: { notBefore: number; notAfter: number } | undefined;
      for (const [step, { startsAt, life, key: chosen }] of given.entries()) {
        const at = now + step * hour;
        const key = keys[chosen] ?? PrivateKey.generate();
        const leaf = ca.issue(key, {
          uris: ['spiffe://td/a'],
          notBefore: at + startsAt * hour,
          notAfter: at + (startsAt + life) * hour,
        });
        if (leaf.notAfter <= at) continue;
        const data = { 'tls.key': key.toPem(), 'tls.crt': formatCertificates([leaf]), 'ca.crt': ca.certificate.pem };
        const object: KubeObject = {
          apiVersion: 'v1',
          kind: 'Secret',
          metadata: { name: 'id', namespace: 'ns', labels: { [OWNER_LABEL]: owner } },
          type: 'kubernetes.io/tls',
          data: Object.fromEntries(
            Object.entries(data).map(([name, pem]) => [name, Buffer.from(pem).toString('base64')]),
          ),
        };
        const steps = writes(plan([{ object, order: 1, leaf }], cluster.objects, owner, at));
        if (steps.length === 0) continue;
        const inEmergency = standing && at >= standing.notBefore + 0.9 * (standing.notAfter - standing.notBefore);
        assert.ok(
          !standing || inEmergency || leaf.notBefore >= standing.notBefore,
          'an older leaf replaced a newer one',
        );
        cluster.write(object);
        standing = leaf;
      }
    }),
    { numRuns: 60 },
  );
});
