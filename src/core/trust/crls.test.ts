import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Crl } from '../../pki/crl.ts';
import { SandboxCa } from '../../sandbox/ca.ts';
import { chooseCrls } from './crls.ts';

const NOW = Date.now();
const HOUR = 3_600_000;
const root = SandboxCa.root({ name: 'Root' });
const intermediate = root.intermediate({ name: 'Intermediate' });
const authorities = [intermediate.certificate, root.certificate];
const crlOf = (ca: SandboxCa, options: Parameters<SandboxCa['crl']>[0] = {}) => Crl.fromDer(ca.crl(options));
const choose = (crls: readonly Crl[], now = NOW) => chooseCrls(crls, authorities, now);

test('a set has one current CRL of each authority, the newest of several', () => {
  const old = crlOf(root, { thisUpdate: NOW - 2 * HOUR });
  const young = crlOf(root, { thisUpdate: NOW - HOUR });
  const other = crlOf(SandboxCa.root({ name: 'Foreign' }));
  const own = crlOf(intermediate);
  const choice = choose([other, old, young, own]);
  assert.deepEqual(choice.ok && choice.crls, [own, young]);
});

test('a set that covers only the intermediate is no set', () => {
  const choice = choose([crlOf(intermediate)]);
  assert.ok(!choice.ok);
  assert.equal(choice.problem.code, 'ERR_CRL_MISSING');
  assert.match(choice.problem.message, /no CRL of "CN=Root".*refuse every upstream/);
});

test('a set leaves a minute before the first of its CRLs expires', () => {
  const ends = NOW + 10 * 60_000;
  const crls = [crlOf(intermediate), crlOf(root, { nextUpdate: ends })];
  const choice = choose(crls);
  const until = choice.ok ? (choice.until ?? 0) : 0;
  assert.ok(until > 0 && until <= ends - 60_000);
  const later = choose(crls, until);
  assert.equal(!later.ok && later.problem.code, 'ERR_CRL_EXPIRED');
});

test('a CRL of tomorrow is looked at again tomorrow', () => {
  const tomorrow = Math.floor((NOW + 24 * HOUR) / 1000) * 1000;
  const choice = choose([crlOf(intermediate), crlOf(root, { thisUpdate: tomorrow, nextUpdate: tomorrow + HOUR })]);
  assert.equal(!choice.ok && choice.again, tomorrow);
});
