import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startIstio } from '../../sandbox/istio/istio.ts';
import { istioToken, readIstioToken } from '../support/istio-token.ts';
import { caSuite, pilotAgentSuite, spireSuite } from './istio-suite.ts';

const ID = 'spiffe://cluster.local/ns/default/sa/web';

function socketDirectory(): { socket: string; remove: () => void } {
  const directory = mkdtempSync(join(tmpdir(), 'sds-'));
  return { socket: join(directory, 'socket'), remove: () => rmSync(directory, { recursive: true }) };
}

caSuite('The sandbox', async () => {
  const mesh = await startIstio({ authenticate: (token) => readIstioToken(token), maxLeafLifetimeMs: 3_600_000 });
  const { address, serverName, trustDomain } = mesh;
  return {
    address,
    serverName,
    trustDomain,
    maxSeconds: 3600,
    rootPem: async () => mesh.rootPem,
    token: async (account, audience) => istioToken({ namespace: 'default', account, audience }),
    stop: () => mesh.stop(),
  };
});

pilotAgentSuite("The sandbox's pilot-agent", async () => {
  const { socket, remove } = socketDirectory();
  const mesh = await startIstio();
  const agent = await mesh.startPilotAgent({ socket, id: ID });
  return {
    socket,
    id: ID,
    rotate: () => agent.rotate(),
    restart: () => agent.restart(),
    caOutage: (on) => mesh.outage(on),
    stop: async () => {
      await mesh.stop();
      remove();
    },
  };
});

spireSuite("The sandbox's SPIRE agent", async () => {
  const { socket, remove } = socketDirectory();
  const mesh = await startIstio({ trustDomain: 'example.org' });
  const id = 'spiffe://example.org/gateway';
  const agent = await mesh.startSpireAgent({ socket, id });
  return {
    socket,
    id,
    trustDomain: 'example.org',
    rotate: () => agent.rotate(),
    stop: async () => {
      await mesh.stop();
      remove();
    },
  };
});
