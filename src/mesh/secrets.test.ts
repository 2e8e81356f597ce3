import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { localCause, MeshError } from './error.ts';
import { acceptToken } from './input.ts';
import { holdSecret, printable, redactText, safeMessage } from './secrets.ts';

const secret = (): string => randomBytes(18).toString('hex');

test('a live value is redacted wherever it appears: plain, in base64 and in a URL', () => {
  const value = `s.${secret()}/+ü`;
  holdSecret(value);
  for (const form of [value, Buffer.from(value).toString('base64'), encodeURIComponent(value)]) {
    for (const text of [form, `${form}, and`, `of ${form}`, `"${form}"`, `${form}${form}`]) {
      assert.ok(!redactText(text).includes(form.slice(0, 12)), text);
      assert.match(redactText(text), /\[redacted\]/);
    }
  }
});

test('text around a live value stays as it was', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom('a', 'b', ' ', '[', '.'), maxLength: 40 }),
      fc.string({ unit: fc.constantFrom('a', 'b', ' ', ']', '.'), maxLength: 40 }),
      fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 20, maxLength: 40 }),
      (before, after, letters) => {
        const value = `${secret()}${letters}`;
        holdSecret(value);
        assert.equal(redactText(`${before}${value}${after}`), `${before}[redacted]${after}`);
      },
    ),
  );
});

test('of two live values with the same ending the longer one is redacted', () => {
  const value = secret();
  holdSecret(value);
  holdSecret(`long-${value}`);
  assert.equal(redactText(`x long-${value} y ${value} z`), 'x [redacted] y [redacted] z');
});

test('a value is forgotten when its life is over', () => {
  const value = secret();
  holdSecret(value, -1);
  assert.equal(redactText(value), value);
});

test('nine thousand live values are still found', () => {
  const values = Array.from({ length: 9_000 }, () => `eyJhbGciOiJSUzI1NiJ9-${secret()}`);
  for (const value of values) holdSecret(value);
  for (const value of values) assert.equal(redactText(`t ${value}`), 't [redacted]');
});

test('a key is redacted in the form in which a Secret stores it', () => {
  const pem = `-----BEGIN PRIVATE KEY-----\n${randomBytes(96).toString('base64')}\n-----END PRIVATE KEY-----\n`;
  assert.equal(redactText(`field "${Buffer.from(pem).toString('base64')}"`), 'field "[redacted]"');
});

test('a message is one line without control characters and of limited length', () => {
  assert.equal(safeMessage('a\r\n\tb\u0000\u001b[31mc\u2028d\u202ee '), 'a b [31mc d e');
  assert.equal(safeMessage('x'.repeat(5_000)).length, 1_000);
});

test('a token is redacted inside of a word, and with others around it', () => {
  const token = () => `eyJ${secret()}.${secret()}.${secret()}`;
  assert.equal(redactText(`id-${token()} ${token()},x.eyJ.${token()}`), 'id-[redacted] [redacted],x.eyJ.[redacted]');
  assert.equal(redactText('eyJ.eyJshort.x and some.host.eyJ'), 'eyJ.eyJshort.x and some.host.eyJ');
});

test('a secret that the bound cuts is not shown, wherever the cut goes through it', () => {
  const live = `${secret()} ${secret()} with spaces ${secret()}`;
  holdSecret(live);
  const secrets = {
    live,
    jwt: `eyJ${secret()}.${secret()}.${secret()}`,
    bearer: `Bearer ${secret()}`,
    key: `-----BEGIN PRIVATE KEY-----\n${secret()}\n${secret()}\n-----END PRIVATE KEY-----`,
    encoded: Buffer.from(`-----BEGIN PRIVATE KEY-----\n${secret()}`).toString('base64'),
  };
  // The first fills the bound with text that stays; the second with text that is redacted, which moves the end forward.
  const fillers = ['of words. ', `bearer ${'z'.repeat(200)} `];
  for (const [what, value] of Object.entries(secrets)) {
    const parts = value.split(/[\s.]/).filter((part) => part.length > 30);
    for (const filler of fillers) {
      for (let cut = 0; cut <= value.length; cut++) {
        const before = filler.repeat(Math.ceil(16_384 / filler.length)).slice(-(16_384 - cut));
        const shown = redactText(`${before}${value} and more ${'x'.repeat(400)}`);
        for (const part of parts) {
          // The prefix of an encoded key is the same for all keys.
          const known = what === 'encoded' ? part.slice(44) : part.slice(0, 12);
          assert.ok(!shown.includes(known.slice(0, 12)), `${what} at ${cut}: ${shown.slice(-60)}`);
        }
      }
    }
  }
});

test('values that a hostile server has issued to be found everywhere end the work, and not the secrecy', () => {
  for (let n = 0; n < 300; n++) holdSecret('a'.repeat(4_000 + n));
  assert.equal(redactText('a'.repeat(16_000)), '[redacted]');
});

test('a line for a terminal has no control character, line break, mark of direction or half of a character', () => {
  assert.equal(printable('a\u001b[31mb\nc\r\u009bd\u2028e\u202ef\ud83dg  h'), 'a [31mb c  d e f g  h');
  assert.equal(printable('grün 🔑'), 'grün 🔑');
  assert.equal(safeMessage(`${'x'.repeat(998)}🔑🔑`), `${'x'.repeat(998)}…`);
});

for (const [what, text, message] of [
  ['two lines', 'aaaa\nbbbb', /^the token file \/t has 2 lines/],
  ['a space', 'aaaa bbbb', /^the token file \/t has white space/],
  ['a letter that is not ASCII', 'aaaaé', /^the token file \/t has a character that is not printable ASCII/],
  ['a control character', 'aaaa\u0001', /not printable ASCII/],
  ['nothing but white space', ' \n', /^the token file \/t is empty/],
] as const) {
  test(`a token with ${what} is refused, and not quoted`, () => {
    assert.throws(
      () => acceptToken('the token file /t', text),
      (error) => error instanceof MeshError && error.code === 'ERR_MESH_TOKEN' && message.test(error.message),
    );
    const quoted = () => acceptToken('the token file /t', text);
    assert.throws(quoted, (error: Error) => !/aaaa|bbbb/.test(`${error.message} ${error.cause ?? ''}`));
  });
}

test('an accepted token comes without the line break of its file, and is live from then on', () => {
  const value = secret();
  assert.equal(acceptToken('the token file /t', `${value}\r\n`), value);
  assert.equal(redactText(`it was ${value}`), 'it was [redacted]');
});

test('a failed connection is reported only in our own words, whatever the other side wrote', () => {
  const cases: [string, RegExp | undefined][] = [
    ['connect ECONNREFUSED 127.0.0.1:15012', /^connect ECONNREFUSED 127\.0\.0\.1:15012$/],
    ['connect ECONNREFUSED ::1:15012', /^connect ECONNREFUSED ::1:15012$/],
    ['connect ECONNREFUSED s3cr3t:1', /^connect ECONNREFUSED$/],
    ['connect ESECRET 127.0.0.1:1', undefined],
    ['certificate has expired, s3cr3t', /has expired$/],
    [
      "Hostname/IP does not match certificate's altnames: Host: a. is not in the cert's altnames: DNS:s3cr3t",
      /another name/,
    ],
    ['Received HTTP status code 404', /^HTTP status 404$/],
    ['getaddrinfo ENOTFOUND s3cr3t', /does not resolve/],
    ['EPIPE s3cr3t', /^EPIPE$/],
    ['s3cr3t ELEPHANT', undefined],
  ];
  for (const [text, expected] of cases) {
    const cause = localCause(text);
    if (expected) assert.match(cause ?? '', expected);
    else assert.equal(cause, undefined);
    assert.doesNotMatch(cause ?? '', /s3cr3t/);
  }
});
