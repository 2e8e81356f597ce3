import assert from 'node:assert/strict';
import { test } from 'node:test';
import { arrivalByCerts, arrivalByDiagnostics } from './arrival.ts';
import { secretFileName } from './secret-file.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');
const pair = (text: string) => ({ 'tls.crt': base64(`certificate ${text}`), 'tls.key': base64(`key ${text}`) });
const roots = (text: string) => ({ 'tls.crt': base64(`roots ${text}`), 'ca.crt': base64(`roots ${text}`) });
const mesh = { name: 'mesh', namespace: 'emissary' };

function diagnosticsOf(identity: Record<string, string>, ca: Record<string, string>) {
  const path = (data: Record<string, string>, extension: string) =>
    `/tmp/ambassador/snapshots/emissary/secrets-decoded/x/${secretFileName(data)}.${extension}`;
  const secret_info = {
    cert_chain_file: path(identity, 'crt'),
    private_key_file: path(identity, 'key'),
    cacert_chain_file: path(ca, 'crt'),
  };
  return { errors: [], tlscontexts: [{ name: 'other' }, { ...mesh, secret_info }] };
}

test('a publication is live when pair and roots are those in use, and stale when either is not', () => {
  const published = { identity: pair('2'), ca: roots('2') };
  assert.equal(arrivalByDiagnostics(diagnosticsOf(pair('2'), roots('2')), mesh, published), 'live');
  assert.equal(arrivalByDiagnostics(diagnosticsOf(pair('1'), roots('2')), mesh, published), 'stale');
  assert.equal(arrivalByDiagnostics(diagnosticsOf(pair('2'), roots('1')), mesh, published), 'stale');
});

test('a context that the gateway does not have, or could not use, is absent', () => {
  const published = { identity: pair('1'), ca: roots('1') };
  assert.equal(arrivalByDiagnostics({ tlscontexts: [] }, mesh, published), 'absent');
  assert.equal(arrivalByDiagnostics({ tlscontexts: [{ ...mesh, secret_info: {} }] }, mesh, published), 'absent');
});

test('an answer of another form says nothing', () => {
  assert.equal(arrivalByDiagnostics('<html>', mesh, { identity: {}, ca: {} }), undefined);
  assert.equal(arrivalByCerts({ error: 'no' }, '01'), undefined);
});

test('serials are compared as numbers, whatever their case and leading zeros', () => {
  const certs = { certificates: [{ cert_chain: [{ serial_number: '0a1b' }] }, { ca_cert: [] }] };
  assert.equal(arrivalByCerts(certs, 'A1B'), 'live');
  assert.equal(arrivalByCerts(certs, 'FF'), 'stale');
  assert.equal(arrivalByCerts({ certificates: [{ ca_cert: [] }] }, 'FF'), 'absent');
});

test('the file name is the SHA-1 of certificate, key and user key, in upper case', () => {
  assert.equal(
    secretFileName({ 'tls.crt': base64('a'), 'tls.key': base64('b'), 'user.key': base64('c') }),
    'A9993E364706816ABA3E25717850C26C9CD0D89D',
  );
  assert.equal(
    secretFileName({ 'cert-chain.pem': base64('a'), 'key.pem': base64('bc') }),
    'A9993E364706816ABA3E25717850C26C9CD0D89D',
  );
});
