import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fields, type KubeObject } from '../../src/objects/objects.ts';

import {
  BACKENDS,
  backend,
  backendRoute,
  gatewayClass,
  LABELS,
  pod,
  SPEC,
  service,
  slice,
} from '../support/gateway-api.ts';
import { all, STANDARD, start } from '../support/gateway-api-world.ts';

/** Its ConfigMap comes before that of `shop`, and its Service consents. */
const TENANT = 'a-tenant';
const inTenant = (object: KubeObject): KubeObject => ({
  ...object,
  metadata: { ...object.metadata, namespace: TENANT },
  ...(object.endpoints
    ? { endpoints: [{ addresses: ['10.0.0.9'], targetRef: { kind: 'Pod', name: 'web-1', namespace: TENANT } }] }
    : {}),
});
const theirs = [service(), pod('web-1'), slice(['web-1'])].map(inTenant);
const squatting: KubeObject = {
  ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'istio-ca', namespace: TENANT } },
  data: { 'ca.crt': 'roots of the tenant' },
};
const both = { gatewayApi: { ...SPEC, services: { ...SPEC.services, namespaces: [TENANT, 'shop'] } } };
const api = [service({}, {}, 'api'), pod('api-1', 'api', 'api'), slice(['api-1'], 'api')];

describe('an object of one namespace that cannot be written', () => {
  it('stops nothing in other namespaces: new Services get policies, and the certificate rotates', async () => {
    await using it = await start([...all, ...theirs, squatting], undefined, [TENANT]);
    const { world } = it;
    world.run(both);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('it is said', () => world.condition('Degraded')?.status === 'True');
    const published = world.condition('Published');
    assert.equal(published?.status, 'True', 'who may create a ConfigMap in one namespace made all of it unpublished');
    assert.match(published?.message ?? '', /cannot be written in other namespaces: ConfigMap a-tenant\/istio-ca, /);
    assert.match(world.status?.lastError?.message ?? '', /ConfigMap a-tenant\/istio-ca was not created by meshcert/);
    const policyOf = (name: string, namespace: string) =>
      world.kube.get({ apiVersion: STANDARD, kind: 'BackendTLSPolicy', name, namespace });
    assert.equal(await policyOf('istio-web-https', TENANT), undefined, 'it would trust the roots of the tenant');
    for (const one of api) world.api.put(one);
    await world.until('a further policy', async () => (await policyOf('istio-api-https', 'shop')) !== undefined);
    const leaf = await world.leaf();
    await world.until('the rotation', async () => (await world.leaf()) !== leaf, 60_000);
    const next = await world.leaf();
    await world.until('the status of the next leaf', () => world.status?.fingerprint === next);
    const ref = { apiVersion: 'v1', kind: 'ConfigMap', name: 'istio-ca', namespace: TENANT };
    await world.kube.delete(ref, {});
    await world.until('the rest', async () => (await policyOf('istio-web-https', TENANT)) !== undefined);
    await world.until('all is well', () => world.condition('Degraded')?.status === 'False');
    assert.doesNotMatch(world.condition('Published')?.message ?? '', /cannot be written/);
  });

  it('is tried again with pauses, while everything else is written at once, changed and deleted', async () => {
    await using it = await start(
      [gatewayClass(), backend(), ...all.slice(3, 6), ...theirs, backendRoute()],
      undefined,
      [TENANT],
    );
    const { world } = it;
    let tried = 0;
    const lift = world.api.fault({
      match: ({ verb, plural, namespace }) => verb === 'create' && plural === 'configmaps' && namespace === TENANT,
      status: 422,
      met: () => {
        tried += 1;
      },
    });
    const backends = { ...BACKENDS.backends, namespaces: [TENANT, 'shop'] };
    const far = backend({}, { namespace: TENANT, annotations: { 'meshcert.dev/allow-from': 'emissary' } }, 'far');
    world.api.put({ ...far, spec: { endpoints: [{ ip: { address: '10.0.0.9', port: 443 } }] } });
    world.run({
      gatewayApi: {
        clientCertificate: 'EnvoyProxy',
        gateways: { selector: { matchLabels: LABELS } },
        services: { selector: { matchLabels: LABELS }, namespaces: [TENANT, 'shop'] },
        backends,
      },
    });
    for (const one of all.slice(1, 3)) world.api.put(one);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('a few attempts', () => tried > 3);
    const before = tried;
    for (let at = 0; at < 20; at += 1) {
      const name = `further${at}`;
      for (const one of [service({}, {}, name), pod(`${name}-1`, name, name), slice([`${name}-1`], name)]) {
        world.api.put(one);
      }
      const wanted = { apiVersion: STANDARD, kind: 'BackendTLSPolicy', name: `istio-${name}-https`, namespace: 'shop' };
      await world.until(name, async () => (await world.kube.get(wanted)) !== undefined);
    }
    assert.ok(tried - before < 20, `${tried - before} attempts for 20 other changes`);
    world.api.put(service({}, { labels: {} }, 'further0'));
    const gone = { apiVersion: STANDARD, kind: 'BackendTLSPolicy', name: 'istio-further0-https', namespace: 'shop' };
    await world.until('what is not needed goes', async () => (await world.kube.get(gone)) === undefined);
    lift();
    await world.until('all is well', () => world.condition('Degraded')?.status === 'False', 5_000);
    assert.ok(fields((await it.configMap())?.data)['ca.crt']);
  });
});
