import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect, isDeepStrictEqual } from 'node:util';
import { consul } from './adapter.ts';
import { configSchema } from './config.ts';

const grpc = { addresses: ['consul-server.consul.svc:8502'] };
const http = { address: 'http://127.0.0.1:8500' };
const host = { namespace: 'emissary' };

test('one way to connect is the minimum', () => {
  const config = configSchema.parse({ http });
  assert.equal(config.service, 'ambassador');
  assert.deepEqual(consul.expect(config, host), { form: 'spiffe' });
});

test('the name is known beforehand only with trust domain and datacenter', () => {
  const trustDomain = '11111111-2222-3333-4444-555555555555.consul';
  assert.deepEqual(consul.expect(configSchema.parse({ http, trustDomain }), host), { form: 'spiffe', trustDomain });
  const all = configSchema.parse({
    grpc,
    trustDomain,
    datacenter: 'dc1',
    service: 'edge',
    partition: 'p',
    namespace: 'n',
  });
  assert.equal(consul.expect(all, host).id, `spiffe://${trustDomain}/ap/p/ns/n/dc/dc1/svc/edge`);
});

const https = { address: 'https://c:8501' };
const LOGIN = { login: { method: 'm', serviceAccount: 'gateway' } };
const IN_PLAINTEXT = /login would send the token of a ServiceAccount in plaintext/;

test('login requires TLS, a unix socket or a loopback address', () => {
  for (const config of [
    { http: https },
    { http: { address: 'unix:///run/consul.sock' } },
    ...['http://127.0.0.1:8500', 'http://localhost:8500', 'http://[::1]:8500'].map((address) => ({
      http: { address },
    })),
    { datacenter: 'dc1', grpc: { addresses: ['c:8502'] } },
    { datacenter: 'dc1', grpc: { addresses: ['127.0.0.1:8502'], plaintext: true } },
  ]) {
    assert.ok(configSchema.parse({ ...config, auth: LOGIN }));
  }
});

test("a minted token's audience is not the API server's unless configured", () => {
  assert.equal(configSchema.parse({ http: https, auth: LOGIN }).auth?.login?.audience, 'consul');
});

const refused: [string, object, RegExp][] = [
  ['neither http nor grpc', {}, /exactly one of http, grpc/],
  ['both http and grpc', { http, grpc, datacenter: 'dc1' }, /http and grpc are set/],
  ['grpc without a datacenter', { grpc }, /datacenter[\s\S]*required with grpc|required with grpc[\s\S]*datacenter/],
  ['two ways to a token', { http, auth: { token: 'a', tokenFile: '/b' } }, /tokenFile and token are set/],
  ['TLS for a plain address', { http: { ...http, tls: {} } }, /https/],
  [
    'TLS and plaintext',
    { datacenter: 'dc1', grpc: { ...grpc, tls: {}, plaintext: true } },
    /cannot be combined with tls/,
  ],
  [
    'a CA from two places',
    { http: { address: 'https://c', tls: { ca: { file: '/a', inline: 'b' } } } },
    /file and inline are set/,
  ],
  ['a path in the address', { http: { address: 'http://c:8500/v1' } }, /expected http/],
  ['credentials in the address', { http: { address: 'http://user:pass@c:8500' } }, /expected http/],
  ['a service that is no name', { http, service: '../kv' }, /expected letters/],
  ['a field that does not exist', { http, dc: 'dc1' }, /dc/],
  ['two bearer tokens', { http, auth: { login: { method: 'm', tokenFile: '/a', serviceAccount: 'b' } } }, /tokenFile/],
  ['login over plaintext HTTP', { http: { address: 'http://c:8500' }, auth: LOGIN }, IN_PLAINTEXT],
  [
    'login to a name that begins like an address',
    { http: { address: 'http://127.evil.test' }, auth: LOGIN },
    IN_PLAINTEXT,
  ],
  [
    'login over plaintext gRPC',
    { datacenter: 'dc1', grpc: { addresses: ['127.0.0.1:8502', 'c:8502'], plaintext: true }, auth: LOGIN },
    IN_PLAINTEXT,
  ],
];
for (const [title, config, message] of refused) {
  test(`${title} is refused`, () => assert.throws(() => configSchema.parse(config), message));
}

test("login reads the pod's own token unless configured otherwise", () => {
  const { auth } = configSchema.parse({ http: https, auth: { login: { method: 'm' } } });
  assert.equal(auth?.login?.tokenFile, '/var/run/secrets/kubernetes.io/serviceaccount/token');
  const minted = configSchema.parse({ http: https, auth: { login: { method: 'm', serviceAccount: 'emissary' } } }).auth;
  assert.equal(minted?.login?.tokenFile, undefined);
});

test('a token in a configuration does not print', () => {
  const config = configSchema.parse({ http, auth: { token: 'very-secret' } });
  for (const text of [JSON.stringify(config), inspect(config, { depth: null }), `${config.auth?.token}`]) {
    assert.ok(!text.includes('very-secret'), text);
  }
  assert.equal(config.auth?.token?.reveal(), 'very-secret');
});

test('a different token is a different spec, although both print the same', () => {
  const withToken = (token: string) => configSchema.parse({ http, auth: { token } });
  assert.ok(isDeepStrictEqual(withToken('first'), withToken('first')));
  assert.ok(!isDeepStrictEqual(withToken('first'), withToken('other')), 'its worker would go on with the old token');
  assert.equal(JSON.stringify(withToken('first')), JSON.stringify(withToken('other')));
  assert.equal(inspect(withToken('first'), { depth: null }), inspect(withToken('other'), { depth: null }));
});
