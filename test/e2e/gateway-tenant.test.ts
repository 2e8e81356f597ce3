import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startEnvoyGateway } from '../../sandbox/envoy-gateway/gateway.ts';
import { gatewayApiDefinitions } from '../../sandbox/kube/gateway-api.ts';
import { gatewayApiDiagnosis } from '../../src/gateway/gateway-api/diagnosis.ts';
import { connect } from '../../src/kube/client.ts';
import { fields, type KubeObject, listOfFields, type ObjectRef, refOf } from '../../src/objects/objects.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { type Seen, startUpstream } from '../peers/parts/gateway-lab.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';
import { FakeClock } from '../support/fake-clock.ts';
import {
  BACKENDS,
  backend,
  clientCertificateRef,
  envoyProxy,
  gateway,
  gatewayClass,
  httpRoute,
  object,
  pod,
  SPEC,
  service,
  slice,
} from '../support/gateway-api.ts';

const STANDARD = 'gateway.networking.k8s.io/v1';
const HOUR = 3_600_000;
const TENANT = 'tenant';
/** The upstream knows no protocol of a mesh. */
const HTTP = { alpnProtocols: ['http/1.1'] };
const NAMED = { tls: { clientCertificateRef, ...HTTP } };
const UNNAMED = { tls: HTTP };
const EDGE = `${NAMESPACE}/edge`;
const { clientCertificate: _, ...byDefault } = BACKENDS;
const behind = [gatewayClass(), service(), pod('web-1'), slice(['web-1'])];
const toBackend = {
  ...httpRoute('web', 443, NAMESPACE),
  spec: {
    parentRefs: [{ name: 'edge' }],
    rules: [{ backendRefs: [{ group: 'gateway.envoyproxy.io', kind: 'Backend', name: 'web' }] }],
  },
};

/** What the upstream saw of some requests; `other`: the gateway answered by itself. */
interface Tally {
  mtls: number;
  /** TLS without a client certificate. */
  bare: number;
  plaintext: number;
  other: number;
}

/** An agent, Envoy Gateway of the sandbox, and an upstream that answers everything and says what it saw. */
async function start(objects: readonly KubeObject[]) {
  const clock = new FakeClock(Date.now());
  const world = await AgentWorld.start(
    { namespaces: [NAMESPACE, 'shop', TENANT], objects: [...gatewayApiDefinitions(), ...objects] },
    clock,
  );
  const { chain, key } = world.mesh.ca.identity({ uris: ['spiffe://toy/ns/shop/sa/web'], lifetimeMs: 24 * HOUR });
  const pem = formatCertificates(chain);
  const leaf = { certificate: pem, chain: pem, key: key.toPem() };
  const upstream = await startUpstream({ leaf, roots: world.mesh.ca.root.pem, merelyAsks: true });
  const kubeconfigText = world.api.kubeconfig();
  const kube = connect({ kubeconfigText, userAgent: 'gateway', kinds: gatewayApiDiagnosis.resources });
  const proxies = await startEnvoyGateway({ kube, clock, resolve: () => ({ host: '127.0.0.1', port: upstream.port }) });
  const ask = async (of: string): Promise<keyof Tally> => {
    const url = proxies.proxyOf(of)?.url;
    const answer = url === undefined ? undefined : await fetch(`${url}/`);
    if (answer?.status !== 200) {
      await answer?.text();
      return 'other';
    }
    const { tls, serial } = (await answer.json()) as Seen;
    return !tls ? 'plaintext' : serial === null ? 'bare' : 'mtls';
  };
  /** A request every 100 ms for so long. */
  const during = async (of: string, ms: number): Promise<Tally> => {
    const seen: Tally = { mtls: 0, bare: 0, plaintext: 0, other: 0 };
    const end = clock.now() + ms;
    await world.until('the end of the requests', async () => {
      seen[await ask(of)] += 1;
      return clock.now() >= end;
    });
    return seen;
  };
  return {
    world,
    during,
    becomes: (of: string, wanted: keyof Tally) => world.until(wanted, async () => (await ask(of)) === wanted),
    read: (ref: ObjectRef) => kube.get(ref, AbortSignal.timeout(5_000)),
    remove: (ref: ObjectRef) => kube.delete(ref, {}),
    async [Symbol.asyncDispose]() {
      await world[Symbol.asyncDispose]();
      await proxies.stop();
      kube.close();
      await upstream[Symbol.asyncDispose]();
    },
  };
}

const policyRef = (name: string, namespace: string) => ({
  ...{ apiVersion: STANDARD, kind: 'BackendTLSPolicy' },
  ...{ name, namespace },
});
const core = (kind: string, name: string) => ({ apiVersion: 'v1', kind, name, namespace: NAMESPACE });

describe('who may create Gateways, routes, Backends and policies in a namespace of their own', () => {
  it('does not get the certificate by a Gateway that names the Secret: its upstream sees none', async () => {
    const there = { namespace: TENANT, labels: {} };
    const theirs = [
      gateway({ tls: { backend: { clientCertificateRef } }, infrastructure: undefined }, there),
      service({}, there),
      object(STANDARD, 'BackendTLSPolicy', 'own', policySpec('Service', 'web', 'roots'), there),
      {
        ...httpRoute('web', 443, TENANT),
        spec: { parentRefs: [{ name: 'edge' }], rules: [{ backendRefs: [{ name: 'web', port: 443 }] }] },
      },
    ];
    await using it = await start([...behind, gateway({ infrastructure: undefined }), ...theirs]);
    const { world } = it;
    world.api.put({
      ...core('ConfigMap', 'roots'),
      metadata: { name: 'roots', namespace: TENANT },
      data: { 'ca.crt': world.mesh.ca.root.pem },
    });
    const gateways = { ...SPEC.gateways, namespaces: ['*'] };
    world.run({ gatewayApi: { ...SPEC, gateways, clientCertificate: 'Gateway' } });
    await world.until('the policy', async () => (await it.read(policyRef('istio-web-https', 'shop'))) !== undefined);
    const seen = await it.during(`${TENANT}/edge`, 4_000);
    assert.deepEqual([seen.mtls, seen.plaintext], [0, 0], JSON.stringify(seen));
    assert.ok(seen.bare > 20, 'its own policy demands TLS');
    const found = await it.read(refOf(gateway({}, there)));
    const conditions = listOfFields(fields(found?.status).conditions);
    assert.ok(conditions.some(({ reason }) => reason === 'RefNotPermitted'));
  });

  it('does not make a Backend send plaintext, or anything without the certificate, by deleting an object', async () => {
    await using it = await start([...behind, gateway({ infrastructure: undefined }), backend(NAMED), toBackend]);
    const { world } = it;
    const given = { gatewayApi: byDefault };
    world.run(given);
    await it.becomes(EDGE, 'mtls');
    for (const ref of [
      policyRef('istio-web.backend', NAMESPACE),
      core('ConfigMap', 'istio-ca'),
      core('Secret', 'istio-identity'),
      core('Secret', 'istio-ca'),
    ]) {
      await it.remove(ref);
      const alive = await it.during(EDGE, 2_000);
      await it.becomes(EDGE, 'mtls');
      await world.stop();
      await it.remove(ref);
      const away = await it.during(EDGE, 2_000);
      world.run(given);
      await it.becomes(EDGE, 'mtls');
      const lost = [alive.plaintext, alive.bare, away.plaintext, away.bare];
      assert.deepEqual(lost, [0, 0, 0, 0], `${ref.kind} ${ref.name}: ${JSON.stringify([alive, away])}`);
    }
  });

  it('finds a Service in plaintext when its policy is deleted while the agent is away: it does not fail closed', async () => {
    await using it = await start([...behind, gateway(), envoyProxy({ backendTLS: HTTP }), httpRoute()]);
    const { world } = it;
    world.run({ gatewayApi: SPEC });
    await it.becomes(EDGE, 'mtls');
    await world.stop();
    await it.remove(policyRef('istio-web-https', 'shop'));
    const away = await it.during(EDGE, 2_000);
    assert.ok(away.plaintext > 10, JSON.stringify(away));
    world.run({ gatewayApi: SPEC });
    await it.becomes(EDGE, 'mtls');
  });

  it('finds no gap in a Backend that names the certificate, however often it is deleted and created again', async () => {
    await using it = await start([...behind, gateway({ infrastructure: undefined }), backend(NAMED), toBackend]);
    const { world } = it;
    world.run({ gatewayApi: byDefault });
    await it.becomes(EDGE, 'mtls');
    for (const isAway of [false, false, true]) {
      if (isAway) await world.stop();
      await it.remove(refOf(backend()));
      const gone = await it.during(EDGE, 1_000);
      world.api.put(backend(NAMED));
      const back = await it.during(EDGE, 4_000);
      assert.deepEqual(
        [gone.plaintext, gone.bare, back.plaintext, back.bare],
        [0, 0, 0, 0],
        JSON.stringify([gone, back]),
      );
      assert.ok(gone.other > 0 && back.mtls > 0, JSON.stringify([gone, back]));
    }
  });

  it('finds TLS without a certificate for 15 s in a Backend that comes back without naming it, and no plaintext', async () => {
    await using it = await start([...behind, gateway({ infrastructure: undefined }), backend(UNNAMED), toBackend]);
    const { world } = it;
    world.run({ gatewayApi: byDefault });
    await it.becomes(EDGE, 'mtls');
    await it.remove(refOf(backend()));
    await it.becomes(EDGE, 'other');
    world.api.put(backend(UNNAMED));
    const back = await it.during(EDGE, 20_000);
    assert.equal(back.plaintext, 0, JSON.stringify(back));
    assert.ok(back.bare > 0 && back.bare < 200, JSON.stringify(back));
    await it.becomes(EDGE, 'mtls');
  });
});

function policySpec(kind: string, name: string, bundle: string): object {
  return {
    targetRefs: [{ group: '', kind, name }],
    validation: {
      caCertificateRefs: [{ group: '', kind: 'ConfigMap', name: bundle }],
      hostname: 'web.shop.svc.cluster.local',
      subjectAltNames: [{ type: 'URI', uri: 'spiffe://toy/ns/shop/sa/web' }],
    },
  };
}
