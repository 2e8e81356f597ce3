import 'reflect-metadata';
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { describe, test } from 'node:test';
import * as x509 from '@peculiar/x509';
import fc from 'fast-check';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { Certificate, formatCertificates, parseCertificates } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import {
  children,
  context,
  explicit,
  int,
  oid,
  PkiError,
  readOid,
  readTime,
  readTlv,
  time,
} from '../../src/pki/der.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import { decodeNames, encodeNames } from '../../src/pki/names.ts';
import { awkwardNames, dnsNames, spiffeIds } from './names.ts';
import { openssl, withFiles } from './openssl.ts';

const key = PrivateKey.generate();
const ca = SandboxCa.root();
const second = fc.integer({ min: Date.UTC(1970, 0, 1) / 1000, max: Date.UTC(2200, 0, 1) / 1000 }).map((s) => s * 1000);
const names = fc.record({
  uris: fc.array(fc.oneof(spiffeIds, awkwardNames), { maxLength: 3 }),
  dns: fc.array(fc.oneof(dnsNames, awkwardNames), { maxLength: 3 }),
  ips: fc.array(fc.oneof(fc.ipV4(), fc.ipV6()), { maxLength: 3 }),
  emails: fc.array(awkwardNames, { maxLength: 2 }),
});
const canonicalIp = (text: string): string =>
  text.includes(':') ? new URL(`http://[${text}]`).hostname.slice(1, -1) : text;

describe('DER reads back as it was written:', () => {
  test('integers', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 160n }), (value) => {
        const { content } = readTlv(int(value));
        assert.equal(BigInt(`0x${content.toString('hex')}`), value);
        assert.ok((content[0] ?? 0) < 0x80);
      }),
    );
  });

  test('OIDs', () => {
    const arcs = fc.tuple(fc.constantFrom('0', '1'), fc.nat(39)).map((head) => head.join('.'));
    const big = fc.tuple(fc.constant('2'), fc.nat(99_999)).map((head) => head.join('.'));
    fc.assert(
      fc.property(fc.oneof(arcs, big), fc.array(fc.nat(2 ** 31 - 1), { maxLength: 8 }), (head, rest) => {
        const text = [head, ...rest].join('.');
        assert.equal(readOid(readTlv(oid(text))), text);
      }),
    );
  });

  test('times', () => {
    fc.assert(fc.property(second, (ms) => assert.equal(readTime(readTlv(time(ms))), ms)));
  });

  test('nested values of any length', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 6 }), (parts) => {
        const outer = readTlv(explicit(3, ...parts.map((part) => context(1, part))));
        assert.deepEqual(
          children(outer).map(({ content }) => [...content]),
          parts.map((part) => [...part]),
        );
      }),
    );
  });

  test('names', () => {
    fc.assert(
      fc.property(names, (given) => {
        assert.deepEqual(decodeNames(readTlv(encodeNames(given))), { ...given, ips: given.ips.map(canonicalIp) });
      }),
    );
  });
});

test('what we read of a certificate is what two other implementations read of it', () => {
  const options = fc.record({ notBefore: second, notAfter: second, names, bare: fc.boolean() });
  fc.assert(
    fc.property(options, ({ names: wanted, ...rest }) => {
      const ours = ca.issue(key, { ...wanted, ...rest, commonName: 'x' });
      const theirs = new x509.X509Certificate(new Uint8Array(ours.der));
      const node = new X509Certificate(ours.der);
      assert.equal(ours.notBefore, theirs.notBefore.getTime());
      assert.equal(ours.notAfter, theirs.notAfter.getTime());
      assert.equal(ours.notAfter, Date.parse(node.validTo));
      assert.equal(ours.fingerprint, node.fingerprint256.replaceAll(':', '').toLowerCase());
      const san = theirs.getExtension(x509.SubjectAlternativeNameExtension)?.names.items ?? [];
      const named = (type: string) => san.filter((name) => name.type === type).map(({ value }) => value);
      assert.deepEqual(ours.names.uris, named('url'));
      assert.deepEqual(ours.names.dns, named('dns'));
      assert.equal(ours.names.ips.length, named('ip').length);
      const ski = theirs.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
      assert.equal(ours.subjectKeyId, ski);
      assert.equal(ours.authorityKeyId, theirs.getExtension(x509.AuthorityKeyIdentifierExtension)?.keyId);
      assert.deepEqual(ours.extendedKeyUsage, [...(theirs.getExtension(x509.ExtendedKeyUsageExtension)?.usages ?? [])]);
    }),
    { numRuns: 60 },
  );
});

test('what openssl makes is read as openssl prints it', () => {
  fc.assert(
    fc.property(
      spiffeIds,
      dnsNames,
      fc.boolean(),
      fc.constantFrom('rsa:2048', 'P-256', 'P-384'),
      (uri, dns, isCa, kind) => {
        const algorithm = kind.startsWith('rsa') ? [kind] : ['ec', '-pkeyopt', `ec_paramgen_curve:${kind}`];
        const made = withFiles({}, (path) => {
          const { ok, output } = openssl([
            'req',
            '-x509',
            '-newkey',
            ...algorithm,
            '-nodes',
            '-keyout',
            path('key'),
            '-out',
            path('crt'),
            '-subj',
            '/O=Some, "Org"/CN=x',
            '-days',
            '2',
            '-addext',
            `subjectAltName=URI:${uri},DNS:${dns},IP:10.1.2.3`,
            '-addext',
            'extendedKeyUsage=clientAuth',
            '-addext',
            `basicConstraints=critical,CA:${isCa}`,
          ]);
          assert.ok(ok, output);
          const printed = openssl([
            'x509',
            '-in',
            path('crt'),
            '-noout',
            '-serial',
            '-enddate',
            '-fingerprint',
            '-sha256',
          ]);
          return {
            pem: openssl(['x509', '-in', path('crt')]).output,
            key: openssl(['pkey', '-in', path('key')]).output,
            printed: printed.output,
          };
        });
        const [certificate] = parseCertificates(made.pem);
        assert.ok(certificate);
        assert.equal(certificate.pem, made.pem);
        assert.deepEqual(certificate.names, { uris: [uri], dns: [dns], ips: ['10.1.2.3'], emails: [] });
        assert.equal(certificate.isCa, isCa);
        assert.equal(certificate.selfSigned, true);
        assert.ok(made.printed.includes(`serial=${certificate.serial}`));
        assert.ok(made.printed.replaceAll(':', '').toLowerCase().includes(certificate.fingerprint));
        assert.equal(certificate.notAfter, Date.parse(/notAfter=(.*)/.exec(made.printed)?.[1] ?? ''));
        assert.equal(PrivateKey.fromPem(made.key).publicKeyFingerprint, certificate.publicKeyFingerprint);
        assert.deepEqual(
          certificate.keyType,
          kind.startsWith('rsa') ? { type: 'rsa', bits: 2048 } : { type: 'ec', curve: kind },
        );
      },
    ),
    { numRuns: 8 },
  );
});

describe('a path is found where openssl finds one:', () => {
  const now = Date.UTC(2026, 5, 1);
  const hour = 3_600_000;
  const windows = {
    valid: { notBefore: now - hour, notAfter: now + hour },
    over: { notBefore: now - 2 * hour, notAfter: now - hour },
    early: { notBefore: now + hour, notAfter: now + 2 * hour },
  } as const;
  const keyPool = Array.from({ length: 8 }, () => PrivateKey.generate());
  const timing = fc.oneof(
    { weight: 6, arbitrary: fc.constant('valid' as const) },
    fc.constantFrom('over' as const, 'early' as const),
  );

  /** A tree of CAs: each but the first under an earlier one or a root of its own; the leaf under any of them. */
  const trees = fc.record({
    cas: fc.array(
      fc.record({
        parent: fc.option(fc.nat(7), { nil: undefined }),
        timing,
        asRoot: fc.boolean(),
        asLink: fc.boolean(),
      }),
      { minLength: 1, maxLength: 6 },
    ),
    leaf: fc.record({ parent: fc.nat(7), timing }),
  });

  test('over any tree, any selection of it, and any state of its links', () => {
    let found = 0;
    fc.assert(
      fc.property(trees, (tree) => {
        const cas: SandboxCa[] = [];
        for (const [at, one] of tree.cas.entries()) {
          const options = { name: `ca${at}`, ...windows[one.timing], key: keyPool[at] ?? key };
          const parent = one.parent === undefined || at === 0 ? undefined : cas[one.parent % at];
          cas.push(parent ? parent.intermediate(options) : SandboxCa.root(options));
        }
        const issuer = cas[tree.leaf.parent % cas.length] ?? ca;
        const leaf = issuer.issue(key, { uris: ['spiffe://td/a'], ...windows[tree.leaf.timing] });
        const pick = (which: 'asRoot' | 'asLink') =>
          cas.filter((_, at) => tree.cas[at]?.[which]).map(({ certificate }) => certificate);
        const [roots, links] = [pick('asRoot'), pick('asLink')];
        if (roots.length === 0) return assert.equal(findPath(leaf, links, roots, now).ok, false);
        const files = { leaf: leaf.pem, roots: formatCertificates(roots), links: formatCertificates(links) };
        const theirs = withFiles(files, (path) =>
          openssl([
            'verify',
            '-partial_chain',
            '-attime',
            String(now / 1000),
            '-no-CApath',
            '-no-CAstore',
            '-CAfile',
            path('roots'),
            ...(links.length > 0 ? ['-untrusted', path('links')] : []),
            path('leaf'),
          ]),
        );
        const ours = findPath(leaf, links, roots, now);
        assert.equal(ours.ok, theirs.ok, `${JSON.stringify(ours)} against ${theirs.output}`);
        if (ours.ok) found += 1;
      }),
      { numRuns: 150 },
    );
    assert.ok(found > 10, `only ${found} trees had a path: the comparison would prove little`);
  });
});

describe('broken input', () => {
  const chain = [ca.issue(key, { uris: ['spiffe://td/a'] }), ca.certificate];
  const onlyPkiErrors = (run: () => unknown) => {
    try {
      run();
    } catch (error) {
      assert.ok(error instanceof PkiError, String(error));
    }
  };

  test('of flipped bits is refused as such, or read', () => {
    const der = chain[0]?.der ?? Buffer.alloc(0);
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(der.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }), (flips) => {
        const bytes = Buffer.from(der);
        for (const [at, value] of flips) bytes[at] = value;
        onlyPkiErrors(() => Certificate.fromDer(bytes));
      }),
      { numRuns: 500 },
    );
  });

  test('of cut PEM is never half a list', () => {
    const pem = formatCertificates(chain);
    const first = chain[0]?.pem.length ?? 0;
    for (let length = 0; length < pem.length - 1; length++) {
      let count = 0;
      try {
        count = parseCertificates(pem.slice(0, length)).length;
      } catch (error) {
        assert.ok(error instanceof PkiError, String(error));
      }
      // Before the first dashes of the second block nothing shows that one is missing.
      assert.ok(
        count === 0 || (length >= first - 1 && length < first + '-----BEGIN '.length),
        `${count} of a cut at ${length}`,
      );
    }
  });

  test('of random bytes is refused as such', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        onlyPkiErrors(() => Certificate.fromDer(bytes));
        onlyPkiErrors(() => parseCertificates(bytes));
        onlyPkiErrors(() => PrivateKey.fromPem(bytes));
      }),
      { numRuns: 300 },
    );
  });
});
