import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { istio } from '../../adapters/istio/adapter.ts';
import { systemClock } from '../../src/async/clock.ts';
import type { Host, Issuer, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath } from '../../src/pki/chain.ts';
import { RecordingHost } from '../support/recording-host.ts';
import { fastRotation, type Istiod, startIstiod } from './servers/istiod.ts';
import { type KubeApiserver, startKubeApiserver } from './servers/kube-apiserver.ts';
import { type PilotAgent, startPilotAgent } from './servers/pilot-agent.ts';

const ROOTS = { namespace: 'default', name: 'istio-ca-root-cert' };
const live = new AbortController().signal;

const proves = ({ chain }: Identity, roots: readonly Certificate[]) => {
  const [leaf, ...rest] = chain;
  return leaf !== undefined && findPath(leaf, rest, roots, Date.now()).ok;
};

describe('Root rotations of the real istiod', { timeout: 600_000 }, () => {
  let apiserver: KubeApiserver;
  let istiod: Istiod;
  let host: RecordingHost;
  let issuer: Issuer;
  const stop = new AbortController();
  let following: Promise<void>;

  before(async () => {
    apiserver = await startKubeApiserver();
    const path = '/api/v1/namespaces/default/serviceaccounts';
    await apiserver.ensure(path, { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'web' } });
    // Leaves that outlive the two minutes until the next root.
    istiod = await startIstiod({ apiserver, env: { ...fastRotation, MAX_WORKLOAD_CERT_TTL: '10m' } });
    host = new RecordingHost(systemClock, 'default');
    host.mint = ({ audience }) => apiserver.serviceAccountToken({ namespace: 'default', name: 'web', audience });
    host.setConfigMap(ROOTS, { 'root-cert.pem': await istiod.rootCertificate() });
    following = follow();
    const { secureAddress: address, serverName } = istiod;
    const config = istio.config.parse({ ca: { address, serverName, serviceAccount: 'web', ttl: '3m' } });
    issuer = istio.open(config, host as Host) as Issuer;
  });
  after(async () => {
    stop.abort();
    await following;
    await issuer?.[Symbol.asyncDispose]();
    await istiod?.stop();
    await apiserver?.stop();
  });

  /** Reads istiod's ConfigMap twice a second. */
  async function follow(): Promise<void> {
    for (let last = ''; !stop.signal.aborted; await delay(500)) {
      const pem = await istiod.rootCertificate().catch(() => '');
      if (pem !== '' && pem !== last) host.setConfigMap(ROOTS, { 'root-cert.pem': pem });
      last = pem || last;
    }
  }

  const nextRoots = async (after: readonly Certificate[]): Promise<readonly Certificate[]> => {
    assert.ok(issuer.roots);
    for await (const roots of issuer.roots(live)) if (roots[0]?.fingerprint !== after[0]?.fingerprint) return roots;
    throw new Error('the roots ended');
  };

  it('renews its root with the same key: earlier and later leaves verify under both', async () => {
    const before = await issuer.issue(live);
    const roots = await nextRoots(before.roots);
    assert.equal(roots[0]?.publicKeyFingerprint, before.roots[0]?.publicKeyFingerprint);
    assert.equal(issuer.stale?.(before), undefined);
    const after = await issuer.issue(live);
    for (const leaf of [before, after]) {
      for (const bundle of [before.roots, roots]) assert.ok(proves(leaf, bundle));
    }
  });

  it('changes to a root with another key: the old leaf is stale, the new one verifies under the new root', async () => {
    const before = await issuer.issue(live);
    await istiod.replaceRoot();
    const roots = await nextRoots(before.roots);
    assert.notEqual(roots[0]?.publicKeyFingerprint, before.roots[0]?.publicKeyFingerprint);
    assert.match(issuer.stale?.(before) ?? '', /no longer has the root of this certificate/);
    const after = await issuer.issue(live);
    assert.ok(proves(after, roots));
    assert.ok(!proves(before, roots));
    assert.equal(issuer.stale?.(after), undefined);
  });

  describe('seen through pilot-agent', () => {
    let agent: PilotAgent;
    before(async () => {
      agent = await startPilotAgent({ apiserver, istiod, serviceAccount: 'web', env: { SECRET_TTL: '60s' } });
    });
    after(() => agent?.stop());

    it('each identity verifies under the roots that come with it, through a root with another key', async () => {
      const config = istio.config.parse({ sds: { socket: agent.socket } });
      const source = istio.open(config, host as Host) as Source;
      const seen: Identity[] = [];
      const kinds = () => new Set(seen.map(({ roots }) => roots[0]?.publicKeyFingerprint)).size;
      while (kinds() < 2) {
        try {
          for await (const identity of source.watch(live)) {
            assert.ok(proves(identity, identity.roots));
            seen.push(identity);
            if (seen.length === 1) {
              await istiod.replaceRoot();
              await agent.refreshMounts();
            }
            if (kinds() === 2) break;
          }
        } catch (error) {
          // The agent may fail to renew until it has the new root; it is called again as the agent's caller would.
          assert.ok(error instanceof MeshError, String(error));
          await delay(1000);
        }
      }
      assert.notEqual(leafOf(seen.at(-1) as Identity).fingerprint, leafOf(seen[0] as Identity).fingerprint);
    });
  });
});
