import assert from 'node:assert/strict';
import { test } from 'node:test';
import { stringify } from 'yaml';
import type { KubeObject } from '../../src/core/object.ts';
import { DEFAULT_ENV } from '../../src/gateway/emissary/reading/env.ts';
import { effectiveUpstream, seesMapping } from '../../src/gateway/emissary/reading/reading.ts';
import { Random } from '../fuzz/random.ts';
import { type Judged, judgedByEmissary } from './servers/emissary-judge.ts';

const CASES = 1500;
const PEM = Buffer.from('-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n').toString('base64');
const object = (apiVersion: string, kind: string, namespace: string, name: string, rest: object): KubeObject => ({
  apiVersion,
  kind,
  metadata: { name, namespace },
  ...rest,
});
const GETAMBASSADOR = 'getambassador.io/v3alpha1';
const secrets = ['istio-identity', 'istio-ca'].map((name) =>
  object('v1', 'Secret', 'emissary', name, { type: 'Opaque', data: { 'tls.crt': PEM, 'tls.key': PEM } }),
);
const contexts = [
  object(GETAMBASSADOR, 'TLSContext', 'emissary', 'istio', {
    spec: { hosts: [], secret: 'istio-identity', ca_secret: 'istio-ca' },
  }),
];
const listener = object(GETAMBASSADOR, 'Listener', 'emissary', 'http', {
  spec: { port: 8080, protocol: 'HTTP', securityModel: 'XFP', hostBinding: { namespace: { from: 'ALL' } } },
});

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

const difference = (mapping: KubeObject, { clusters = [], failure }: Judged): string | undefined => {
  assert.ok(seesMapping(mapping, DEFAULT_ENV));
  const ours = effectiveUpstream(mapping, contexts, secrets, DEFAULT_ENV);
  const fails = ours.errors.some((error) => error.includes('makes Emissary fail'));
  if (failure !== undefined || fails) return fails === (failure !== undefined) ? undefined : `fails: ${failure}`;
  if (clusters.length !== 1) return `${clusters.length} clusters`;
  const [{ name, host, port, tls, certificate } = {} as never] = clusters;
  const { cluster, mode } = ours;
  const theirs = { cluster: name, host, port, tls, certificate };
  const expected = {
    ...{ cluster, host: ours.host, port: ours.port, tls: mode !== 'plaintext', certificate: mode === 'mtls' },
  };
  return JSON.stringify(theirs) === JSON.stringify(expected)
    ? undefined
    : `${JSON.stringify(theirs)} and not ${JSON.stringify(expected)}`;
};

test(`doctor reads ${CASES} random Mappings as the Python code of Emissary 3.10.0 does`, async (t) => {
  const mappings = Array.from({ length: CASES }, (_, seed) => randomMapping(seed));
  const texts = mappings.map((mapping) =>
    [listener, ...contexts, ...secrets, mapping].map((one) => stringify(one)).join('---\n'),
  );
  const judged = await judgedByEmissary(texts);
  const differing = mappings.flatMap((mapping, at) => {
    const why = difference(mapping, judged[at] ?? {});
    return why === undefined
      ? []
      : [`${mapping.kind} ${mapping.metadata.namespace} ${JSON.stringify(mapping.spec)}: ${why}`];
  });
  t.diagnostic(`${judged.filter(({ failure }) => failure).length} at which that code fails as a whole`);
  assert.deepEqual(differing.slice(0, 20), [], `${differing.length} of ${CASES} differ`);
});
