import assert from 'node:assert/strict';
import { it } from 'node:test';
import { validateObject } from '../../src/config/validate.ts';
import { gateways } from '../../src/gateways.ts';
import { adapters } from '../index.ts';
import { file } from './adapter.ts';
import { pathsOf } from './cluster.ts';
import type { FileConfig } from './config.ts';

const paths = (given: object) => pathsOf(file.config.parse(given));

it('knows the names that each program gives to its files', () => {
  const at = (certificate: string, key: string, bundle: string) => ({ certificate, key, bundle });
  assert.deepEqual(paths({ directory: '/c' }), at('/c/tls.crt', '/c/tls.key', '/c/ca.crt'));
  assert.deepEqual(
    paths({ directory: '/c/', layout: 'istio' }),
    at('/c/cert-chain.pem', '/c/key.pem', '/c/root-cert.pem'),
  );
  assert.deepEqual(
    paths({ directory: '/c', layout: 'spiffe-helper' }),
    at('/c/svid.pem', '/c/svid_key.pem', '/c/svid_bundle.pem'),
  );
  assert.deepEqual(paths({ credentialBundle: '/p/c.pem', bundle: '/p/t.pem' }), at('/p/c.pem', '/p/c.pem', '/p/t.pem'));
  assert.deepEqual(paths({ certificate: '/a', key: '/b', bundle: '/c' }), at('/a', '/b', '/c'));
});

it('refuses what says where the files are in two ways, or in none', () => {
  for (const given of [
    {},
    { layout: 'istio' },
    { directory: '/c', bundle: '/b' },
    { certificate: '/a', key: '/b' },
    { certificate: '/a', bundle: '/c' },
    { certificate: '/a', key: '/b', credentialBundle: '/d', bundle: '/c' },
    { credentialBundle: '/d', bundle: '/c', layout: 'tls' },
  ]) {
    assert.throws(() => file.config.parse(given), /set directory; or certificate, key and bundle/);
  }
  assert.throws(() => file.config.parse({ directory: 'relative' }), /absolute path/);
  assert.throws(() => file.config.parse({ directory: '/c', id: 'SPIFFE://x' }), /a SPIFFE ID.*or a DNS name/);
});

it('offers the ALPN of sidecars for the files of a sidecar alone', () => {
  const tls = (config: object) => file.tlsFor?.(file.config.parse(config) as FileConfig);
  assert.deepEqual(tls({ directory: '/c', layout: 'istio' }), { alpnProtocols: 'istio-http/1.1,istio,http/1.1' });
  assert.deepEqual(tls({ directory: '/c' }), {});
});

it('needs the files to be allowed where not every file is', () => {
  const needs = (config: object) => file.needs(file.config.parse(config) as FileConfig, { namespace: 'emissary' });
  assert.deepEqual(needs({ directory: '/c/', layout: 'istio' }), [
    { kind: 'address', address: 'file:/c', field: 'file.directory' },
  ]);
  assert.deepEqual(
    needs({ credentialBundle: '/p/c.pem', bundle: '/p/t.pem' }).map((need) => 'address' in need && need.address),
    ['file:/p/c.pem', 'file:/p/t.pem'],
  );
});

it('is a field of a MeshCertificate', () => {
  const object = {
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name: 'files', namespace: 'emissary' },
    spec: { file: { directory: '/var/run/secrets/meshcert/certs' } },
  };
  const checked = validateObject(object, adapters, gateways);
  assert.equal(checked.ok && checked.value.spec.mesh.name, 'file');
});
