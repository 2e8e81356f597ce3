import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { KUBERNETES } from '../test/peers/build.ts';
import { capture } from './run.ts';
import { ROOT } from './tree.ts';

const read = (...path: string[]): string => readFileSync(join(ROOT, ...path), 'utf8');
const versionIn = (ours: string, module: string): string => {
  const [, version = ''] = read('test/peers/go', ours, 'go.mod').match(`\t${module} (v\\S+)`) ?? [];
  return version;
};

describe('the newest row of peers', () => {
  it('is newer than the pinned one, and docs/support.md says what passed', () => {
    const support = read('docs/support.md');
    for (const [ours, module] of [
      ['kubernetes', 'k8s.io/kubernetes'],
      ['istio', 'istio.io/istio'],
      ['consul', 'github.com/hashicorp/consul'],
    ] as const) {
      const newest = versionIn(`${ours}-newest`, module);
      assert.ok(newest > versionIn(ours, module), module);
      assert.ok(support.includes(newest), `docs/support.md does not name ${module} ${newest}`);
    }
  });

  it('builds Kubernetes under the version of its module', () => {
    for (const [row, ours] of [
      ['pinned', 'kubernetes'],
      ['newest', 'kubernetes-newest'],
    ] as const) {
      assert.equal(`v${KUBERNETES[row]}`, versionIn(ours, 'k8s.io/kubernetes'));
    }
  });

  it('is asked for with the real peers alone', async () => {
    const { code, output } = await capture(process.execPath, ['--import', 'tsx', 'scripts/test.ts', '--newest']);
    assert.equal(code, 2);
    assert.match(output, /--newest belongs to npm run test:peers/);
  });
});
