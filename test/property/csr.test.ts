import 'reflect-metadata';
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { readCsr } from '../../sandbox/tls/csr.ts';
import { createCsr } from '../../src/pki/csr.ts';
import { formatPem } from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { awkwardNames, dnsNames, spiffeIds } from './names.ts';
import { openssl } from './openssl.ts';

const keys = [
  PrivateKey.generate(),
  PrivateKey.fromKeyObject(generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey),
  PrivateKey.fromKeyObject(generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey),
];

const requests = fc.record({
  key: fc.constantFrom(...keys),
  uris: fc.array(fc.oneof(spiffeIds, awkwardNames), { maxLength: 4 }),
  dns: fc.array(fc.oneof(dnsNames, awkwardNames), { maxLength: 12 }),
  commonName: fc.option(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 }), { nil: undefined }),
});

const namesOf = ({ uris, dns, commonName }: { uris: string[]; dns: string[]; commonName: string | undefined }) => ({
  uris,
  dns,
  ...(commonName === undefined ? {} : { commonName }),
});

test('openssl accepts every request, whatever the names', () => {
  fc.assert(
    fc.property(requests, ({ key, ...names }) => {
      const pem = formatPem('CERTIFICATE REQUEST', createCsr(key, namesOf(names)));
      const { ok, output } = openssl(['req', '-verify', '-noout', '-text', '-nameopt', 'utf8'], pem);
      assert.ok(ok, output);
      assert.match(output, /verify OK/);
      const wanted = names.uris.length + names.dns.length > 0;
      const critical = wanted && names.commonName === undefined;
      assert.equal(/Subject Alternative Name: critical/.test(output), critical);
    }),
    { numRuns: 60 },
  );
});

test('two other implementations find the requested names and key', async () => {
  await fc.assert(
    fc.asyncProperty(requests, async ({ key, ...names }) => {
      const der = createCsr(key, namesOf(names));
      const theirs = new x509.Pkcs10CertificateRequest(new Uint8Array(der));
      assert.ok(await theirs.verify());
      const san = [...theirs.extensions].flatMap((one) =>
        one instanceof x509.SubjectAlternativeNameExtension ? one.names.items : [],
      );
      const named = (type: string) => san.filter((name) => name.type === type).map(({ value }) => value);
      assert.deepEqual(named('url'), names.uris);
      assert.deepEqual(named('dns'), names.dns);
      assert.deepEqual(theirs.subjectName.getField('CN'), names.commonName === undefined ? [] : [names.commonName]);
      const ours = readCsr(der);
      assert.deepEqual([...ours.names.uris], names.uris);
      assert.deepEqual([...ours.names.dns], names.dns);
    }),
    { numRuns: 60 },
  );
});
