import assert from 'node:assert/strict';
import { it } from 'node:test';
import { startEnvoyGateway } from './parts/envoy-gateway.ts';
import { GATEWAYS, SHOP } from './parts/gateway-lab.ts';
import { LEAF_MS, PATIENCE_MS, ROOTS } from './parts/gateway-rotations.ts';
import { startGatewayTraffic } from './parts/gateway-traffic.ts';
import { startLoad } from './parts/load.ts';
import { overlapRoots, rotateRoots } from './parts/root-rotation.ts';

const MINUTE = 60_000;
const PER_SECOND = 50;
/** The part of the requests that go through Envoy Gateway, there and back. */
const SHARES = [0, 0.5, 1, 0.5, 0];

it('one MeshCertificate serves Emissary and Envoy Gateway; traffic moves from one to the other and back, and loses nothing', async () => {
  const spec = '  mappings: {selector: {matchLabels: {mesh: both}}}\n';
  await using traffic = await startGatewayTraffic({ places: ['EnvoyProxy'], leafMs: LEAF_MS, spec });
  const { agent, ca, kube, lab, sites } = traffic;
  const [site] = sites;
  assert.ok(site);
  const { pair, service, upstream } = site;
  const host = `${service}.${SHOP}`;
  await lab.apiserver.apply(`/apis/getambassador.io/v3alpha1/namespaces/${GATEWAYS}/mappings`, {
    ...{
      apiVersion: 'getambassador.io/v3alpha1',
      kind: 'Mapping',
      metadata: { name: 'web', labels: { mesh: 'both' } },
    },
    spec: { hostname: '*', prefix: '/', service: `https://${host}:443` },
  });
  await using emissary = await startEnvoyGateway({
    kube,
    resolve: (name) => (name === host ? upstream.port : undefined),
    freshEvery: 5,
  });
  let cluster = '';
  await emissary.until(({ clusters }) => {
    const found = [...clusters.values()].find(({ tls }) => tls?.certificate && tls.ca);
    cluster = found?.name ?? '';
    return found !== undefined;
  }, 2 * MINUTE);

  const before = { ...upstream.counts };
  const sent = { emissary: 0, envoyGateway: 0 };
  let share = 0;
  const next = () => {
    const isNew = sent.envoyGateway + 1 <= share * (sent.emissary + sent.envoyGateway + 1);
    sent[isNew ? 'envoyGateway' : 'emissary'] += 1;
    return isNew ? site.url : `${emissary.url}/`;
  };
  const load = startLoad(next, cluster, PER_SECOND, PATIENCE_MS);
  const stop = new AbortController();
  const rotating = rotateRoots((pause) => overlapRoots(ca.istio, pause), ROOTS, stop.signal);
  const phases: (typeof sent)[] = [];
  try {
    for (share of SHARES) {
      Object.assign(sent, { emissary: 0, envoyGateway: 0 });
      const wanted = pair.leaves.length + 3;
      await pair.until(() => pair.leaves.length >= wanted, MINUTE, 'three leaves');
      phases.push({ ...sent });
    }
  } finally {
    await load.stop();
    stop.abort();
  }
  const roots = await rotating;
  const counts = {
    failures: load.failures,
    plaintext: upstream.counts.plaintext - before.plaintext,
    refused: upstream.counts.handshakeFailures + upstream.counts.refused - before.handshakeFailures - before.refused,
  };
  const line = `${load.answered} answered, ${load.failed} failed, ${counts.plaintext} plaintext, ${pair.leaves.length} leaves, ${roots} roots, ${emissary.swaps} configurations of Emissary`;
  console.log(`${line}; Emissary/Envoy Gateway: ${phases.map((one) => Object.values(one).join('/')).join(', ')}`);
  assert.deepEqual(counts, { failures: [], plaintext: 0, refused: 0 }, agent.log());
  assert.deepEqual(pair.violations, []);
  assert.deepEqual(await traffic.agent.refusals(), []);
  assert.ok(roots >= 1, line);
  assert.deepEqual(
    phases.map((one) => [one.emissary > 0, one.envoyGateway > 0]),
    SHARES.map((one) => [one < 1, one > 0]),
  );
});
