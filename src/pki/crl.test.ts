import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { Crl, formatCrls, parseCrls } from './crl.ts';

describe('a CRL', () => {
  const root = SandboxCa.root({ name: 'Root' });
  const intermediate = root.intermediate({ name: 'Intermediate' });

  it('says what OpenSSL reads in it', () => {
    const leaf = intermediate.identity({ uris: ['spiffe://a/b'] });
    const der = intermediate.crl({ revoked: [leaf.chain[0] ?? assert.fail()] });
    const crl = Crl.fromDer(der);
    const text = execFileSync(
      'openssl',
      ['crl', '-inform', 'DER', '-noout', '-issuer', '-lastupdate', '-nextupdate', '-text'],
      {
        input: der,
        encoding: 'utf8',
      },
    );
    const field = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(text)?.[1] ?? '';
    assert.match(field('issuer'), /CN ?= ?Intermediate/);
    assert.equal(crl.thisUpdate, Date.parse(field('lastUpdate')));
    assert.equal(crl.nextUpdate, Date.parse(field('nextUpdate')));
    assert.match(text, new RegExp(`Serial Number: ${leaf.chain[0]?.serial}`));
    assert.ok(crl.isNamedAfter(intermediate.certificate));
    assert.ok(!crl.isNamedAfter(root.certificate));
  });

  it('is read from the PEM that OpenSSL writes, beside others and without duplicates', () => {
    const dir = mkdtempSync(join(tmpdir(), 'meshcert-crl-'));
    try {
      writeFileSync(join(dir, 'a'), root.crl());
      const pem = execFileSync('openssl', ['crl', '-inform', 'DER', '-in', join(dir, 'a')], { encoding: 'utf8' });
      const other = Crl.fromDer(intermediate.crl());
      const read = parseCrls(`${pem}${root.certificate.pem}${other.pem}${pem}`);
      assert.equal(formatCrls(read), `${pem}${other.pem}`);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('is current between its two times', () => {
    const crl = Crl.fromDer(root.crl({ thisUpdate: 1_000_000, nextUpdate: 2_000_000 }));
    assert.deepEqual(
      [999_999, 1_000_000, 1_999_999, 2_000_000].map((now) => crl.isCurrent(now)),
      [false, true, true, false],
    );
  });

  it('is refused when it is cut short, or followed by more', () => {
    const der = root.crl();
    assert.throws(() => Crl.fromDer(der.subarray(0, -1)), { code: 'ERR_DER_SYNTAX' });
    assert.throws(() => Crl.fromDer(Buffer.concat([der, Buffer.alloc(1)])), { code: 'ERR_DER_SYNTAX' });
    assert.throws(() => Crl.fromDer(Buffer.from('3000', 'hex')), { code: 'ERR_DER_SYNTAX' });
  });
});

it('a text without CRLs has none', () => {
  assert.deepEqual(parseCrls(''), []);
  assert.deepEqual(parseCrls(SandboxCa.root().certificate.pem), []);
});
