import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../objects/objects.ts';
import {
  answersTo,
  DEFAULT_ENV,
  type EmissaryEnv,
  effectiveUpstream,
  inOrder,
  type PodFiles,
  parseService,
  readContexts,
  resolversIn,
  selects,
} from './reading.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');
type Fields = Record<string, unknown>;

function secret(name: string, data: Record<string, string>, more: Fields = {}): KubeObject {
  const encoded = Object.fromEntries(Object.entries(data).map(([key, text]) => [key, base64(text)]));
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'Opaque',
    data: encoded,
    metadata: { name, namespace: 'emissary' },
    ...more,
  };
}

function context(spec: Fields = {}, name = 'mesh', namespace = 'emissary'): KubeObject {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind: 'TLSContext',
    metadata: { name, namespace },
    spec: { hosts: [], secret: 'id', ca_secret: 'ca', ...spec },
  };
}

function mapping(service: string, tls: unknown = 'mesh', kind = 'Mapping'): KubeObject {
  return {
    apiVersion: 'getambassador.io/v3alpha1',
    kind,
    metadata: { name: 'web', namespace: 'emissary' },
    spec: { service, tls },
  };
}

const identity = secret('id', { 'tls.crt': 'leaf', 'tls.key': 'key' });
const ca = secret('ca', { 'tls.crt': 'roots' });
const both = [identity, ca];
const read = (
  one: KubeObject,
  contexts: readonly KubeObject[] = [context()],
  secrets: readonly KubeObject[] = both,
  env: Partial<EmissaryEnv> = {},
) => effectiveUpstream(one, contexts, secrets, { ...DEFAULT_ENV, ...env });
const brief = (...args: Parameters<typeof read>) => {
  const { mode, host, port } = read(...args);
  return `${mode} ${host}:${port}`;
};

test('scheme, context and port decide how an upstream is reached', () => {
  const cases: [string, unknown, string][] = [
    ['web.shop', 'mesh', 'mtls web.shop:443'],
    ['web.shop:8080', 'mesh', 'mtls web.shop:8080'],
    ['https://web.shop', 'mesh', 'mtls web.shop:443'],
    ['http://web.shop', 'mesh', 'mtls web.shop:443'],
    ['web.shop', undefined, 'plaintext web.shop:80'],
    ['http://web.shop', undefined, 'plaintext web.shop:80'],
    ['https://web.shop', undefined, 'tls-unverified web.shop:443'],
    ['web.shop', true, 'tls-unverified web.shop:443'],
    ['web.shop', 'true', 'plaintext web.shop:80'],
    ['https://web.shop', 'true', 'tls-unverified web.shop:443'],
    ['web.shop', 'gone', 'plaintext web.shop:80'],
    ['https://web.shop', 'gone', 'tls-unverified web.shop:443'],
    ['HTTPS://Web.Shop:444', 'mesh', 'mtls web.shop:444'],
  ];
  for (const [service, tls, expected] of cases) {
    const withTls = tls === undefined ? mapping(service, undefined) : mapping(service, tls);
    assert.equal(
      tls === undefined ? brief({ ...withTls, spec: { service } }) : brief(withTls),
      expected,
      `${service} ${tls}`,
    );
  }
});

test('the scheme of a TCPMapping counts like that of a Mapping', () => {
  assert.equal(brief(mapping('https://web.shop', 'gone', 'TCPMapping')), 'tls-unverified web.shop:443');
  assert.equal(brief(mapping('web.shop', 'gone', 'TCPMapping')), 'plaintext web.shop:80');
  assert.equal(brief(mapping('http://web.shop', 'mesh', 'TCPMapping')), 'mtls web.shop:443');
});

test('each kind of unusable context has the same effect as no context', () => {
  const cases: [string, readonly KubeObject[], readonly KubeObject[]][] = [
    ['no Secret', [context()], [ca]],
    ['no CA Secret', [context()], [identity]],
    ['application protocols do not save it', [context({ alpn_protocols: 'istio' })], [ca]],
    ['a type that is not read', [context()], [{ ...identity, type: 'example.com/tls' }, ca]],
    ['no key', [context()], [secret('id', { 'tls.crt': 'leaf' }), ca]],
    ['roots under ca.crt', [context()], [identity, secret('ca', { 'ca.crt': 'roots' })]],
    ['roots without a pair', [context({ secret: undefined })], both],
    ['Secret and files', [context({ cert_chain_file: '/a', private_key_file: '/b' })], both],
    ['no revocation list', [context({ crl_secret: 'crl' })], both],
    ['another gateway', [context({ ambassador_id: ['edge'] })], both],
    [
      'no certificate at all',
      [context({ secret: undefined, ca_secret: undefined, sni: 'web', alpn_protocols: 'istio' })],
      both,
    ],
  ];
  for (const [why, contexts, secrets] of cases) {
    assert.equal(brief(mapping('web.shop'), contexts, secrets), 'plaintext web.shop:80', why);
    assert.equal(brief(mapping('https://web.shop'), contexts, secrets), 'tls-unverified web.shop:443', why);
  }
});

test('a Secret with another key that Emissary reads gives a part without a file, and the context stays usable', () => {
  const cases: [string, KubeObject, readonly KubeObject[]][] = [
    ['crl', context({ crl_secret: 'crl' }), [...both, secret('crl', { 'tls.crt': 'list' })]],
    ['trusted_ca', context(), [identity, secret('ca', { 'ca.crt': 'roots', 'crl.pem': 'list' })]],
    ['certificate_chain', context({ ca_secret: undefined }), [secret('id', { 'tls.key': 'key', 'user.key': 'key' })]],
  ];
  for (const [part, one, secrets] of cases) {
    const reading = read(mapping('web.shop'), [one], secrets).context;
    assert.deepEqual([reading?.usable, reading?.withoutFile], [true, [part]], part);
  }
  const withoutCertificate = [secret('id', { 'tls.key': 'key', 'crl.pem': 'list' }), ca];
  assert.equal(brief(mapping('web.shop'), [context()], withoutCertificate), 'plaintext web.shop:80');
});

test('a Secret made of the files of a sidecar replaces the real one, as soon as there are files', () => {
  const env = { ...DEFAULT_ENV, istioSecretDir: true };
  const real = secret('istio-certs', { 'tls.crt': 'real', 'tls.key': 'key' });
  const madeUp = secret('istio-certs', { 'tls.crt': 'made', 'tls.key': 'key' });
  const certificate = (pod: PodFiles) =>
    readContexts([context({ secret: 'istio-certs' })], [real, ca], env, pod).get('mesh')?.certificate?.pem;
  assert.equal(certificate({ files: new Map() }), 'real');
  assert.equal(certificate({ files: new Map(), madeUp }), 'made');
});

test('Secrets of the three types are read by their keys', () => {
  const istio = secret('id', { 'cert-chain.pem': 'leaf', 'key.pem': 'key' }, { type: 'istio.io/key-and-cert' });
  assert.equal(brief(mapping('web'), [context()], [istio, ca]), 'mtls web:443');
  const emptyKey = { ...secret('ca', { 'tls.crt': 'roots' }), type: 'kubernetes.io/tls' };
  assert.equal(brief(mapping('web'), [context()], [identity, emptyKey]), 'mtls web:443');
});

test('root-cert.pem beside the pair verifies, until ca_secret says otherwise', () => {
  const withRoot = secret('id', { 'tls.crt': 'leaf', 'tls.key': 'key', 'root-cert.pem': 'beside' });
  const alone = { ...context(), spec: { secret: 'id' } };
  assert.equal(read(mapping('web'), [alone], [withRoot]).context?.ca?.pem, 'beside');
  assert.equal(read(mapping('web'), [context()], [withRoot, ca]).context?.ca?.pem, 'roots');
  assert.equal(brief(mapping('web'), [alone], [identity]), 'tls-unverified web:443');
});

test('the file of a pair has a new name when it changes, and the old one when only root-cert.pem does', () => {
  const alone = { ...context(), spec: { secret: 'id' } };
  const path = (data: Record<string, string>) =>
    read(mapping('web'), [alone], [secret('id', data)]).context?.certificate?.path;
  const before = path({ 'tls.crt': 'leaf', 'tls.key': 'key', 'root-cert.pem': 'a' });
  assert.equal(path({ 'tls.crt': 'leaf', 'tls.key': 'key', 'root-cert.pem': 'b' }), before);
  assert.notEqual(path({ 'tls.crt': 'leaf 2', 'tls.key': 'key', 'root-cert.pem': 'a' }), before);
});

test('of two contexts with one name, the one in the first namespace gets it, whatever the order', () => {
  const here = context({}, 'mesh', 'emissary');
  const there = context({ sni: 'there' }, 'mesh', 'aaa');
  for (const order of [
    [here, there],
    [there, here],
  ]) {
    const named = readContexts(order, both, DEFAULT_ENV);
    assert.deepEqual([...named.keys()], ['mesh', 'mesh.emissary']);
    assert.equal(named.get('mesh')?.spec.sni, 'there');
  }
  const { cluster } = read(mapping('web', 'mesh.emissary'), [here, there]);
  assert.equal(cluster, 'cluster_web_otls_mesh_emissary_emissary', 'the cluster has the whole name');
});

test('in a dotted name the namespace follows the last dot, unless namespacing is off', () => {
  const far = secret('id', { 'tls.crt': 'leaf', 'tls.key': 'key' }, { metadata: { name: 'id', namespace: 'certs' } });
  const dotted = secret('id.certs', { 'tls.crt': 'leaf', 'tls.key': 'key' });
  const contextsWith = (more: Fields = {}) => [context({ secret: 'id.certs', ...more })];
  assert.equal(brief(mapping('web'), contextsWith(), [far, ca]), 'mtls web:443');
  assert.equal(brief(mapping('web'), contextsWith(), [dotted, ca]), 'plaintext web:80');
  assert.equal(brief(mapping('web'), contextsWith({ secret_namespacing: false }), [dotted, ca]), 'mtls web:443');
});

test('with a Module, the two halves of the gateway disagree about dots, until the context says which', () => {
  const far = secret('id', { 'tls.crt': 'leaf', 'tls.key': 'key' }, { metadata: { name: 'id', namespace: 'certs' } });
  const contexts = (more: Fields = {}) => [context({ secret: 'id.certs', ...more })];
  const env = { module: {} };
  assert.equal(brief(mapping('web'), contexts(), [far, ca], env), 'plaintext web:80');
  assert.equal(brief(mapping('web'), contexts({ secret_namespacing: true }), [far, ca], env), 'mtls web:443');
  assert.equal(
    brief(mapping('web'), contexts(), [far, ca], { module: { tlsSecretNamespacing: true } }),
    'mtls web:443',
  );
});

test('objects that the gateway is configured not to see read as missing', () => {
  const labelled = (object: KubeObject) => ({ ...object, metadata: { ...object.metadata, labels: { team: 'edge' } } });
  const env = { labelSelector: 'team=edge' };
  assert.equal(brief(mapping('web'), [labelled(context())], both, env), 'plaintext web:80');
  assert.equal(brief(mapping('web'), [labelled(context())], both.map(labelled), env), 'mtls web:443');
  assert.equal(
    brief(mapping('web.shop'), [context()], both, { singleNamespace: true, namespace: 'other' }),
    'plaintext web.shop:80',
  );
});

test('with a scheme, the context is not part of the name of the cluster', () => {
  const other = context({}, 'other');
  const clusters = (service: string) => {
    const all = ['mesh', 'other'].map((tls) => read(mapping(service, tls), [context(), other]).cluster);
    return new Set(all).size;
  };
  assert.equal(clusters('https://web.shop'), 1);
  assert.equal(clusters('web.shop'), 2);
});

test('services that cannot be read are reported, not thrown', () => {
  assert.match(parseService('https://web.shop:http').errors.join(), /no valid port/);
  assert.match(parseService('https://').errors.join(), /no host name/);
  assert.match(parseService('ftp://web').errors.join(), /scheme ftp/);
  assert.match(parseService('web/path').errors.join(), /more than a host and a port/);
  for (const service of ['web:+80', 'web:0x50', 'web:8e1', 'web: 80', 'web:65536'])
    assert.match(parseService(service).errors.join(), /no valid port/, service);
  assert.deepEqual(parseService('https://[::1]:8443'), {
    scheme: 'https',
    host: '::1',
    port: 8443,
    normalized: 'https://[::1]:8443',
    errors: [],
  });
});

test('an invalid port after an IPv6 address ends Emissary, unless the service starts with //', () => {
  const fails = (service: string) =>
    parseService(service).errors.some((error) => error.includes('makes Emissary fail'));
  assert.deepEqual(['[fd00::1]:https', 'https://[fd00::1]:65536', '//[fd00::1]:https'].map(fails), [true, true, false]);
});

test('an invalid port or an absent host still gives a cluster, with the default port', () => {
  assert.equal(brief(mapping('https://web.shop:http')), 'mtls web.shop:443');
  assert.equal(brief(mapping('web.shop:http', 'gone')), 'plaintext web.shop:80');
  assert.equal(brief(mapping('https://')), 'mtls unknown:443');
  assert.equal(brief(mapping('//web:65536')), 'mtls unknown:443');
  assert.match(parseService('https://[::1]:http').errors.join(), /no change of any object arrives/);
});

/** A Mapping beside its upstream, outside the gateway's namespace. */
const inShop = (service: string, spec: Fields = {}): KubeObject => ({
  ...mapping(service),
  metadata: { name: 'web', namespace: 'shop' },
  spec: { service, tls: 'mesh', ...spec },
});

test('a bare host is qualified before the cluster is named, so that different spellings are one cluster', () => {
  const clusters = (...services: string[]) => new Set(services.map((one) => read(inShop(one)).cluster)).size;
  assert.equal(clusters('https://web:80', 'https://web.shop:80', 'HTTPS://WEB:80/path', 'https://me@web.shop:80'), 1);
  assert.equal(clusters('https://web.shop', 'https://web.shop:', 'https://web.shop:0', 'https://web'), 1);
  assert.equal(clusters('https://web.shop:80', 'https://web.shop:443', 'https://web.shop', 'https://web.shop.svc'), 4);
  assert.equal(read(inShop('web:80')).host, 'web.shop');
  assert.equal(read(mapping('web:80')).host, 'web', 'the namespace of the gateway needs no qualification');
  assert.equal(read(inShop('localhost')).host, 'localhost');
  assert.equal(read(inShop('web:http')).host, 'web', 'what is malformed stays as it is');
});

test('the resolver of a bare host decides whether it is qualified', () => {
  const hostOf = (spec: Fields, env: Partial<EmissaryEnv> = {}) =>
    read(inShop('web', spec), undefined, undefined, env).host;
  assert.equal(hostOf({ resolver: 'consul' }), 'web');
  assert.equal(hostOf({ resolver: 'dc1' }, { resolvers: new Map([['dc1', 'consul']]) }), 'web');
  assert.equal(hostOf({}, { module: { resolver: 'consul-endpoint' } }), 'web');
  assert.equal(hostOf({}, { module: { resolvesInOwnNamespace: true } }), 'web');
  assert.equal(hostOf({ resolver: 'endpoint' }), 'web.shop');
});

test('fields that keep two Mappings on separate clusters', () => {
  const specs: Fields[] = [
    {},
    { cluster_tag: 'one' },
    { circuit_breakers: [{ max_connections: 5 }] },
    { circuit_breakers: [{ priority: 'high', max_retries: 2 }] },
    { resolver: 'endpoint', load_balancer: { policy: 'ring_hash', cookie: { name: 'id' } } },
    { resolver: 'endpoint', load_balancer: { policy: 'ring_hash', header: 'x-id' } },
    { host_rewrite: 'web.example.com' },
  ];
  const clusters = specs.map((spec) => read(inShop('https://web:80', spec)).cluster);
  assert.deepEqual(clusters, [
    'cluster_https___web_shop_80_otls_shop',
    'cluster_one_https___web_shop_80_otls_shop',
    'cluster_https___web_shop_80_otls_shop_cbnc5',
    'cluster_https___web_shop_80_otls_shop_cbht2',
    'cluster_https___web_shop_80_otls_shop_er_ring_hash_cookie_id',
    'cluster_https___web_shop_80_otls_shop_er_ring_hash_hdr_x_id',
    'cluster_https___web_shop_80_otls_hr_web_example_com_shop',
  ]);
});

test('an empty service leaves its place in the name of the cluster', () => {
  assert.equal(read(inShop('')).cluster, 'cluster__otls_mesh_shop');
});

test('a Mapping whose resolver does not support it is dropped', () => {
  const balanced = { load_balancer: { policy: 'round_robin' } };
  assert.match(read(inShop('web', balanced)).dropped ?? '', /load_balancer/);
  assert.match(read(inShop('web.shop', { resolver: 'consul' })).dropped ?? '', /no dots/);
  for (const resolver of ['endpoint', 'consul'])
    assert.equal(read(inShop('web', { ...balanced, resolver })).dropped, undefined, resolver);
  assert.match(read(inShop('web', { resolver: 'elsewhere' })).dropped ?? '', /no resolver elsewhere/);
  assert.match(
    read(inShop('web'), [], [], { module: { resolver: 'elsewhere' } }).dropped ?? '',
    /no resolver elsewhere/,
  );
});

test('names of resolvers are global, and a ConsulResolver without a datacenter is none', () => {
  const resolver = (kind: string, namespace: string, name: string, spec: Fields = {}): KubeObject => ({
    ...{ apiVersion: 'getambassador.io/v3alpha1', kind, metadata: { name, namespace }, spec },
  });
  const found = resolversIn(
    [
      resolver('KubernetesEndpointResolver', 'shop', 'mine'),
      resolver('ConsulResolver', 'emissary', 'mine', { datacenter: 'dc1' }),
      resolver('ConsulResolver', 'emissary', 'nowhere'),
      resolver('KubernetesServiceResolver', 'shop', 'edge', { ambassador_id: ['edge'] }),
      resolver('KubernetesServiceResolver', 'shop', 'dns'),
    ],
    DEFAULT_ENV,
  );
  assert.deepEqual(Object.fromEntries(found), {
    dns: 'service',
    mine: 'consul',
    'mine.shop': 'endpoint',
    nowhere: 'unknown',
  });
});

test('the first Mapping of a cluster is found by name.namespace, with Mappings for the same requests together', () => {
  const one = (name: string, namespace: string, spec: Fields, kind = 'Mapping') => {
    const object = { ...mapping('https://web', 'mesh', kind), metadata: { name, namespace }, spec };
    return { object, upstream: read(object) };
  };
  const service = 'https://web.shop';
  const ordered = inOrder([
    one('a', 'shop', { service, port: 9000 }, 'TCPMapping'),
    one('web', 'shop', { service, prefix: '/one/' }),
    one('web-two', 'shop', { service, prefix: '/two/' }),
    one('web', 'emissary', { service, prefix: '/three/' }),
    one('z', 'shop', { service, prefix: '/two/' }),
    one('early', 'shop', { service, prefix: '/one/', resolver: 'elsewhere' }),
  ]);
  assert.deepEqual(
    ordered.map(({ object: { metadata } }) => `${metadata.name}.${metadata.namespace}`),
    ['early.shop', 'web-two.shop', 'z.shop', 'web.emissary', 'web.shop', 'a.shop'],
  );
});

test('ids and label selectors are read as the gateway reads them', () => {
  assert.equal(answersTo(undefined, 'default'), true);
  assert.equal(answersTo([], 'edge'), false);
  assert.equal(answersTo(['_automatic_'], 'edge'), true);
  assert.equal(answersTo('edge', 'edge'), true);
  const labels = { team: 'edge', tier: '1' };
  const cases: [string | undefined, boolean][] = [
    [undefined, true],
    ['team=edge', true],
    ['team==edge,tier!=2', true],
    ['team', true],
    ['!team', false],
    ['!zone, team = edge', true],
    ['team=edge,zone', false],
  ];
  for (const [selector, expected] of cases) assert.equal(selects(selector, labels), expected, selector);
});
