import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { Identity } from '../mesh/identity.ts';
import type { Certificate } from '../pki/certificate.ts';
import { PrivateKey } from '../pki/key.ts';
import { decideUpstreamTrust, type PublishedUpstreamTrust } from './upstream-trust.ts';

const HOUR = 3_600_000;
const NOW = Date.now();
const REST = { now: NOW, retainMs: 24 * HOUR, withdrawn: [], leafLifetimeMs: HOUR };
const root = (name: string): Certificate => SandboxCa.root({ name }).certificate;
const [first, second, own] = [root('first'), root('second'), SandboxCa.root({ name: 'own' })];

const identity = (trustDomain: string, roots: readonly Certificate[]): Identity => ({
  ...own.identity({ uris: ['spiffe://own.example/gateway'], lifetimeMs: HOUR }),
  upstream: { trustDomain, roots },
});
const published = (trustDomain: string, ...bundle: readonly Certificate[]): PublishedUpstreamTrust => ({
  trustDomain,
  bundle,
  since: new Map(),
});

describe('trust in upstreams of another trust domain', () => {
  it('is what the mesh names for that domain, and none where upstreams are in the own domain', () => {
    const decided = decideUpstreamTrust(identity('a.example', [first]), undefined, REST);
    assert.deepEqual([decided?.trustDomain, decided?.trust.bundle], ['a.example', [first]]);
    const { upstream: _, ...plain } = identity('a.example', [first]);
    assert.equal(decideUpstreamTrust(plain, published('a.example', first), REST), undefined);
  });

  it('retains a root of the same domain that is no longer named, and none of another domain', () => {
    const same = decideUpstreamTrust(identity('a.example', [second]), published('a.example', first), REST);
    assert.deepEqual(new Set(same?.trust.bundle), new Set([first, second]));
    const other = decideUpstreamTrust(identity('b.example', [second]), published('a.example', first), REST);
    assert.deepEqual(other?.trust.bundle, [second]);
  });

  it('stays as it is published until the mesh has answered', () => {
    const decided = decideUpstreamTrust(undefined, published('a.example', first), REST);
    assert.deepEqual(
      [decided?.trustDomain, decided?.trust.bundle, decided?.refused],
      ['a.example', [first], undefined],
    );
    assert.equal(decideUpstreamTrust(undefined, undefined, REST), undefined);
  });

  it('is refused with the name of the domain where Envoy would not load a root, or where there is none', () => {
    const unloaded = own.issue(PrivateKey.generate(), { uris: ['spiffe://a.example/x'], lifetimeMs: HOUR, version: 1 });
    for (const [roots, code] of [
      [[unloaded], 'ERR_VERIFY_VERSION'],
      [[], 'ERR_VERIFY_EMPTY_BUNDLE'],
    ] as const) {
      const refused = decideUpstreamTrust(identity('a.example', roots), undefined, REST)?.refused;
      assert.equal(refused?.code, code);
      assert.match(refused?.message ?? '', /^trust domain a\.example: /);
    }
  });
});
