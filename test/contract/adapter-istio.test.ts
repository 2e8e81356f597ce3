import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { istio } from '../../adapters/istio/adapter.ts';
import { startIstio } from '../../sandbox/istio/istio.ts';
import { istioToken, readIstioToken } from '../support/istio-token.ts';
import { adapterContract } from './adapter-contract.ts';

const ID = 'spiffe://cluster.local/ns/emissary/sa/emissary';

for (const [manner, carrier] of [
  ['istiod', 'ConfigMap'],
  ['istiod', 'ClusterTrustBundle'],
  ['istio-csr', 'ConfigMap'],
] as const) {
  adapterContract(`The istio adapter towards the CA of ${manner} with a ${carrier}`, async (host, clock) => {
    const mesh = await startIstio({
      clock,
      manner,
      authenticate: (token) => readIstioToken(token),
      publishRoots: (pem) =>
        carrier === 'ConfigMap'
          ? host.setConfigMap({ namespace: 'emissary', name: 'istio-ca-root-cert' }, { 'root-cert.pem': pem })
          : host.setClusterTrustBundle('istio.io:istiod-ca:root-cert', pem),
    });
    const root = carrier === 'ConfigMap' ? {} : { clusterTrustBundle: {} };
    host.mint = ({ serviceAccount }) =>
      istioToken({ namespace: serviceAccount?.namespace ?? '', account: serviceAccount?.name ?? '' });
    return {
      adapter: istio,
      config: { ca: { address: mesh.address, serverName: mesh.serverName, serviceAccount: 'emissary', root } },
      outage: (on) => mesh.outage(on),
      changeRoots: () => mesh.rotateRoot({ key: 'new' }),
      stop: () => mesh.stop(),
    };
  });
}

adapterContract('The istio adapter on the socket of pilot-agent', async (_host, clock) => {
  const directory = mkdtempSync(join(tmpdir(), 'sds-'));
  const mesh = await startIstio({ clock });
  const agent = await mesh.startPilotAgent({ socket: join(directory, 'socket'), id: ID });
  return {
    adapter: istio,
    config: { sds: { socket: join(directory, 'socket') }, trustDomain: 'cluster.local' },
    outage: (on) => (on ? agent.stop() : agent.start()),
    rotate: () => agent.rotate(),
    stop: async () => {
      await mesh.stop();
      rmSync(directory, { recursive: true });
    },
  };
});

for (const disableSpiffeValidation of [true, false]) {
  const roots = disableSpiffeValidation ? 'plain roots' : "Envoy's SPIFFE validator";
  adapterContract(`The istio adapter on the socket of SPIRE, with ${roots}`, async (_host, clock) => {
    const directory = mkdtempSync(join(tmpdir(), 'sds-'));
    const mesh = await startIstio({ clock, trustDomain: 'example.org', layout: 'plug-in' });
    const id = 'spiffe://example.org/gateway';
    const agent = await mesh.startSpireAgent({ socket: join(directory, 'socket'), id });
    return {
      adapter: istio,
      config: { sds: { socket: join(directory, 'socket'), disableSpiffeValidation }, id },
      outage: (on) => (on ? agent.stop() : agent.start()),
      rotate: () => agent.rotate(),
      stop: async () => {
        await mesh.stop();
        rmSync(directory, { recursive: true });
      },
    };
  });
}
