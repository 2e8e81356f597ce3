import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as der from './der.ts';

const hex = (bytes: Buffer) => bytes.toString('hex');

test('lengths over 127 use the long form', () => {
  assert.equal(hex(der.octetString(Buffer.alloc(127)).subarray(0, 2)), '047f');
  assert.equal(hex(der.octetString(Buffer.alloc(128)).subarray(0, 3)), '048180');
  assert.equal(hex(der.octetString(Buffer.alloc(65_536)).subarray(0, 5)), '0483010000');
});

test('integers are never negative and never padded', () => {
  assert.equal(hex(der.int(0)), '020100');
  assert.equal(hex(der.int(127)), '02017f');
  assert.equal(hex(der.int(128)), '02020080');
  assert.equal(hex(der.int(Buffer.from([0, 0, 0xff]))), '020200ff');
  assert.equal(hex(der.int(2n ** 64n)), '0209010000000000000000');
});

test('an OID reads back as it was written', () => {
  for (const oid of ['2.5.29.17', '1.2.840.113549.1.9.14', '0.9.2342.19200300.100.1.25', '2.999.1', '1.3.6.1.4.1']) {
    assert.equal(der.readOid(der.readTlv(der.oid(oid))), oid);
  }
});

test('an OID that is cut short or padded is refused', () => {
  for (const bytes of ['0600', '06022a86', '06042a800103', '06020a80', '0401aa']) {
    assert.throws(() => der.readOid(der.readTlv(Buffer.from(bytes, 'hex'))), { code: 'ERR_DER_SYNTAX' }, bytes);
  }
});

test('a set is sorted by its encoding', () => {
  assert.equal(hex(der.set(der.int(3), der.bool(true), der.int(1))), '31090101ff020101020103');
});

test('a time changes its form in 2050 and reads back in whole seconds', () => {
  for (const [text, tag] of [
    ['2026-02-28T23:59:59Z', der.TAG.utcTime],
    ['1999-12-31T00:00:00Z', der.TAG.utcTime],
    ['2049-12-31T23:59:59Z', der.TAG.utcTime],
    ['2050-01-01T00:00:00Z', der.TAG.generalizedTime],
    ['9999-12-31T23:59:59Z', der.TAG.generalizedTime],
  ] as const) {
    const value = der.readTlv(der.time(Date.parse(text) + 999));
    assert.equal(value.tag, tag, text);
    assert.equal(der.readTime(value), Date.parse(text));
  }
});

test('a time that is local, short or not in the calendar is refused', () => {
  for (const text of [
    '260101000000+0100',
    '2601010000Z',
    '261301000000Z',
    '260230000000Z',
    '260101240000Z',
    '260101000000',
    'not a time Z',
  ]) {
    const value = der.readTlv(der.tlv(der.TAG.utcTime, Buffer.from(text)));
    assert.throws(() => der.readTime(value), { code: 'ERR_DER_SYNTAX' }, text);
  }
});

test('truncated, indefinite-length and oddly tagged input is refused', () => {
  for (const bytes of [
    '',
    '30',
    '3005',
    '300501',
    '3080000',
    '30850000000001',
    '1f810100',
    '308201',
    '04810100',
    '0482008000',
  ]) {
    assert.throws(() => der.readTlv(Buffer.from(bytes, 'hex')), { code: 'ERR_DER_SYNTAX' }, bytes);
  }
});
