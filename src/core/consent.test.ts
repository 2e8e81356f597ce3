import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONSENT_ANNOTATION, consents, withConsent } from './consent.ts';

const object = (namespace: string, annotation?: string) => ({
  apiVersion: 'v1',
  kind: 'ServiceAccount',
  metadata: {
    name: 'gateway',
    namespace,
    ...(annotation === undefined ? {} : { annotations: { [CONSENT_ANNOTATION]: annotation } }),
  },
});

const given: [annotation: string | undefined, consents: boolean][] = [
  [undefined, false],
  ['', false],
  ['emissary', true],
  ['shop, emissary', true],
  ['*', true],
  ['emissary-2', false],
  ['emiss*', false],
  ['EMISSARY', false],
];
for (const [annotation, expected] of given) {
  test(`${annotation ?? 'no annotation'} ${expected ? 'lets' : 'does not let'} namespace emissary in`, () => {
    assert.equal(consents(object('shop', annotation), 'emissary'), expected);
  });
}

test('an object of the same namespace needs no annotation', () => {
  assert.equal(consents(object('emissary'), 'emissary'), true);
});

test('consent is added once to the existing annotation', () => {
  assert.equal(withConsent(undefined, 'emissary'), 'emissary');
  assert.equal(withConsent('shop', 'emissary'), 'shop,emissary');
  for (const there of ['emissary', 'shop,emissary', '*']) assert.equal(withConsent(there, 'emissary'), there);
});
