import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { adapters as known } from '../../adapters/index.ts';
import { MESH_NAMES } from '../../adapters/names.ts';
import { systemClock } from '../../src/async/clock.ts';
import { admissionPolicy } from '../../src/config/admission.ts';
import { rbacFor } from '../../src/config/rbac.ts';
import { customResourceDefinition } from '../../src/config/schema/crd.ts';
import { validateObject } from '../../src/config/validate.ts';
import { areasOf, checksOf, diagnose } from '../../src/doctor/doctor.ts';
import { gateways } from '../../src/gateways.ts';
import type { Adapter } from '../../src/mesh/adapter.ts';
import type { Discover, Pods, Workload } from '../../src/mesh/cluster.ts';
import type { Check, CheckedObjects } from '../../src/mesh/object-check.ts';
import { fields, type KubeObject } from '../../src/objects/objects.ts';

import { showFindings } from '../../src/onboard/onboard.ts';
import { planOnboarding, showPlan } from '../../src/onboard/plan.ts';
import * as made from '../support/onboard-cluster.ts';

/** A mesh that src does not know, with every capability that an adapter may have. */
const MEMBER = 'nomad.example/member';

const discover: Discover = {
  sign: 'a Nomad server',
  configMaps: [],
  reads: () => [],
  installations: ({ workloads }) =>
    workloads
      .filter(({ metadata }) => metadata.name === 'nomad-server')
      .map(({ metadata: { namespace = '' } }) => ({ mesh: 'nomad', namespace, version: '1.10', problem: undefined })),
  show: ({ namespace }) => [`servers in ${namespace}`],
  configFor: ({ namespace }, account, targets) => ({ server: `nomad-server.${namespace}:4646`, account, targets }),
  remarks: () => ['nomad jobs are not looked at'],
};

const pods: Pods = {
  membership: ({ metadata }) => (metadata.annotations?.[MEMBER] ? { name: 'nomad' } : undefined),
  injected: ({ metadata }) => metadata.annotations?.[MEMBER] === 'always',
  intercepts: ({ metadata }) => (metadata.annotations?.[MEMBER] === 'always' ? 'remove the annotation' : undefined),
  notInjected: { [MEMBER]: 'never' },
};

const check: Check<CheckedObjects> = {
  code: 'MC9001',
  severity: 'error',
  title: 'The Nomad server is called by an address',
  *run({ all }) {
    for (const object of all('MeshCertificate')) {
      if (!/^\d/.test(String(fields(fields(object.spec).nomad).server))) continue;
      yield { object, message: 'its certificate has no address', fix: 'use its name' };
    }
  },
};

const nomad: Adapter = {
  mesh: 'nomad',
  title: 'Nomad',
  config: { parse: (input) => input },
  tls: {},
  tokenFields: [{ path: 'account', names: 'account' }],
  expect: () => ({ form: 'spiffe' }),
  needs: (config) => [{ kind: 'address', address: String(fields(config).server), field: 'nomad.server' }],
  open: () => ({
    issue: () => Promise.reject(new Error('not asked here')),
    async *targets() {
      const identify = ({ serviceAccount, namespace }: Workload) => ({ id: `${serviceAccount}.${namespace}` });
      yield { discover: true, listed: [], identify };
    },
    async [Symbol.asyncDispose]() {},
  }),
  sniPerTarget: true,
  discover,
  pods,
  checks: [check],
};

const adapters = [...known, nomad];
const { signal } = new AbortController();

const [service, pod, slice] = made.app('none', 'web', 'shop');
assert.ok(service && pod && slice);
const member = { ...pod, metadata: { ...pod.metadata, annotations: { [MEMBER]: 'yes' } } };
const cluster = [
  made.gateway(),
  made.workload({ name: 'nomad-server', namespace: 'nomad', image: 'nomad:1.10' }),
  ...[service, member, slice],
  made.mapping('web', 'shop', { service: 'web' }),
];

const plan = (objects: readonly KubeObject[] = cluster) =>
  planOnboarding(
    made.snapshotOf(objects),
    { changes: [] },
    new Map(),
    { adapters, gateways, clock: systemClock },
    signal,
  );

it('the names of the meshes are those of the adapters, in their order', () => {
  assert.deepEqual(
    MESH_NAMES,
    known.map(({ mesh }) => mesh),
  );
});

describe('a further mesh needs only its adapter', () => {
  it('to be found, joined and shown by onboard', async () => {
    const found = await plan();
    const [joined] = found.joined;
    assert.equal(joined?.mesh, 'nomad');
    const config = { server: 'nomad-server.nomad:4646', account: 'emissary-ingress' };
    const { targets, ...rest } = fields(fields(joined?.document?.spec).nomad);
    assert.deepEqual([rest, targets], [config, [{ serviceAccount: 'web', namespace: 'shop' }]]);
    assert.deepEqual(
      found.verdicts.map(({ outcome }) => [outcome.kind, 'mesh' in outcome && outcome.mesh]),
      [['move', 'nomad']],
    );
    const text = `${showFindings(found.findings, found.gateway, found.verdicts, adapters)}${showPlan(found)}`;
    assert.match(text, /nomad {2,}servers in nomad/);
    assert.match(text, /nomad jobs are not looked at/);
    assert.match(text, /can move to nomad/);
  });

  it('to be named when no mesh is found', async () => {
    const error = await plan([made.gateway()]).catch((cause: Error) => cause);
    assert.match((error as Error).message, /nor a Nomad server was found/);
  });

  it('to be judged by doctor', () => {
    const metadata = { name: 'edge', namespace: 'emissary' };
    const spec = { nomad: { server: '10.0.0.1:4646' } };
    const annotated = made.gateway();
    const gateway = { ...annotated, metadata: { ...annotated.metadata, annotations: { [MEMBER]: 'always' } } };
    const certificate = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', metadata, spec };
    const context = {
      ...{ apiVersion: 'getambassador.io/v3alpha1', kind: 'TLSContext', metadata },
      spec: { secret: 'edge-identity', ca_secret: 'edge-ca', hosts: [] },
    };
    const mapping = made.mapping('web', 'emissary', { service: 'https://web.shop:80', tls: 'edge' });
    const objects = [gateway, certificate, context, mapping];
    const found = diagnose({ objects, adapters, now: 0, whole: new Set() });
    assert.deepEqual(
      found.filter(({ code }) => ['MC9001', 'MC1406'].includes(code)).map(({ code, fix }) => [code, fix]),
      [
        ['MC9001', 'use its name'],
        ['MC1406', 'remove the annotation'],
      ],
    );
    assert.ok(checksOf(adapters).some(({ code }) => code === 'MC9001'));
    assert.deepEqual(areasOf(adapters).at(-1), { prefix: 'MC90', name: 'Nomad' });
  });

  it('to be in the definition, the Roles and the admission policy', () => {
    const definition = JSON.stringify(customResourceDefinition(adapters, gateways));
    const names = adapters.map(({ mesh }) => mesh).join(', ');
    assert.ok(definition.includes(`exactly one of ${names} must be set`), names);
    const account = { name: 'meshcert', namespace: 'emissary' };
    const policy = JSON.stringify(admissionPolicy({ adapters, name: 'meshcert', serviceAccount: account }));
    assert.match(policy, /object\.spec\.\?nomad\.\?account\.hasValue\(\)/);
    assert.match(policy, /object\.spec != oldObject\.spec/);
    const document = {
      ...{
        apiVersion: 'meshcert.dev/v1alpha1',
        kind: 'MeshCertificate',
        metadata: { name: 'edge', namespace: 'emissary' },
      },
      spec: { nomad: { server: 'nomad-server.nomad:4646' } },
    };
    const valid = validateObject(document, adapters, gateways);
    assert.ok(valid.ok);
    const options = { adapters, gateways, serviceAccount: account, leaseName: 'meshcert', shards: 1, resources: true };
    assert.match(JSON.stringify(rbacFor([valid.value], { ...options, name: 'meshcert' })), /"endpointslices"/);
  });
});
