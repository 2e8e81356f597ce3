import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { adapters } from '../../adapters/index.ts';
import { type SandboxCluster, startCluster } from '../../sandbox/cluster/cluster.ts';
import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import { sandboxes } from '../../sandbox/meshes.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { validateObject } from '../../src/config/validate.ts';
import { gateways } from '../../src/gateways.ts';
import { exampleOf, material, objectsOf, readExamples } from './examples.ts';
import { doctorReport, states } from './run-doctor.ts';

const { texts } = material();
const { gatewayApi } = readExamples();
const ALLOW = { 'meshcert.dev/allow-from': 'emissary' };
const ACCOUNT = { name: 'meshcert', namespace: 'emissary' };
const AGENT = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: ACCOUNT,
  spec: {
    template: {
      metadata: { labels: { app: 'meshcert' } },
      spec: {
        serviceAccountName: ACCOUNT.name,
        containers: [{ name: 'agent', image: 'ghcr.io/example/meshcert:1.0.0', args: ['agent'] }],
      },
    },
  },
};

describe('doctor in a cluster with MeshCertificates for Gateway API', () => {
  let cluster: SandboxCluster;
  const put = (...objects: readonly object[]) => {
    for (const object of objects) cluster.api.put(object);
  };
  const doctor = (...flags: readonly string[]) =>
    doctorReport(cluster.kubeconfig(), '--no-issue', '--timeout', '1s', ...flags);
  const [certificate] = objectsOf(texts, exampleOf('MC5101'));
  const definitions = () => gatewayApiDefinitions() as unknown as { metadata: { name: string; annotations: object } }[];

  before(async () => {
    cluster = await startCluster({ meshes: [], sandboxes, api: { rbac: true } });
    assert.ok(certificate);
    put({ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } });
    put(
      ...[customResourceDefinition(adapters, gateways), AGENT, certificate],
      ...['emissary', 'meshcert'].map((name) => ({
        ...{ apiVersion: 'v1', kind: 'ServiceAccount' },
        metadata: { name, namespace: 'emissary' },
      })),
    );
  });
  after(() => cluster?.stop());

  it('says that the definitions are missing, and nothing of those of Emissary', async () => {
    const { findings } = await doctor();
    const missing = findings.filter(({ code }) => code === 'MC6004');
    assert.deepEqual(
      missing.map(({ object }) => object.name),
      ['backendtlspolicies.gateway.networking.k8s.io'],
    );
    assert.match(missing[0]?.message ?? '', /does not know gateway\.networking\.k8s\.io/);
  });

  it('accepts the standard channel, and warns of the experimental one', async () => {
    put(...definitions());
    const standard = await doctor();
    assert.ok(states(standard, 'MC6004').includes('MC6004 passed'), standard.text);
    assert.deepEqual(states(standard, 'MC6013'), []);
    const policies = definitions().filter(({ metadata }) => metadata.name.startsWith('backendtlspolicies'));
    const annotations = {
      'gateway.networking.k8s.io/channel': 'experimental',
      'gateway.networking.k8s.io/bundle-version': 'v1.6.1',
    };
    for (const one of policies) {
      put({ ...one, metadata: { ...one.metadata, annotations: { ...one.metadata.annotations, ...annotations } } });
    }
    const { findings } = await doctor();
    const [found] = findings.filter(({ code }) => code === 'MC6013');
    assert.match(found?.message ?? '', /v1\.6\.1 of the experimental channel/);
  });

  it('names the rights that the agent lacks, until the printed Roles are applied', async () => {
    const lacking = async () => (await doctor()).findings.find(({ code }) => code === 'MC6008')?.message;
    assert.match((await lacking()) ?? '', /may not create leases/);
    const result = validateObject(certificate, adapters, gateways);
    assert.ok(result.ok);
    const options = { serviceAccount: ACCOUNT, leaseName: 'meshcert', shards: 1, resources: true, name: 'meshcert' };
    const roles = rbacFor([result.value], { ...options, adapters, gateways });
    put(...roles.filter(({ kind }) => !kind.startsWith('Cluster')));
    assert.match((await lacking()) ?? '', /may not get gatewayclasses\.gateway\.networking\.k8s\.io in all namespaces/);
    put(...roles);
    assert.equal(await lacking(), undefined);
  });

  it('finds the traps in what it reads: policies, their ConfigMaps, Gateways and their Secrets', async () => {
    const objects = objectsOf(texts, gatewayApi, exampleOf('MC1701'), exampleOf('MC1605'), exampleOf('MC5101'));
    for (const object of objects) {
      const { namespace: _, ...metadata } = object.metadata;
      put(object.kind === 'GatewayClass' ? { ...object, metadata } : object);
    }
    const { findings } = await doctor();
    const codes = findings.map(({ code, object }) => `${code} ${object.kind} ${object.name}`);
    for (const wanted of ['MC1605 Secret mesh-identity', 'MC1701 ConfigMap mesh-ca', 'MC5101 Gateway other'])
      assert.ok(codes.includes(wanted), `${wanted} in ${codes.join('\n')}`);
  });

  it('does not miss in one namespace what is in another', async () => {
    const object = (kind: string, namespace: string, spec: object) => ({
      ...{ apiVersion: 'v1', kind, spec },
      metadata: { name: 'elsewhere', namespace, labels: { is: 'elsewhere' }, annotations: ALLOW },
    });
    const ports = [{ name: 'https', port: 443 }];
    const selector = { matchLabels: { is: 'elsewhere' } };
    const both = { backends: { selector, namespaces: ['shop'] }, services: { selector, namespaces: ['shop'] } };
    const backend = { endpoints: [{ fqdn: { hostname: 'elsewhere.shop.svc.cluster.local', port: 443 } }] };
    put(
      object('Service', 'shop', { ports }),
      // Kinds of which nothing was read are unknown in any case.
      ...[
        ['v1', 'Service'],
        ['v1', 'Pod'],
        ['discovery.k8s.io/v1', 'EndpointSlice'],
      ].map(([apiVersion, kind]) => ({ apiVersion, kind, metadata: { name: 'other', namespace: 'emissary' } })),
      { ...object('Backend', 'emissary', backend), apiVersion: 'gateway.envoyproxy.io/v1alpha1' },
      {
        ...object('MeshCertificate', 'emissary', {
          istio: { ca: { serviceAccount: 'emissary' } },
          gatewayApi: { gateways: { selector: { matchLabels: { mesh: 'istio' } } }, ...both },
        }),
        apiVersion: 'meshcert.dev/v1alpha1',
      },
    );
    const { findings } = await doctor('-n', 'emissary');
    const about = findings.filter(
      ({ code, object: { name } }) => name === 'elsewhere' && ['MC5101', 'MC5102'].includes(code),
    );
    assert.deepEqual(about, []);
  });
});
