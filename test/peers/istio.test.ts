import { after, before } from 'node:test';
import { istio } from '../../adapters/istio/adapter.ts';
import { adapterContract } from '../contract/adapter-contract.ts';
import { caSuite, pilotAgentSuite } from '../contract/istio-suite.ts';
import type { RecordingHost } from '../support/recording-host.ts';
import { type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { startPilotAgent } from './servers/pilot-agent.ts';

const ROOTS = { namespace: 'default', name: 'istio-ca-root-cert' };
const MAX_SECONDS = 7200;
/** pilot-agent renews after half of its minute, and a peer may be busy. */
const SLOW = { timeoutMs: 120_000 };

let apiserver: KubeApiserver;
let istiod: Istiod;

before(async () => {
  apiserver = await startKubeApiserver();
  const path = '/api/v1/namespaces/default/serviceaccounts';
  await apiserver.ensure(path, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'web' } });
  istiod = await startIstiod({ apiserver, env: { MAX_WORKLOAD_CERT_TTL: `${MAX_SECONDS}s` } });
});
after(async () => {
  await istiod?.stop();
  await apiserver?.stop();
});

const token = (account: string, audience: string) =>
  apiserver.serviceAccountToken({ namespace: 'default', name: account, audience });

async function mountRoots(host: RecordingHost): Promise<void> {
  host.setConfigMap(ROOTS, { 'root-cert.pem': await istiod.rootCertificate() });
}

caSuite('istiod', async () => {
  const { secureAddress: address, serverName, trustDomain, rootCertificate: rootPem } = istiod;
  return { address, serverName, trustDomain, maxSeconds: MAX_SECONDS, rootPem, token, stop: async () => {} };
});

adapterContract(
  'The istio adapter towards the real istiod',
  async (host) => {
    host.namespace = 'default';
    host.mint = ({ serviceAccount, audience }) => token(serviceAccount?.name ?? '', audience);
    await mountRoots(host);
    const { secureAddress: address, serverName } = istiod;
    return {
      adapter: istio,
      config: { ca: { address, serverName, serviceAccount: 'web' } },
      outage: (on) => (on ? istiod.kill('SIGTERM') : istiod.restart()),
      changeRoots: async () => {
        await istiod.replaceRoot();
        await mountRoots(host);
      },
      stop: () => {},
    };
  },
  SLOW,
);

const startAgent = () =>
  startPilotAgent({ apiserver, istiod, namespace: 'default', serviceAccount: 'web', env: { SECRET_TTL: '60s' } });
const agentId = () => `spiffe://${istiod.trustDomain}/ns/default/sa/web`;

pilotAgentSuite('The real pilot-agent', async () => {
  const agent = await startAgent();
  return {
    socket: agent.socket,
    id: agentId(),
    // It does so by itself within half a minute.
    rotate: () => {},
    restart: () => agent.restart(),
    caOutage: (on) => (on ? istiod.kill('SIGTERM') : istiod.restart()),
    stop: () => agent.stop(),
  };
});

adapterContract(
  'The istio adapter on the socket of the real pilot-agent',
  async () => {
    const agent = await startAgent();
    return {
      adapter: istio,
      config: { sds: { socket: agent.socket }, trustDomain: istiod.trustDomain, id: agentId() },
      outage: (on) => (on ? agent.kill('SIGTERM') : agent.restart()),
      rotate: () => {},
      stop: () => agent.stop(),
    };
  },
  SLOW,
);
