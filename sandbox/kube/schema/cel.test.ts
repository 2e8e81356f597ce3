import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileRule } from './cel.ts';

const self = {
  name: 'istio',
  istio: { ca: {} },
  at: 0.6,
  jitter: 0.06,
  ids: ['a', 'b'],
  labels: { 'meshcert.dev/owner': 'me' },
};

describe('a validation rule', () => {
  const cases: readonly [string, unknown][] = [
    ['[has(self.istio), has(self.linkerd)].filter(set, set).size() == 1', true],
    ['has(self.istio) != has(self.linkerd)', true],
    ['has(self.istio.ca) && !has(self.istio.sds)', true],
    ['has(self.linkerd.sds)', false],
    ['!has(self.at) || self.at + self.jitter <= 0.9', true],
    ['self.at * 2 - 1 > 0.1 && -self.at < 0', true],
    ["'meshcert.dev/owner' in self.labels", true],
    ["'a' in self.ids && !('c' in self.ids)", true],
    ["self.name.matches('^[a-z]+$') && size(self.name) <= 63", true],
    ["self.name.startsWith('is') && self.name.endsWith('io') && self.name.contains('sti')", true],
    ["self.ids.all(id, id != '') && self.ids.exists(id, id == 'b') && !self.ids.exists_one(id, id == 'c')", true],
    ["self.ids.map(id, id + '!') == ['a!', 'b!']", true],
    ["self.ids[0] == 'a' && self.labels['meshcert.dev/owner'] == \"me\"", true],
    ["has(self.linkerd) ? 'linkerd' : 'istio'", 'istio'],
    ['true || false && false', true],
    ['(true || false) && false', false],
    ["'it\\'s'", "it's"],
  ];
  for (const [rule, value] of cases) {
    it(rule, () => assert.deepEqual(compileRule(rule)({ self }), value));
  }

  it('is refused when it uses unsupported syntax', () => {
    for (const rule of ['self.', 'self.ids.sum()', 'dyn(self)', '1 +', 'a b', '@', "self['a'", '[1, 2']) {
      assert.throws(() => compileRule(rule), SyntaxError, rule);
    }
  });
});
