import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { API_VERSION, KIND, type MeshCertificate } from '../../src/config/schema/mesh-certificate.ts';
import { formatPath, validateObject } from '../../src/config/validate.ts';
import type { EmissaryConfig } from '../../src/gateway/emissary/config.ts';
import { gateways } from '../../src/gateways.ts';
import { consul } from './adapter.ts';
import { ConsulConnectorError, connectorDocument, refusedVariables } from './cluster.ts';
import type { ConsulConfig } from './config.ts';

type Env = Record<string, string>;

const validated = (env: Env) =>
  validateObject({ apiVersion: API_VERSION, kind: KIND, ...connectorDocument(env, 'ambassador') }, [consul], gateways);

function certificate(env: Env): MeshCertificate {
  const result = validated(env);
  assert.ok(result.ok, inspect(result));
  return result.value;
}

const contextOf = ({ gateways: configs }: MeshCertificate['spec']) => (configs.emissary as EmissaryConfig).tlsContext;
const configOf = (env: Env) => certificate(env).spec.mesh.config as ConsulConfig;

test("an empty environment gives the names of Ambassador's own manifest", () => {
  const { metadata, spec } = certificate({});
  assert.deepEqual(metadata, { name: 'ambassador-consul', namespace: 'ambassador' });
  assert.equal(spec.secretName, 'ambassador-consul-connect');
  assert.equal(spec.caSecretName, 'ambassador-consul-ca');
  assert.equal(contextOf(spec).name, 'ambassador-consul');
  assert.deepEqual(contextOf(spec).ambassadorIds, []);
  const { service, http, auth } = configOf({});
  assert.equal(service, 'ambassador');
  assert.deepEqual(http, { address: 'http://127.0.0.1:8500' });
  assert.equal(auth, undefined);
});

test('an Ambassador ID is part of the service and the Secret, and selects the gateway', () => {
  const { metadata, spec } = certificate({ _AMBASSADOR_ID: 'edge' });
  assert.equal(metadata.name, 'ambassador-edge-consul');
  assert.equal(spec.secretName, 'ambassador-edge-consul-connect');
  assert.equal(contextOf(spec).name, 'ambassador-consul');
  assert.deepEqual(contextOf(spec).ambassadorIds, ['edge']);
  assert.equal(configOf({ _AMBASSADOR_ID: 'edge' }).service, 'ambassador-edge');
});

test('Secret name and namespace are used as given', () => {
  const { metadata, spec } = certificate({
    _AMBASSADOR_ID: 'edge',
    _AMBASSADOR_TLS_SECRET_NAME: 'mesh-pair',
    _AMBASSADOR_TLS_SECRET_NAMESPACE: 'gateways',
  });
  assert.equal(spec.secretName, 'mesh-pair');
  assert.equal(metadata.namespace, 'gateways');
});

const addresses: [Env, string][] = [
  [{ _CONSUL_HOST: '10.0.0.7' }, 'http://10.0.0.7:8500'],
  [{ _CONSUL_HOST: 'consul', _CONSUL_PORT: '8501' }, 'http://consul:8501'],
  [{ _CONSUL_HOST: 'fd00::7' }, 'http://[fd00::7]:8500'],
  [{ CONSUL_HTTP_ADDR: 'consul:9500' }, 'http://consul:9500'],
  [{ CONSUL_HTTP_ADDR: 'https://consul:8501' }, 'https://consul:8501'],
  [{ CONSUL_HTTP_ADDR: 'http://consul:8501', CONSUL_HTTP_SSL: 'true' }, 'https://consul:8501'],
  [{ CONSUL_HTTP_ADDR: 'unix:///run/consul.sock' }, 'unix:///run/consul.sock'],
  [{ _CONSUL_HOST: 'own', CONSUL_HTTP_ADDR: 'other:1' }, 'http://own:8500'],
  [{ _CONSUL_HOST: 'own', CONSUL_HTTP_SSL: '1' }, 'https://own:8500'],
];
for (const [env, address] of addresses) {
  test(`${Object.entries(env)
    .map((pair) => pair.join('='))
    .join(' ')} is ${address}`, () => {
    assert.equal(configOf(env).http?.address, address);
  });
}

test('the CA and the server name of HTTPS are used', () => {
  const env = {
    CONSUL_HTTP_ADDR: 'https://c:8501',
    CONSUL_CACERT: '/ca.pem',
    CONSUL_TLS_SERVER_NAME: 'server.dc1.consul',
  };
  assert.deepEqual(configOf(env).http?.tls, { ca: { file: '/ca.pem' }, serverName: 'server.dc1.consul' });
});

test('a token file wins over a token, and a token does not print', () => {
  const token = '4f0f7f1c-9a53-4f3e-8f0a-6b0d2b3c0001';
  assert.deepEqual(configOf({ CONSUL_HTTP_TOKEN: token, CONSUL_HTTP_TOKEN_FILE: '/token' }).auth, {
    tokenFile: '/token',
  });
  const { auth } = configOf({ CONSUL_HTTP_TOKEN: token });
  assert.equal(auth?.token?.reveal(), token);
  for (const text of [JSON.stringify(auth), inspect(auth, { depth: null }), `${auth?.token}`]) {
    assert.ok(!text.includes(token));
    assert.match(text, /redacted/);
  }
});

test('a setting that cannot be supported is refused by the name of its variable', () => {
  const refused: [Env, RegExp][] = [
    [{ CONSUL_HTTP_AUTH: 'user:secret' }, /^CONSUL_HTTP_AUTH: /],
    [{ CONSUL_CLIENT_CERT: '/cert.pem' }, /^CONSUL_CLIENT_CERT: /],
    [{ CONSUL_CAPATH: '/cas' }, /^CONSUL_CAPATH: .*CONSUL_CACERT/],
    [{ CONSUL_HTTP_SSL: 'true', CONSUL_HTTP_SSL_VERIFY: 'false' }, /^CONSUL_HTTP_SSL_VERIFY: .*CONSUL_CACERT/],
    [{ CONSUL_HTTP_SSL: 'maybe' }, /^CONSUL_HTTP_SSL: expected true or false/],
  ];
  for (const [env, message] of refused) {
    assert.throws(
      () => connectorDocument(env, 'ambassador'),
      (error) =>
        error instanceof ConsulConnectorError && message.test(error.message) && !error.message.includes('secret:'),
    );
  }
});

test('a name that Kubernetes or Emissary would refuse is refused by its variable before anything is written', () => {
  const refused: [Env, RegExp][] = [
    [
      { _AMBASSADOR_TLS_SECRET_NAME: 'pair.other' },
      /^_AMBASSADOR_TLS_SECRET_NAME: .*without dots \(spec\.secretName\)$/,
    ],
    [{ _AMBASSADOR_TLS_SECRET_NAMESPACE: 'A' }, /^_AMBASSADOR_TLS_SECRET_NAMESPACE: /],
    [{ _AMBASSADOR_ID: 'not valid' }, /^_AMBASSADOR_ID: /],
    [{ _CONSUL_PORT: '99999' }, /^_CONSUL_HOST, _CONSUL_PORT or CONSUL_HTTP_ADDR: /],
    [{ CONSUL_NAMESPACE: 'not valid' }, /^CONSUL_NAMESPACE: /],
  ];
  for (const [env, message] of refused) {
    const result = validated(env);
    assert.ok(!result.ok);
    const error = refusedVariables(result.issues.map(({ path, message }) => ({ path: formatPath(path), message })));
    assert.ok(error instanceof ConsulConnectorError);
    assert.match(error.message, message);
  }
});
