import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { mapping } from '../../test/support/onboard-cluster.ts';
import type { KubeObject } from '../objects/objects.ts';
import { backPatch, moved, movedBack, movePatch } from './moves.ts';
import { bare, diffObjects } from './snapshot.ts';

const MOVE = {
  namespace: 'shop',
  labels: { 'meshcert.dev/mesh': 'istio' },
  fields: { service: 'https://web.shop:80', tls: 'istio' },
};

const anyMapping = fc
  .record({
    service: fc.constantFrom('web.shop', 'http://web.shop:80', 'https://web.shop:80', 'web:1'),
    tls: fc.option(fc.constantFrom('istio', 'other'), { nil: undefined }),
    labels: fc.dictionary(fc.constantFrom('meshcert.dev/mesh', 'team'), fc.constantFrom('istio', 'linkerd', 'web'), {
      noNullPrototype: true,
    }),
    annotations: fc.dictionary(fc.constantFrom('a', 'b'), fc.string(), { noNullPrototype: true }),
  })
  .map(({ service, tls, labels, annotations }) =>
    mapping('web', 'shop', { service, ...(tls === undefined ? {} : { tls }) }, { labels, annotations }),
  );

describe('a moved Mapping', () => {
  it('is restored exactly', () => {
    fc.assert(
      fc.property(anyMapping, (before) => {
        assert.deepEqual(bare(movedBack(moved(before, MOVE))), bare(before));
      }),
    );
  });

  it('allows the MeshCertificate of another namespace, and is restored without that', () => {
    const elsewhere = { ...MOVE, namespace: 'emissary' };
    for (const [given, expected] of [
      [undefined, 'emissary'],
      ['edge', 'edge,emissary'],
      ['*', '*'],
    ] as const) {
      const annotations = given === undefined ? {} : { 'meshcert.dev/allow-from': given };
      const before = mapping('web', 'shop', { service: 'web.shop' }, { annotations });
      const once = moved(before, elsewhere);
      assert.equal(once.metadata.annotations?.['meshcert.dev/allow-from'], expected);
      assert.equal(movePatch(once, elsewhere).metadata.annotations?.['meshcert.dev/allow-from'], expected);
      assert.equal(moved(once, elsewhere), once);
      assert.deepEqual(bare(movedBack(once)), bare(before));
    }
  });

  it('is unchanged when it is moved again, and is still restored to its first state', () => {
    fc.assert(
      fc.property(anyMapping, (before) => {
        const once = moved(before, MOVE);
        assert.equal(moved(once, MOVE), once);
        const further = moved(once, { ...MOVE, fields: { ...MOVE.fields, tls: 'istio-two' } });
        assert.deepEqual(bare(movedBack(further)), bare(before));
      }),
    );
  });

  it('is applied by its labels, its note and two fields, and only to the object in the version that was judged', () => {
    const before = mapping('web', 'shop', { service: 'web.shop', prefix: '/x/' }, { uid: 'u', resourceVersion: '7' });
    const patch = movePatch(moved(before, MOVE), MOVE);
    assert.deepEqual(patch.spec, MOVE.fields);
    assert.deepEqual([patch.metadata.uid, patch.metadata.resourceVersion], ['u', '7']);
    assert.deepEqual(Object.keys(patch.metadata.annotations ?? {}), ['meshcert.dev/before']);
  });

  it('is not restored from a note that is not ours', () => {
    const odd = (note: string): KubeObject =>
      mapping('web', 'shop', { service: 'web' }, { annotations: { 'meshcert.dev/before': note } });
    assert.equal(backPatch(mapping('web', 'shop', { service: 'web' })), undefined);
    assert.equal(backPatch(odd('{')), undefined);
    assert.deepEqual(backPatch(odd('[]'))?.spec, undefined);
  });
});

describe('a diff', () => {
  it('shows the changes with the lines around them, and omits the rest', () => {
    const before = mapping('web', 'shop', { service: 'web.shop', timeout_ms: 1, weight: 2, zone: 'a' });
    const after = mapping('web', 'shop', { service: 'web.shop', timeout_ms: 1, weight: 3, zone: 'a' });
    assert.deepEqual(diffObjects(before, after), [
      '    service: web.shop',
      '    timeout_ms: 1',
      '-   weight: 2',
      '+   weight: 3',
      '    zone: a',
    ]);
  });

  it('is empty if the server only added fields of its own', () => {
    const wanted = mapping('web', 'shop', { service: 'web.shop' });
    const live = mapping('web', 'shop', { service: 'web.shop', docs: {} }, { uid: 'u', resourceVersion: '1' });
    assert.deepEqual(diffObjects(live, wanted), []);
  });
});
