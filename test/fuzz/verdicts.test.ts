import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cliRefusal } from '../support/openssl-cli.ts';
import { makeCase } from './cases.ts';
import { opinionOn } from './ours.ts';

/** One run of a command each; test/peers/fuzz.test.ts asks three judges about 20,000. */
const SAMPLE = 150;

const opinion = (seed: number, ...labels: string[]) => {
  const now = Date.now();
  return opinionOn(makeCase(seed, now, labels), now);
};

test('a good pair is accepted, whatever its depth and the form of its names', async () => {
  for (let seed = 0; seed < 12; seed++) assert.deepEqual(await opinion(seed), { ok: true, checked: true });
});

/** What Go cannot read, or Envoy does not load or accept, with everything else valid. */
const REFUSED: readonly (readonly [code: string, ...labels: string[]])[] = [
  ['ERR_VERIFY_VERSION', 'unique ids in version 1 @root'],
  ['ERR_VERIFY_VERSION', 'version 1 @intermediate'],
  ['ERR_VERIFY_LOADING', 'a signature with unused bits @root'],
  ['ERR_VERIFY_LOADING', 'subject with an empty RDN @root'],
  ['ERR_VERIFY_KEY_TYPE', 'key p521 @leaf'],
  ['ERR_VERIFY_MALFORMED', 'extension a policy twice @leaf'],
  ['ERR_VERIFY_MALFORMED', 'critical TRUE as 0x01 @intermediate'],
  // The path uses the other certificate of the intermediate; Go reads this one too.
  [
    'ERR_VERIFY_MALFORMED',
    'a twin of the intermediate, newer, after it',
    'extension key usage with a tail @intermediate',
  ],
  // The path ends below them; OpenSSL sends them, and Go reads them.
  ['ERR_VERIFY_MALFORMED', 'the leaf is the only root', 'authority key id critical @intermediate'],
  ['ERR_VERIFY_MALFORMED', 'the leaf is the only root', 'critical extension authority information @intermediate'],
  ['ERR_VERIFY_MALFORMED', 'the leaf is the only root', 'key rsa1024 @intermediate'],
  ['ERR_VERIFY_NAME_CONSTRAINTS', 'excluded email host @intermediate', 'and DNS "web.td.example." @leaf'],
  ['ERR_VERIFY_NAME_CONSTRAINTS', 'excluded IP 10/8 @root', 'URI "urn:uuid:1" @intermediate'],
];

for (const [code, ...labels] of REFUSED) {
  test(`refused with ${code}: ${labels.join(' + ')}`, async () => {
    assert.equal((await opinion(1, ...labels)).code, code);
  });
}

test('the openssl command accepts each of a sample of pairs that we accept', async () => {
  let accepted = 0;
  for (let seed = 1; seed <= SAMPLE; seed++) {
    const one = makeCase(seed, Date.now());
    if (!(await opinionOn(one, Date.now())).ok) continue;
    accepted += 1;
    assert.equal(cliRefusal(one, Date.now()), undefined, `seed ${seed}: ${one.labels.join(' + ')}`);
  }
  assert.ok(accepted > SAMPLE / 10, `${accepted} of ${SAMPLE} were accepted`);
});
