import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Sink } from '../../src/agent/reporter.ts';
import { fields, type KubeObject, refOf } from '../../src/objects/objects.ts';
import { NAMESPACE } from '../support/agent-world.ts';
import {
  BACKENDS,
  backend,
  backendRoute,
  clientCertificateRef,
  envoyProxy,
  gateway,
  gatewayClass,
  httpRoute,
  namesOf,
  pod,
  SPEC,
  service,
  slice,
  without,
} from '../support/gateway-api.ts';
import { all, spec, start } from '../support/gateway-api-world.ts';

describe('a MeshCertificate for Gateway API', () => {
  it('writes the pair, the certificate of the Gateway, the trust bundle and then the policy, and no TLSContext', async () => {
    await using it = await start();
    const { world } = it;
    world.run(spec);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.until('all is shown', () => world.condition('Referenced')?.status === 'True');
    assert.deepEqual(fields((await it.policy())?.spec), {
      targetRefs: [{ group: '', kind: 'Service', name: 'web', sectionName: 'https' }],
      validation: {
        caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'istio-ca' }],
        hostname: 'web.shop.svc.cluster.local',
        subjectAltNames: [{ type: 'URI', uri: 'spiffe://toy/ns/shop/sa/web' }],
      },
    });
    assert.equal(fields((await it.configMap())?.data)['ca.crt'], world.mesh.ca.root.pem);
    assert.deepEqual(fields((await it.proxy())?.spec), {
      backendTLS: { clientCertificateRef, alpnProtocols: ['istio'] },
    });
    const writes = it.writes();
    const order = [
      'create secrets istio-identity',
      'patch envoyproxies proxy',
      'create configmaps',
      'create backendtlspolicies',
    ];
    const places = order.map((what) => writes.findIndex((one) => one.startsWith(what.replace(/ istio-identity$/, ''))));
    assert.deepEqual(
      places,
      places.toSorted((a, b) => a - b),
      writes.join(),
    );
    assert.ok(
      places.every((place) => place >= 0),
      writes.join(),
    );
    assert.ok(!writes.some((one) => one.includes('tlscontexts')));
    assert.deepEqual(
      world.status?.mappings.map(({ kind, name, state, context }) => [kind, name, state, context]),
      [
        ['EnvoyProxy', 'proxy', 'ok', 'istio-identity'],
        ['Service', 'web', 'ok', 'istio-web-https'],
      ],
    );
    assert.equal(world.condition('Referenced')?.reason, 'AllServices');
  });

  it('reports what others have changed as repaired, and not what is written for a further Service', async () => {
    await using it = await start();
    const { world } = it;
    const repaired: string[] = [];
    let inForce: readonly string[] = [];
    const sink: Sink = {
      status(_status, _before, report) {
        if (report.repair)
          repaired.push(...(report.outcome?.written ?? []).map(({ ref }) => `${ref.kind} ${ref.name}`));
        if (report.inForce) inForce = (report.decision?.desired ?? []).map(({ object }) => object.metadata.name);
      },
    };
    world.run(spec, [sink]);
    await world.until('the policy', () => inForce.includes('istio-web-https'));
    for (const one of [pod('api-1', 'api', 'api'), slice(['api-1'], 'api'), service({}, {}, 'api')]) world.api.put(one);
    await world.until('a further policy', () => inForce.includes('istio-api-https'));
    assert.deepEqual(repaired, []);
    await world.kube.delete({ apiVersion: 'v1', kind: 'ConfigMap', namespace: 'shop', name: 'istio-ca' }, {});
    await world.until('the repair', () => repaired.length > 0);
    assert.deepEqual(repaired, ['ConfigMap istio-ca']);
  });

  it('feeds Emissary too when fields of both are given', async () => {
    await using it = await start();
    const { world } = it;
    world.run({ ...spec, tlsContext: {} });
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    assert.equal(fields((await world.context())?.spec).secret, 'istio-identity');
  });

  it('requires a further account as soon as its pod exists, and the old one until its pod is gone', async () => {
    await using it = await start();
    const { world } = it;
    world.run(spec);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    world.api.put(pod('web-2', 'web-new'));
    await world.until('the further name', async () => namesOf(await it.policy()).length === 2);
    assert.deepEqual(namesOf(await it.policy()), ['spiffe://toy/ns/shop/sa/web', 'spiffe://toy/ns/shop/sa/web-new']);
    world.api.put(slice(['web-2']));
    await world.kube.delete({ apiVersion: 'v1', kind: 'Pod', namespace: 'shop', name: 'web-1' }, {});
    await world.until('the old name goes', async () => namesOf(await it.policy()).length === 1);
    assert.deepEqual(namesOf(await it.policy()), ['spiffe://toy/ns/shop/sa/web-new']);
  });

  it('writes the newest root first, in each namespace, while two are trusted', async () => {
    await using it = await start();
    const { world } = it;
    world.run(spec);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    const before = world.mesh.ca;
    const now = world.clock.now();
    const next = SandboxCa.root({ notBefore: now, notAfter: before.root.notAfter + 86_400_000 });
    world.mesh.rotate(before, [next.root, before.root]);
    const both = `${next.root.pem}${before.root.pem}`;
    const text = async () => fields((await it.configMap())?.data)['ca.crt'];
    await world.until('both roots', async () => (await text()) === both);
    assert.equal(namesOf(await it.policy()).length, 1);
  });

  it('makes Envoy Gateway read the Secret of a Gateway again, by an EnvoyProxy that none uses', async () => {
    await using it = await start();
    const { world } = it;
    world.run({ gatewayApi: { ...SPEC, clientCertificate: 'Gateway' } });
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    assert.deepEqual(fields(fields((await it.gateway())?.spec).tls), { backend: { clientCertificateRef } });
    assert.deepEqual(fields((await it.proxy('istio-reread'))?.spec), { backendTLS: { clientCertificateRef } });
    assert.deepEqual(fields((await it.proxy())?.spec), {}, 'the other place is left alone');
  });

  it('gives a Backend the certificate and then a policy, and keeps both as long as they are used', async () => {
    const bare = service({ ports: [{ port: 443, targetPort: 8443 }] });
    const istiod = gatewayClass('istio', 'istio.io/gateway-controller');
    await using it = await start([gatewayClass(), istiod, backend(), bare, pod('web-1'), backendRoute()]);
    const { world } = it;
    world.putCertificate({ gatewayApi: BACKENDS, deletionPolicy: 'Delete' });
    world.follow();
    await world.until('the policy', async () => (await it.backendPolicy()) !== undefined);
    assert.deepEqual(fields((await it.backend())?.spec).tls, { clientCertificateRef, alpnProtocols: ['istio'] });
    assert.deepEqual(fields((await it.backendPolicy())?.spec), {
      targetRefs: [{ group: 'gateway.envoyproxy.io', kind: 'Backend', name: 'web' }],
      validation: {
        caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: 'istio-ca' }],
        hostname: 'web.shop.svc.cluster.local',
        subjectAltNames: [{ type: 'URI', uri: 'spiffe://toy/ns/shop/sa/web' }],
      },
    });
    const place = it.writes().indexOf('patch backends web');
    assert.ok(place >= 0 && place < it.writes().indexOf('create backendtlspolicies'), it.writes().join());
    await world.until('all is shown', () => world.condition('Referenced')?.status === 'True');

    const ref = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace: NAMESPACE, name: 'istio' };
    await world.kube.delete(ref, {});
    await world.until('it waits', () => world.status?.lastError?.code === 'ERR_RETIRE_WAITS');
    assert.match(world.status?.lastError?.message ?? '', /Backend emissary\/web/);
    world.api.put({ ...backendRoute(), spec: { rules: [] } });
    world.api.put(backend({}, { labels: {} }));
    await world.until('all is gone', async () => (await world.kube.get(ref)) === undefined);
    assert.deepEqual([await it.backendPolicy(), await world.secret('istio-identity')], [undefined, undefined]);
  });

  it('sets no certificate in a Backend whose policy cannot be known, which would then serve nobody', async () => {
    const ip = backend({ endpoints: [{ ip: { address: '10.0.0.1', port: 443 } }] });
    await using it = await start([gatewayClass(), ip]);
    const { world } = it;
    world.run({ gatewayApi: BACKENDS });
    await world.until('it is refused', () => it.stateOf('Backend') === 'ERR_TARGET_NOT_IN_CLUSTER');
    assert.equal(fields((await it.backend())?.spec).tls, undefined);
    assert.equal(await it.backendPolicy(), undefined);
  });

  it('says that the cluster serves no Backends, though there is no object that could be selected', async () => {
    await using it = await start([], []);
    const { world } = it;
    world.run({ gatewayApi: BACKENDS });
    await world.until('it is said', () => it.stateOf('CustomResourceDefinition') === 'ERR_GATEWAY_CRD_MISSING');
    assert.equal(world.condition('Referenced')?.reason, 'ServicesLeftAlone');
  });

  it('lets a Gateway of another namespace name the Secret only after it consents, and then by a ReferenceGrant', async () => {
    const others = all.filter(({ kind }) => !/Gateway$|EnvoyProxy/.test(kind));
    await using it = await start([...others, gateway({}, { namespace: 'shop' })]);
    const { world } = it;
    const gateways = { ...SPEC.gateways, namespaces: ['shop'] };
    world.run({ gatewayApi: { ...SPEC, gateways, clientCertificate: 'Gateway' } });
    await world.until('it is refused', () => it.stateOf('Gateway') === 'ERR_TARGET_NO_CONSENT');
    assert.equal(await it.grant(), undefined);
    world.api.put(gateway({}, { namespace: 'shop', annotations: { 'meshcert.dev/allow-from': NAMESPACE } }));
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    assert.deepEqual((await it.grant())?.spec, {
      from: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', namespace: 'shop' }],
      to: [{ group: '', kind: 'Secret', name: 'istio-identity' }],
    });
    const order = ['create referencegrants', 'patch gateways edge', 'create backendtlspolicies'];
    const places = order.map((what) => it.writes().findIndex((one) => one.startsWith(what)));
    assert.deepEqual(
      places,
      places.toSorted((a, b) => a - b),
      it.writes().join(),
    );
    assert.ok(!places.includes(-1), it.writes().join());
  });

  it('lets in the Gateways of 40 namespaces, by one ReferenceGrant each, and a further one without rewriting others', async () => {
    const others = all.filter(({ kind }) => !/Gateway$|EnvoyProxy/.test(kind));
    const places = Array.from({ length: 40 }, (_, at) => `edge${at}`);
    const consenting = (namespace: string) =>
      gateway({}, { namespace, annotations: { 'meshcert.dev/allow-from': NAMESPACE } });
    await using it = await start([...others, ...places.slice(1).map(consenting)], undefined, places);
    const { world } = it;
    const gateways = { ...SPEC.gateways, namespaces: places };
    world.run({ gatewayApi: { ...SPEC, gateways, clientCertificate: 'Gateway' } });
    const policies = async () => (await it.policy()) !== undefined;
    await world.until('the policy', policies);
    const grants = () => it.writes().filter((one) => one.includes('referencegrants'));
    assert.equal(grants().length, 39);
    world.api.put(consenting('edge0'));
    await world.until(
      'the further one',
      () => it.writes().filter((one) => one.startsWith('patch gateways')).length === 40,
    );
    assert.deepEqual(grants().slice(39), ['create referencegrants']);
  });

  it('grants nothing to a Gateway of any namespace that merely names the Secret, nor waits for it at the end', async () => {
    const tenant = gateway({ tls: { backend: { clientCertificateRef } } }, { namespace: 'tenant', labels: {} });
    await using it = await start([...all, tenant], undefined, ['tenant']);
    const { world } = it;
    const gateways = { ...SPEC.gateways, namespaces: ['*'] };
    world.putCertificate({ gatewayApi: { ...SPEC, gateways, clientCertificate: 'Gateway' }, deletionPolicy: 'Delete' });
    world.follow();
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    assert.ok(!it.writes().some((one) => one.includes('referencegrants')), it.writes().join());
    const ref = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace: NAMESPACE, name: 'istio' };
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    world.api.put(gateway({}, { labels: {} }));
    await world.kube.delete(ref, {});
    await world.until('all is gone', async () => (await world.kube.get(ref)) === undefined);
    assert.equal(await world.secret('istio-identity'), undefined);
  });

  it('replaces the one ReferenceGrant that an earlier version wrote, after those that follow it exist', async () => {
    const others = all.filter(({ kind }) => !/Gateway$|EnvoyProxy/.test(kind));
    const annotations = { 'meshcert.dev/allow-from': NAMESPACE };
    await using it = await start([...others, gateway({}, { namespace: 'shop', annotations })]);
    const { world } = it;
    const gateways = { ...SPEC.gateways, namespaces: ['shop'] };
    const given = { gatewayApi: { ...SPEC, gateways, clientCertificate: 'Gateway' } };
    world.run(given);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    await world.stop();
    const now = await it.grant();
    assert.ok(now);
    await world.kube.delete(refOf(now), {});
    const { name: _, resourceVersion: __, uid: ___, ...metadata } = now.metadata;
    world.api.put({ ...now, metadata: { ...metadata, name: 'istio-gateways' } });
    const before = it.writes().length;
    world.run(given);
    await world.until('the old one goes', () => it.writes().includes('delete referencegrants istio-gateways'));
    const writes = it.writes().slice(before);
    const created = writes.findIndex((one) => one.startsWith('create referencegrants'));
    assert.ok(created >= 0 && created < writes.indexOf('delete referencegrants istio-gateways'), writes.join());
    assert.ok(await it.grant());
  });

  it('writes nothing for a Service that does not consent, until it does', async () => {
    await using it = await start([...all.filter(({ kind }) => kind !== 'Service'), without(service(), 'annotations')]);
    const { world } = it;
    world.run(spec);
    await world.until('it is refused', () => it.stateOf('Service') === 'ERR_TARGET_NO_CONSENT');
    assert.deepEqual([await it.policy(), await it.configMap()], [undefined, undefined]);
    assert.equal(world.condition('Referenced')?.reason, 'ServicesLeftAlone');
    world.api.put(service());
    await world.until('the policy', async () => (await it.policy()) !== undefined);
  });

  it('says that the cluster serves no Gateway API, and serves the Gateways once it does', async () => {
    await using it = await start([service(), pod('web-1'), slice(['web-1'])], []);
    const { world } = it;
    world.run(spec);
    await world.until('it is said', () => it.stateOf('Service') === 'ERR_GATEWAY_CRD_MISSING');
    await world.until('the Secrets are published', () => world.condition('Published')?.status === 'True');
    for (const one of [...gatewayApiDefinitions(), ...all]) world.api.put(one);
    await world.until('the policy', async () => (await it.policy()) !== undefined, 5_000);
  });

  it('says by a code what cannot be used, and writes nothing for it', async () => {
    const six = ['a', 'b', 'c', 'd', 'e', 'f'].map((name) => pod(name, name));
    const without = (kinds: RegExp) => all.filter(({ kind }) => !kinds.test(kind));
    const older = gatewayApiDefinitions().map((one) => {
      const isPolicy = one.metadata.name.startsWith('backendtlspolicies');
      return isPolicy ? (JSON.parse(JSON.stringify(one).replaceAll('"v1"', '"v1alpha3"')) as typeof one) : one;
    });
    const cases: readonly [
      kind: string,
      code: string,
      objects: readonly KubeObject[],
      definitions?: readonly object[],
    ][] = [
      ['Service', 'ERR_GATEWAY_CRD_MISSING', all, older],
      ['Gateway', 'ERR_TARGET_CLASS', [...without(/GatewayClass/), gatewayClass('eg', 'traefik.io/controller')]],
      ['Service', 'ERR_TARGET_PORT_NAME', [...without(/Service/), service({ ports: [{ port: 443 }] })]],
      ['Service', 'ERR_TARGET_TOO_MANY', [...without(/Pod|Slice/), ...six]],
      ['Service', 'ERR_TARGET_NO_ACCOUNT', [...without(/Pod/), pod('web-1', '')]],
      [
        'Service',
        'ERR_TARGET_NOT_IN_CLUSTER',
        [...without(/Service/), service({ type: 'ExternalName', externalName: 'x.y' })],
      ],
    ];
    for (const [kind, code, objects, definitions] of cases) {
      await using it = await start(objects, definitions);
      const { world } = it;
      world.run(spec);
      await world.until(code, () => it.stateOf(kind) === code);
      await world.until('the Secrets are published', () => world.condition('Published')?.status === 'True');
      assert.equal(world.condition('Referenced')?.status, 'False', code);
      const written = it.writes().filter((one) => /backendtlspolicies|configmaps/.test(one));
      assert.deepEqual([written, await it.configMap()], [[], undefined], code);
      if (kind === 'Gateway' || definitions) assert.deepEqual(fields((await it.proxy())?.spec), {}, code);
    }
  });

  it('leaves a certificate that another client set, and a policy that another client wrote', async () => {
    const theirs = { backendTLS: { clientCertificateRef: { name: 'theirs' } } };
    await using it = await start([...all.filter(({ kind }) => kind !== 'EnvoyProxy'), envoyProxy(theirs)]);
    const { world } = it;
    world.run(spec);
    await world.until('it is refused', () => it.stateOf('EnvoyProxy') === 'ERR_TARGET_FOREIGN_TLS');
    assert.deepEqual(fields((await it.proxy())?.spec), theirs);
    assert.equal(await it.policy(), undefined);
  });

  it('deletes a policy only after no route uses its Service', async () => {
    await using it = await start();
    const { world } = it;
    world.run(spec);
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    world.api.put(without(service(), 'labels'));
    await world.until('it is said', () => it.stateOf('Service') === 'ERR_TARGET_UNSELECTED');
    assert.ok(await it.policy());
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    await world.until('it goes', async () => (await it.policy()) === undefined);
    await world.until('its ConfigMap too', async () => (await it.configMap()) === undefined);
    assert.ok(await world.secret('istio-identity'));
  });

  it('is retired when no Gateway presents the certificate and no route uses a policy', async () => {
    await using it = await start();
    const { world } = it;
    world.putCertificate({ ...spec, deletionPolicy: 'Delete' });
    world.follow();
    await world.until('the policy', async () => (await it.policy()) !== undefined);
    const ref = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace: NAMESPACE, name: 'istio' };
    await world.kube.delete(ref, {});
    await world.until('it waits', () => world.status?.lastError?.code === 'ERR_RETIRE_WAITS');
    assert.match(world.status?.lastError?.message ?? '', /EnvoyProxy emissary\/proxy, Service shop\/web/);
    world.api.put({ ...httpRoute(), spec: { rules: [] } });
    world.api.put(without(gateway(), 'labels'));
    await world.until(
      'it waits for the proxy',
      () => !/Service shop/.test(world.status?.lastError?.message ?? 'Service shop'),
    );
    assert.ok(await world.secret('istio-identity'));
    world.api.put(envoyProxy());
    await world.until('all is gone', async () => (await world.kube.get(ref)) === undefined);
    assert.deepEqual(
      [await it.policy(), await it.configMap(), await world.secret('istio-identity'), await world.secret('istio-ca')],
      [undefined, undefined, undefined, undefined],
    );
  });
});
