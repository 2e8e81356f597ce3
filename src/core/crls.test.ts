import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { extension } from '../../sandbox/tls/x509.ts';
import { Crl } from '../pki/crl.ts';
import * as der from '../pki/der.ts';
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

describe('a CRL that a gateway could not use is refused with its reason', () => {
  const [yes, no] = [der.bool(true), der.bool(false)];
  const point = der.explicit(0, der.explicit(0, der.context(6, Buffer.from('http://ca/crl'))));
  const scope = (...parts: readonly Buffer[]) => [extension('2.5.29.28', der.seq(...parts), true)];
  const only = (n: number) => scope(der.context(n, Buffer.of(0xff)));
  const leaf = root.identity({ uris: ['spiffe://a/b'] }).chain;
  const entry = (...entryExtensions: readonly Buffer[]) => ({ revoked: leaf, entryExtensions });

  const refused: readonly (readonly [why: RegExp, options: Parameters<SandboxCa['crl']>[0]])[] = [
    [/delta CRL/, { more: [extension('2.5.29.27', der.int(1), true)] }],
    [/delta CRL/, { more: [extension('2.5.29.27', der.int(1))] }],
    [/extension 1\.2\.3\.4, which is critical/, { more: [extension('1.2.3.4', der.nullValue(), true)] }],
    [/part of the certificates/, { more: scope(point) }],
    [/part of the certificates/, { more: only(1) }],
    [/part of the certificates/, { more: only(2) }],
    [/part of the certificates/, { more: scope(der.context(3, Buffer.of(0x01, 0x80))) }],
    [/part of the certificates/, { more: only(4) }],
    [/part of the certificates/, { more: only(5) }],
    [/part of the certificates/, { more: [extension('2.5.29.28', der.seq(), false)] }],
    [/extension 2\.5\.29\.20 is duplicated/, { more: [extension('2.5.29.20', der.int(7))] }],
    [/entry.*2\.5\.29\.29/, entry(extension('2.5.29.29', der.seq(), true))],
    [/entry.*1\.2\.3\.4/, entry(extension('1.2.3.4', der.nullValue(), true))],
    [/entry.*reason/, entry(extension('2.5.29.21', der.seq(yes, no)))],
    [/entry.*delta/, entry(extension('2.5.29.21', der.tlv(0x0a, Buffer.of(8))))],
  ];
  for (const [why, options] of refused) {
    test(String(why), () => {
      const choice = choose([crlOf(intermediate), crlOf(root, options)]);
      assert.equal(!choice.ok && choice.problem.code, 'ERR_CRL_REFUSED');
      assert.match(choice.ok ? '' : choice.problem.message, why);
    });
  }

  test('an entry may have a reason, and an extension that is not critical', () => {
    const good = entry(extension('2.5.29.21', der.tlv(0x0a, Buffer.of(1))), extension('1.2.3.4', der.nullValue()));
    assert.ok(choose([crlOf(intermediate), crlOf(root, good)]).ok);
  });

  test('a newer delta CRL does not take the place of its base, and is reported', () => {
    const base = crlOf(root, { thisUpdate: NOW - HOUR });
    const delta = crlOf(root, { more: [extension('2.5.29.27', der.int(1), true)] });
    const own = crlOf(intermediate);
    const choice = choose([delta, own, base]);
    assert.deepEqual(choice.ok && choice.crls, [own, base]);
    assert.match((choice.ok && choice.problem?.message) || '', /delta CRL/);
    const older = choose([own, crlOf(root), crlOf(root, { thisUpdate: NOW - HOUR, more: only(1) })]);
    assert.equal(older.ok && older.problem, undefined);
  });

  test('one of another CA with the same name', () => {
    const choice = choose([crlOf(intermediate), crlOf(SandboxCa.root({ name: 'Root' }))]);
    assert.equal(!choice.ok && choice.problem.code, 'ERR_CRL_REFUSED');
    assert.match(choice.ok ? '' : choice.problem.message, /another key/);
  });

  test('one of a CA that may not sign CRLs', () => {
    const ca = SandboxCa.root({ name: 'Root', profile: { keyUsage: ['keyCertSign'] } });
    const choice = chooseCrls([crlOf(ca)], [ca.certificate], NOW);
    assert.match(choice.ok ? '' : choice.problem.message, /cRLSign/);
  });

  test('a trust anchor whose issuer is not in the bundle', () => {
    const choice = chooseCrls([crlOf(intermediate), crlOf(root)], [intermediate.certificate], NOW);
    assert.match(choice.ok ? '' : choice.problem.message, /not self-signed/);
  });

  test('two CAs of one name each use their own CRL', () => {
    const twin = SandboxCa.root({ name: 'Root' });
    const [a, b] = [crlOf(root), crlOf(twin)];
    const choice = chooseCrls([a, b], [root.certificate, twin.certificate], NOW);
    assert.deepEqual(choice.ok && choice.crls, [a, b]);
  });

  test('CRLs that are larger together than a Secret', () => {
    const large = crlOf(root, { more: [extension('1.2.3.4', Buffer.alloc(700_000))] });
    const choice = choose([crlOf(intermediate), large]);
    assert.match(choice.ok ? '' : choice.problem.message, /bytes/);
  });
});
