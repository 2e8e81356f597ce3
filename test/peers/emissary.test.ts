import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stringify } from 'yaml';
import { configure, type EnvoyTls, snapshotOf } from '../../sandbox/emissary/configuration.ts';
import { DEFAULT_ENV } from '../../src/gateway/emissary/reading.ts';
import type { KubeObject } from '../../src/objects/objects.ts';
import { Random } from '../fuzz/random.ts';
import { type Judged, type JudgedCluster, judgedByEmissary } from './servers/emissary-judge.ts';

const MAPPINGS = 800;
const GATEWAYS = 700;
const GETAMBASSADOR = 'getambassador.io/v3alpha1';
const SECRETS = '/tmp/ambassador/snapshots';

const object = (apiVersion: string, kind: string, namespace: string, name: string, rest: object): KubeObject => ({
  apiVersion,
  kind,
  metadata: { name, namespace },
  ...rest,
});
const secret = (namespace: string, name: string, keys: readonly string[]): KubeObject => {
  const pem = (key: string) => `-----BEGIN CERTIFICATE-----\n${key} of ${name}\n-----END CERTIFICATE-----\n`;
  const data = Object.fromEntries(keys.map((key) => [key, Buffer.from(pem(key)).toString('base64')]));
  return object('v1', 'Secret', namespace, name, { type: 'Opaque', data });
};
const listener = object(GETAMBASSADOR, 'Listener', 'emissary', 'http', {
  spec: { port: 8080, protocol: 'HTTP', securityModel: 'XFP', hostBinding: { namespace: { from: 'ALL' } } },
});
const PAIR = ['tls.crt', 'tls.key'];
const usual = [
  secret('emissary', 'istio-identity', PAIR),
  secret('emissary', 'istio-ca', ['tls.crt']),
  object(GETAMBASSADOR, 'TLSContext', 'emissary', 'istio', {
    spec: { hosts: [], secret: 'istio-identity', ca_secret: 'istio-ca' },
  }),
];

/** A Mapping or TCPMapping that somebody might write, or mistype. */
function randomMapping(seed: number): KubeObject {
  const random = new Random(seed);
  const one = (...choices: readonly string[]): string => random.pick(choices);
  const scheme = one('', '', 'https://', 'https://', 'http://', 'HTTPS://', 'tcp://', '//');
  const host = one(
    'web',
    'web.shop',
    'web.shop.svc',
    'WEB.Shop',
    'localhost',
    '10.0.0.1',
    '[fd00::1]',
    'user@web',
    '',
    'a_b',
  );
  const port = one('', ':80', ':8443', ':', ':0', ':https', ':65535', ':65536', ':-1', ':08');
  const path = one('', '', '', '', '/path', '?q=1', '#f');
  const tls = one('', '', 'istio', 'istio', 'missing', 'true');
  const namespace = one('emissary', 'shop');
  const isTcp = random.chance(0.2);
  const spec = {
    ...(isTcp ? { port: 9000 } : { hostname: '*', prefix: `/${seed}/` }),
    service: `${scheme}${host}${port}${path}`,
    ...(tls === '' ? {} : { tls }),
    ...(!isTcp && random.chance(0.1) ? { host_rewrite: 'other.example.com' } : {}),
    ...(random.chance(0.1) ? { cluster_tag: 'blue' } : {}),
  };
  return object(GETAMBASSADOR, isTcp ? 'TCPMapping' : 'Mapping', namespace, `m${seed}`, { spec });
}

/** Contexts, Secrets, resolvers and Mappings of several teams: names collide, keys are missing, clusters are shared. */
function randomGateway(seed: number): KubeObject[] {
  const random = new Random(seed);
  const one = (...choices: readonly string[]): string => random.pick(choices);
  const some = (field: string, ...choices: readonly string[]) => {
    const choice = one(...choices);
    return choice === '' ? {} : { [field]: choice };
  };
  const keys = (...usually: readonly string[]) =>
    random.chance(0.6)
      ? usually
      : ['tls.crt', 'tls.key', 'ca.crt', 'crl.pem', 'user.key', 'root-cert.pem'].filter(() => random.chance(0.4));
  const secrets = ['emissary', 'shop'].flatMap((namespace) => [
    secret(namespace, 'identity', keys(...PAIR)),
    secret(namespace, 'ca', keys('tls.crt')),
    secret(namespace, 'crl', keys('crl.pem')),
  ]);
  const contexts = ['emissary', 'shop'].flatMap((namespace) =>
    ['istio', 'linkerd'].flatMap((name) =>
      random.chance(0.3)
        ? []
        : object(GETAMBASSADOR, 'TLSContext', namespace, name, {
            spec: {
              hosts: [],
              ...some('secret', 'identity', 'identity', 'identity', 'identity.shop', ''),
              ...some('ca_secret', 'ca', 'ca', ''),
              ...some('crl_secret', 'crl', '', ''),
            },
          }),
    ),
  );
  const resolvers = [
    ...(random.chance(0.7) ? [object(GETAMBASSADOR, 'KubernetesEndpointResolver', 'emissary', 'mine', {})] : []),
    ...(random.chance(0.5)
      ? [
          object(GETAMBASSADOR, 'ConsulResolver', 'shop', one('dc1', 'mine'), {
            spec: { address: 'consul:8500', ...some('datacenter', 'dc1', 'dc1', '') },
          }),
        ]
      : []),
    ...(random.chance(0.3) ? [object(GETAMBASSADOR, 'KubernetesServiceResolver', 'shop', 'dns', {})] : []),
  ];
  const mappings = ['web', 'web-two', 'web.three', 'a'].flatMap((name, at) =>
    ['emissary', 'shop'].flatMap((namespace) => {
      if (random.chance(0.5)) return [];
      const isTcp = random.chance(0.2);
      const balanced = !isTcp && random.chance(0.15);
      // Emissary refuses a Mapping for the same requests as another if such fields differ.
      const own = { prefix: `/${name}/${namespace}/`, port: 9000 + 2 * at + (namespace === 'shop' ? 1 : 0) };
      const resolver = one('', '', '', '', 'endpoint', 'consul', 'mine', 'dc1', 'dns', 'mine.shop', 'missing');
      const spec = {
        ...(isTcp
          ? { port: own.port }
          : { hostname: '*', prefix: balanced ? own.prefix : one('/a/', '/b/', own.prefix) }),
        service: one('https://web.shop', 'https://web.shop', 'web.shop', 'http://web.shop:80', 'https://web', 'web'),
        ...some('tls', 'istio', 'istio', 'linkerd', 'istio.shop', 'istio.emissary', ''),
        ...(resolver === '' ? {} : { resolver }),
        ...(balanced ? { load_balancer: { policy: 'round_robin' } } : {}),
        ...(!isTcp && random.chance(0.1) ? { precedence: 1 } : {}),
      };
      return [object(GETAMBASSADOR, isTcp ? 'TCPMapping' : 'Mapping', namespace, name, { spec })];
    }),
  );
  return [...secrets, ...contexts, ...resolvers, ...mappings].sort(() => (random.chance(0.5) ? 1 : -1));
}

/** The files in the TLS context that we expect Emissary to write. */
const filesOf = (tls: EnvoyTls): Record<string, string | null> => {
  const parts = { certificate_chain: tls.certificate, private_key: tls.key, trusted_ca: tls.ca, crl: tls.crl };
  return Object.fromEntries([
    ...Object.entries(parts).flatMap(([part, file]) => (file ? [[part, file.path.slice(SECRETS.length)]] : [])),
    ...tls.withoutFile.map((part) => [part, null]),
  ]);
};

const inOrder = ({ tls, ...cluster }: JudgedCluster): string =>
  JSON.stringify([cluster.name, cluster.host, cluster.port, tls && Object.entries(tls).sort()]);

/** What differs between the clusters that we expect of these objects and those that Emissary makes. */
function difference(objects: readonly KubeObject[], { clusters = [], failure }: Judged): string | undefined {
  const { clusters: ours, errors } = configure(snapshotOf(objects), DEFAULT_ENV);
  const fails = errors.some(([, error]) => error.includes('makes Emissary fail'));
  if (failure !== undefined || fails) return fails === (failure !== undefined) ? undefined : `fails: ${failure}`;
  const theirs = clusters.map(inOrder).sort();
  const endpoints = new Set(clusters.filter(({ host }) => host === null).map(({ name }) => name));
  const expected = [...ours.values()]
    .map(({ name, host, port, tls }) => {
      const address = endpoints.has(name) ? { host: null, port: null } : { host, port };
      return inOrder({ name, ...address, tls: tls ? filesOf(tls) : null });
    })
    .sort();
  return theirs.join('\n') === expected.join('\n')
    ? undefined
    : `Emissary makes\n${theirs.join('\n')}\nand not\n${expected.join('\n')}`;
}

async function compare(cases: readonly (readonly KubeObject[])[]) {
  const judged = await judgedByEmissary(
    cases.map((objects) => [listener, ...objects].map((one) => stringify(one)).join('---\n')),
  );
  const differing = cases.flatMap((objects, at) => {
    const why = difference(objects, judged[at] ?? {});
    return why === undefined ? [] : [`case ${at}: ${why}\nof ${JSON.stringify(objects)}`];
  });
  assert.deepEqual(differing.slice(0, 5), [], `${differing.length} of ${cases.length} differ`);
  return judged;
}

test(`doctor reads ${MAPPINGS} random Mappings as the Python code of Emissary 3.10.0 does`, async (t) => {
  const mappings = Array.from({ length: MAPPINGS }, (_, seed) => randomMapping(seed));
  const judged = await compare(mappings.map((mapping) => [...usual, mapping]));
  t.diagnostic(`${judged.filter(({ failure }) => failure).length} at which that code fails as a whole`);
});

test(`doctor reads ${GATEWAYS} random gateways with all their objects as the Python code of Emissary 3.10.0 does`, async (t) => {
  const gateways = Array.from({ length: GATEWAYS }, (_, seed) => randomGateway(seed));
  const judged = await compare(gateways);
  const clusters = judged.flatMap((one) => one.clusters ?? []);
  const without = clusters.filter(({ tls }) => Object.values(tls ?? {}).includes(null));
  t.diagnostic(`${clusters.length} clusters, ${without.length} of them with a part that has no file`);
});
