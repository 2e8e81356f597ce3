import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { JsonFields } from '../objects/object.ts';
import { builtInShape, schemaShape } from '../objects/shape.ts';
import { claimedBy, compare, fromFieldsV1, printPath, toFieldsV1 } from './field-set.ts';

const pod = builtInShape('Pod');

describe('a set of fields', () => {
  it('is written as fieldsV1 and read back', () => {
    const config = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'a', labels: { app: 'x' }, finalizers: ['meshcert.dev/f'] },
      spec: { containers: [{ name: 'c', image: 'i', ports: [{ containerPort: 80, protocol: 'TCP' }] }], hosts: [] },
    };
    const set = claimedBy(config, pod);
    const fields = toFieldsV1(set);
    assert.deepEqual(fields, {
      'f:metadata': { 'f:labels': { 'f:app': {} }, 'f:finalizers': { 'v:"meshcert.dev/f"': {} } },
      'f:spec': {
        'f:hosts': {},
        'f:containers': {
          'k:{"name":"c"}': {
            '.': {},
            'f:image': {},
            'f:name': {},
            'f:ports': {
              'k:{"containerPort":80,"protocol":"TCP"}': { '.': {}, 'f:containerPort': {}, 'f:protocol': {} },
            },
          },
        },
      },
    });
    assert.deepEqual(fromFieldsV1(fields), set);
  });

  it('survives being written and read, whatever the names are', () => {
    const name = fc.stringMatching(/^[a-z./-]{1,8}$/);
    const tree = fc.letrec<{ node: JsonFields }>((tie) => ({
      node: fc.dictionary(name, fc.oneof({ maxDepth: 3 }, fc.string(), fc.integer(), tie('node')), { maxKeys: 4 }),
    })).node;
    fc.assert(
      fc.property(tree, (data) => {
        const set = claimedBy({ data }, schemaShape({ properties: { data: {} } }));
        assert.deepEqual(fromFieldsV1(toFieldsV1(set)), set);
      }),
    );
  });

  it('prints paths in the format of conflicts', () => {
    const printed = [...claimedBy({ spec: { containers: [{ name: 'c', image: 'i' }] } }, pod)].map(printPath).sort();
    assert.deepEqual(printed, [
      '.spec.containers[name="c"]',
      '.spec.containers[name="c"].image',
      '.spec.containers[name="c"].name',
    ]);
  });

  it('shows what was changed and removed', () => {
    const before = { data: { same: '1', other: '1', gone: '1' } };
    const after = { data: { same: '1', other: '2', fresh: '1' } };
    const { changed, removed } = compare(before, after, builtInShape('ConfigMap'));
    assert.deepEqual([...changed].map(printPath), ['.data.other', '.data.fresh']);
    assert.deepEqual([...removed].map(printPath), ['.data.gone']);
  });
});
