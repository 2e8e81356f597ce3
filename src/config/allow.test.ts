import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { gateways } from '../gateways.ts';
import { ALLOW_ANY, type AllowList, allowing } from './allow.ts';
import { formatPath, validator } from './validate.ts';

const certificate = (spec: object) => ({
  apiVersion: 'meshcert.dev/v1alpha1',
  kind: 'MeshCertificate',
  metadata: { name: 'mesh', namespace: 'shop' },
  spec,
});

/** The refused fields, each with the refused value. */
function refused(spec: object, allow: AllowList): string[] {
  const result = allowing(validator(adapters, gateways), adapters, allow)(certificate(spec));
  if (result.ok) return [];
  assert.equal(result.code, 'ERR_NOT_ALLOWED', JSON.stringify(result.issues));
  return result.issues.map(
    ({ path, message }) => `${formatPath(path)}: ${/does not allow (.*?) \(/.exec(message)?.[1]}`,
  );
}

const NOTHING: AllowList = { serviceAccounts: [], audiences: [], addresses: [] };
const TLS = { inline: 'PEM' };

const cases: [spec: object, fields: string[], allow: AllowList][] = [
  [
    { istio: { ca: { serviceAccount: 'gateway' } } },
    [
      'spec.istio.ca.address: address istiod.istio-system.svc:15012',
      'spec.istio.ca.serviceAccount: ServiceAccount shop/gateway',
      'spec.istio.ca.serviceAccount: token audience istio-ca',
    ],
    { serviceAccounts: ['shop/gateway'], audiences: ['istio-ca'], addresses: ['istiod.istio-system.svc:15012'] },
  ],
  [
    { istio: { sds: { socket: '/run/spire/agent.sock' } }, probe: { address: 'web.shop:443' } },
    ['spec.istio.sds.socket: address unix:/run/spire/agent.sock', 'spec.probe.address: address web.shop:443'],
    { ...NOTHING, addresses: ['unix:/run/spire/agent.sock', '*.shop:443'] },
  ],
  [
    { spiffe: { socket: '/run/spire/agent.sock' } },
    ['spec.spiffe.socket: address unix:/run/spire/agent.sock'],
    { ...NOTHING, addresses: ['unix:/run/spire/agent.sock'] },
  ],
  [
    { file: { directory: '/var/run/secrets/meshcert/certs' } },
    ['spec.file.directory: address file:/var/run/secrets/meshcert/certs'],
    { ...NOTHING, addresses: ['file:/var/run/secrets/meshcert/*'] },
  ],
  [
    { linkerd: { serviceAccount: { name: 'gateway', namespace: 'edge' }, address: 'l5d.test:8080' } },
    [
      'spec.linkerd.serviceAccount: ServiceAccount edge/gateway',
      'spec.linkerd.serviceAccount: token audience identity.l5d.io',
      'spec.linkerd.address: address l5d.test:8080',
    ],
    { serviceAccounts: ['edge/*'], audiences: ['identity.l5d.io'], addresses: ['l5d.test'] },
  ],
  [
    { linkerd: { tokenFile: '/var/run/secrets/meshcert/l5d', clusterDomain: 'evil.test' } },
    ['spec.linkerd.clusterDomain: address linkerd-identity-headless.linkerd.svc.evil.test:8080'],
    { ...NOTHING, addresses: ['linkerd-identity-headless.linkerd.svc.evil.test:8080'] },
  ],
  [
    {
      consul: {
        datacenter: 'dc1',
        grpc: { addresses: ['consul.test:8502', '[::1]:8502'], tls: { ca: TLS } },
        auth: { login: { method: 'm', serviceAccount: 'gateway', audience: 'consul' } },
      },
    },
    [
      'spec.consul.grpc.addresses[0]: address consul.test:8502',
      'spec.consul.grpc.addresses[1]: address [::1]:8502',
      'spec.consul.auth.login.serviceAccount: ServiceAccount shop/gateway',
      'spec.consul.auth.login.serviceAccount: token audience consul',
    ],
    { serviceAccounts: ['*/gateway'], audiences: ['consul'], addresses: ['consul.*:8502', '[::1]:8502'] },
  ],
  [
    { consul: { http: { address: 'https://Consul.test/' } } },
    ['spec.consul.http.address: address consul.test:443'],
    { ...ALLOW_ANY, addresses: ['CONSUL.test'] },
  ],
  [
    { consul: { http: { address: 'unix:///run/consul.sock' } } },
    ['spec.consul.http.address: address unix:/run/consul.sock'],
    { ...ALLOW_ANY, addresses: ['*'] },
  ],
];

for (const [spec, fields, allow] of cases) {
  const title = JSON.stringify(spec);
  test(`each account, audience and address must be allowed: ${title}`, () => {
    assert.deepEqual(refused(spec, NOTHING), fields);
    assert.deepEqual(refused(spec, allow), []);
    assert.deepEqual(refused(spec, ALLOW_ANY), []);
  });
}

const address = (given: string) => ({ istio: { ca: { address: given, serviceAccount: 'a', tokenFile: undefined } } });
const near: [allowed: string, address: string][] = [
  ['istiod.istio-system.svc:15012', 'istiod.istio-system.svc:15013'],
  ['istiod.istio-system.svc:15012', 'istiod.istio-system.svc.evil.test:15012'],
  ['istiod.*.svc:15012', 'istiod.evil.test.svc:15012'],
  ['istiod.*.svc:15012', 'istiod..svc:15012'],
  ['*.svc:15012', 'evil.test:15012'],
  ['istiod', 'istiod.evil:15012'],
  ['i.s', 'ixs:15012'],
  ['unix:/run/*', 'run:15012'],
  ['file:/run/*', 'run:15012'],
  ['10.0.0.1', '10.0.0.10:15012'],
];
for (const [allowed, given] of near) {
  test(`${allowed} does not allow ${given}`, () => {
    assert.equal(refused(address(given), { ...ALLOW_ANY, addresses: [allowed] }).length, 1);
  });
}

test('an entry with many stars is compared as its pattern says, whatever the address', () => {
  const allows = (allowed: string, given: string) =>
    refused(address(given), { ...ALLOW_ANY, addresses: [allowed] }).length === 0;
  assert.ok(allows('a*b*c.*:15012', 'aXbYbZc.test:15012'));
  assert.ok(allows('*a*a*:15012', 'xaaaa:15012'));
  assert.ok(!allows('*a*a*:15012', 'aaa:15012'));
  assert.ok(!allows('*ab:15012', 'ab:15012'));
  assert.ok(!allows(`${'*a'.repeat(60)}b`, `${'a'.repeat(250)}:15012`));
});

test('a refusal says what is allowed and how to allow more', () => {
  const allow = { ...ALLOW_ANY, serviceAccounts: ['shop/web', 'shop/api'] };
  const result = allowing(
    validator(adapters, gateways),
    adapters,
    allow,
  )(certificate({ istio: { ca: { serviceAccount: 'gateway' } } }));
  assert.deepEqual(result.ok || result.issues.map(({ message }) => message), [
    'the agent does not allow ServiceAccount shop/gateway (allowed: shop/web, shop/api); to allow it, start the agent with --allow-service-account=shop/gateway (chart value allow.serviceAccounts)',
  ]);
});
