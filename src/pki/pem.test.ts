import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { formatPem, PEM_LIMITS, parsePem } from './der.ts';

const block = (text = 'hello', label = 'CERTIFICATE') => formatPem(label, Buffer.from(text));
const texts = (pem: string | Uint8Array) => parsePem(pem).map(({ der }) => der.toString());

describe('PEM input that real tools write is read', () => {
  test('text between blocks, as `openssl x509 -text` prints it', () => {
    assert.deepEqual(texts(`Certificate:\n  Data: CN = x\n${block('a')}subject=/CN=b\n\n${block('b')}bye`), ['a', 'b']);
  });

  test('CRLF line ends', () => {
    assert.deepEqual(texts((block('a') + block('b')).replaceAll('\n', '\r\n')), ['a', 'b']);
  });

  test('no newline between two blocks and none at the end (linkerd2 issue 3880)', () => {
    assert.deepEqual(texts(block('a').trimEnd() + block('b').trimEnd()), ['a', 'b']);
  });

  test('indentation from a YAML block, one long line, a byte order mark', () => {
    assert.deepEqual(texts(`\ufeff${block('a').replaceAll('\n', '\n    ')}`), ['a']);
    const long = 'x'.repeat(200);
    assert.deepEqual(texts(`-----BEGIN X-----${Buffer.from(long).toString('base64')}-----END X-----`), [long]);
  });

  test('bytes as well as text', () => {
    assert.deepEqual(texts(Buffer.from(block('a'))), ['a']);
    assert.deepEqual(texts(new Uint8Array(Buffer.from(block('a')))), ['a']);
  });

  test('every label is accepted', () => {
    assert.deepEqual(
      parsePem(block('a', 'EC PARAMETERS') + block('b', 'EC PRIVATE KEY')).map(({ label }) => label),
      ['EC PARAMETERS', 'EC PRIVATE KEY'],
    );
  });
});

describe('hostile PEM input is refused', () => {
  const refused: [string, string, string][] = [
    ['without any block', 'hello', 'ERR_PEM_EMPTY'],
    ['that is empty', '', 'ERR_PEM_EMPTY'],
    ['without an end', block().slice(0, -10), 'ERR_PEM_SYNTAX'],
    ['that stops within the base64', block('x'.repeat(100)).slice(0, 60), 'ERR_PEM_SYNTAX'],
    ['with base64 that lost its last characters', '-----BEGIN X-----\nAAAAA\n-----END X-----', 'ERR_PEM_SYNTAX'],
    ['with characters that are not base64', '-----BEGIN X-----\nAA*A\n-----END X-----', 'ERR_PEM_SYNTAX'],
    ['with padding in the middle', '-----BEGIN X-----\nAA==AAAA\n-----END X-----', 'ERR_PEM_SYNTAX'],
    ['with an empty body', '-----BEGIN X-----\n-----END X-----', 'ERR_PEM_SYNTAX'],
    ['that ends with another label', block().replace('END CERTIFICATE', 'END KEY'), 'ERR_PEM_SYNTAX'],
    ['with a block inside a block', `-----BEGIN X-----\n${block()}-----END X-----`, 'ERR_PEM_SYNTAX'],
    ['with an end that nothing began', `-----END X-----\n${block()}`, 'ERR_PEM_SYNTAX'],
    ['with an end after all blocks', `${block()}-----END X-----\n`, 'ERR_PEM_SYNTAX'],
    [
      'with headers of an encrypted key',
      '-----BEGIN K-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END K-----',
      'ERR_PEM_SYNTAX',
    ],
    ['with a label without end', `-----BEGIN ${'A'.repeat(100)}`, 'ERR_PEM_SYNTAX'],
    ['with a label of other characters', '-----BEGIN a\nb-----\nAAAA\n-----END a\nb-----', 'ERR_PEM_SYNTAX'],
  ];
  for (const [name, input, code] of refused) {
    test(name, () => assert.throws(() => parsePem(input), { name: 'PkiError', code }));
  }

  test('that is too large', () => {
    assert.throws(() => parsePem(' '.repeat(PEM_LIMITS.bytes + 1)), { code: 'ERR_PEM_TOO_LARGE' });
    assert.throws(() => parsePem(block(), { bytes: 10, blocks: 1 }), { code: 'ERR_PEM_TOO_LARGE' });
  });

  test('with too many blocks, before the excess is decoded', () => {
    const pem = block('a').repeat(PEM_LIMITS.blocks);
    assert.equal(parsePem(pem).length, PEM_LIMITS.blocks);
    assert.throws(() => parsePem(`${pem}-----BEGIN X-----garbage`), { code: 'ERR_PEM_TOO_MANY' });
  });

  test('and the message quotes nothing of it', () => {
    const secret = 'c2VjcmV0LXNlY3JldC1zZWNyZXQ';
    assert.throws(
      () => parsePem(`-----BEGIN PRIVATE KEY-----\n${secret}\n-----END PRIVATE KEY-----`),
      (error: Error) => !error.message.includes(secret) && !String(error.stack).includes(secret),
    );
  });
});
