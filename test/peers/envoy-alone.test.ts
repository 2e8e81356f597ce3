import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ClusterConfig } from '../../sandbox/emissary/configuration.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { startUpstream } from '../../sandbox/tls/upstream.ts';
import { verify } from '../../src/core/verify.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { PrivateKey } from '../../src/pki/key.ts';
import type { Case } from '../fuzz/cases.ts';
import { notAnswered, notLoaded } from '../fuzz/envoy.ts';
import { pathCases } from '../support/path-cases.ts';
import { clusterOf } from './parts/envoy-clusters.ts';
import { startLoad } from './parts/load.ts';
import { startEnvoy } from './servers/envoy.ts';
import { headerListener } from './servers/envoy-config.ts';
import { freePorts } from './servers/loopback.ts';
import { judgesOfSuite } from './servers/x509-judges.ts';

const HOUR = 3_600_000;
const now = Date.now();
const VALID = { notBefore: now - HOUR, notAfter: now + HOUR };
const EXPIRED = { notBefore: now - 2 * HOUR, notAfter: now - HOUR };
const ID = 'spiffe://cluster.local/ns/emissary/sa/gateway';
const PER_SECOND = 50;
const REQUESTS = 100;

describe('a pair that Envoy refuses and OpenSSL accepts', () => {
  const judges = judgesOfSuite();

  for (const { name, code, pair, bundle, refusedBy } of pathCases(ID, VALID).refused) {
    if (refusedBy !== 'Envoy') continue;
    it(`is refused by us with ${code}: ${name}`, async () => {
      assert.ok(pair.key);
      const one: Case = {
        ...{ seed: 0, labels: [name], form: 'spiffe' },
        chain: formatCertificates(pair.chain),
        roots: formatCertificates(bundle),
        key: pair.key.toPem(),
      };
      const isRefused = (await notLoaded([one])).size > 0 || (await notAnswered([one])).size > 0;
      assert.ok(isRefused, 'Envoy takes it');
      const bySystem = await judges.openssl.judge(one);
      assert.ok(bySystem.ok || bySystem.partial, `OpenSSL refuses it too: ${bySystem.reason}`);
      const verdict = verify(pair, bundle, { form: 'spiffe' }, Date.now());
      assert.equal(verdict.ok ? 'accepted' : verdict.code, code);
    });
  }
});

describe('an expired root in the bundle of a real Envoy', () => {
  const key = PrivateKey.generate();
  const root = SandboxCa.root({ name: 'root', key, ...VALID });
  const old = SandboxCa.root({ name: 'root', key, ...EXPIRED }).certificate;
  const others = Array.from({ length: 31 }, (_, n) => SandboxCa.root({ name: `other ${n}`, ...VALID }).certificate);
  const own = PrivateKey.generate();
  const pair = { key: own, chain: [root.issue(own, { uris: [ID], ...VALID })] };

  /** Requests, each on its own connection, to an upstream of the mesh through an Envoy that trusts this bundle. */
  async function carried(bundle: readonly Certificate[]): Promise<{ answered: number; failed: number }> {
    const workload = root.identity({ uris: ['spiffe://cluster.local/ns/shop/sa/web'], ...VALID });
    const upstream = await startUpstream({ identity: () => workload, trust: () => [root.certificate] });
    const { http } = await freePorts('http');
    const envoy = await startEnvoy({ listeners: [headerListener(http, 'x-cluster')], clusters: [] });
    try {
      const file = (path: string, pem: string) => ({ path, pem });
      const tls = {
        certificate: file('/tls.crt', formatCertificates(pair.chain)),
        key: file('/tls.key', own.toPem()),
        ca: file('/ca.crt', formatCertificates(bundle)),
      };
      const config = { name: 'web', host: 'web', tls: { ...tls, withoutFile: [] } } as unknown as ClusterConfig;
      await envoy.swap([await clusterOf(config, upstream.port, envoy.dir, 1)]);
      const load = startLoad(`http://127.0.0.1:${http}/`, 'web', PER_SECOND);
      while (load.answered + load.failed < REQUESTS) await new Promise((resolve) => setTimeout(resolve, 20));
      await load.stop();
      return { answered: load.answered, failed: load.failed };
    } finally {
      await envoy.stop();
      await upstream.stop();
    }
  }

  for (const [title, bundle, isGood] of [
    ['after its successor', [root.certificate, old], true],
    ['after its successor and 31 other roots', [root.certificate, ...others, old], false],
    ['before its successor', [old, root.certificate], false],
  ] as const) {
    it(`${title}: ${isGood ? 'no request fails' : 'every request fails, and we refuse the bundle'}`, async () => {
      const { answered, failed } = await carried(bundle);
      assert.equal(isGood ? failed : answered, 0, `${answered} answered, ${failed} failed`);
      const verdict = verify(pair, bundle, { form: 'spiffe' }, Date.now());
      assert.equal(verdict.ok ? 'accepted' : verdict.code, isGood ? 'accepted' : 'ERR_VERIFY_LINK_EXPIRED');
    });
  }
});
