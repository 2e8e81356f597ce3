import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { builtInShape } from '../objects/shape.ts';
import { jsonPatch, mergePatch, strategicPatch } from './patch.ts';

describe('a patch', () => {
  it('merges by RFC 7396', () => {
    assert.deepEqual(mergePatch({ a: 'b', c: { d: 'e', f: 'g' } }, { a: 'z', c: { f: null } }), {
      a: 'z',
      c: { d: 'e' },
    });
    assert.deepEqual(mergePatch({ a: [1, 2] }, { a: [3], b: { c: null } }), { a: [3], b: {} });
  });

  it('follows RFC 6902', () => {
    const target = { a: { 'x/y': 1 }, list: [1, 2] };
    const operations = [
      { op: 'test', path: '/a/x~1y', value: 1 },
      { op: 'add', path: '/list/1', value: 9 },
      { op: 'add', path: '/list/-', value: 3 },
      { op: 'remove', path: '/list/0' },
      { op: 'replace', path: '/a/x~1y', value: 2 },
      { op: 'copy', from: '/a', path: '/b' },
      { op: 'move', from: '/list', path: '/moved' },
    ];
    assert.deepEqual(jsonPatch(target, operations), { a: { 'x/y': 2 }, b: { 'x/y': 2 }, moved: [9, 2, 3] });
    assert.deepEqual(target.list, [1, 2]);
    assert.throws(() => jsonPatch(target, [{ op: 'test', path: '/list/0', value: 9 }]), { status: 422 });
    assert.throws(() => jsonPatch(target, [{ op: 'remove', path: '/none' }]), { status: 422 });
  });

  it('merges keyed lists item by item when it is strategic', () => {
    const target = {
      spec: {
        containers: [
          { name: 'a', image: '1' },
          { name: 'b', image: '1' },
        ],
      },
    };
    const change = {
      spec: { containers: [{ name: 'a', image: '2' }, { name: 'b', $patch: 'delete' }, { name: 'c' }] },
    };
    assert.deepEqual(strategicPatch(target, change, builtInShape('Pod')), {
      spec: { containers: [{ name: 'a', image: '2' }, { name: 'c' }] },
    });
  });
});
