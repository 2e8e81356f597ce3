import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatPem, PkiError, parsePem } from '../../src/pki/der.ts';
import { openssl } from './openssl.ts';

const labels = fc.constantFrom('CERTIFICATE', 'PRIVATE KEY', 'EC PRIVATE KEY', 'EC PARAMETERS', 'X509 CRL');
const blocks = fc.array(fc.record({ label: labels, bytes: fc.uint8Array({ minLength: 1, maxLength: 400 }) }), {
  minLength: 1,
  maxLength: 8,
});
const junk = fc
  .array(fc.constantFrom('subject=CN = x', 'i:O=y', '', '  ', '# comment', '\t', '----', 'BEGIN', '\0', 'ü'), {
    maxLength: 4,
  })
  .map((lines) => lines.map((line) => `${line}\n`).join(''));

test('what is formatted reads back, with junk between, other line ends and missing ones', () => {
  fc.assert(
    fc.property(blocks, junk, fc.constantFrom('\n', '\r\n'), fc.boolean(), (given, noise, newline, glued) => {
      const pem = given.map(({ label, bytes }) => formatPem(label, bytes));
      const text = glued ? pem.map((one) => one.trimEnd()).join('') : noise + pem.join(noise) + noise;
      const read = parsePem(text.replaceAll('\n', newline));
      assert.deepEqual(
        read.map(({ label, der }) => [label, [...der]]),
        given.map(({ label, bytes }) => [label, [...bytes]]),
      );
    }),
  );
});

test('no input makes it throw anything but its own error', () => {
  const parts = fc.constantFrom(
    '-----',
    '-----BEGIN ',
    '-----END ',
    'CERTIFICATE',
    'X',
    'AAAA',
    'A',
    '=',
    '\n',
    ':',
    '\r',
    '*',
    ' ',
  );
  fc.assert(
    fc.property(fc.array(parts, { maxLength: 40 }), (pieces) => {
      try {
        for (const { label, der } of parsePem(pieces.join(''))) assert.ok(label.length > 0 && der.length > 0);
      } catch (error) {
        assert.ok(error instanceof PkiError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('lines are those that openssl writes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 500 }), (bytes) => {
      const { output } = openssl(['base64', '-e'], Buffer.from(bytes));
      assert.equal(formatPem('X', bytes), `-----BEGIN X-----\n${output}-----END X-----\n`);
    }),
    { numRuns: 20 },
  );
});

test('the effort grows with the input and not with its square', () => {
  // A quadratic reader needs minutes for these.
  const limits = { bytes: 2 ** 26, blocks: 2 ** 20 };
  const many = '-----BEGIN X-----\nAAAA\n-----END X-----\n'.repeat(100_000);
  assert.equal(parsePem(many, limits).length, 100_000);
  for (const hostile of ['-----BEGIN '.repeat(500_000), '-----END '.repeat(500_000), '-'.repeat(5_000_000)]) {
    assert.throws(() => parsePem(hostile, limits), PkiError);
  }
});
