import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Case, makeCase } from '../fuzz/cases.ts';
import { notAnswered } from '../fuzz/envoy.ts';
import { opinionOn } from '../fuzz/ours.ts';
import { judgesOfSuite } from './servers/x509-judges.ts';

/**
 * docs/adr/0015: what an intermediate as a trust anchor means to each judge. A seed determines how deep the chain is.
 */
describe('an intermediate as a trust anchor', () => {
  const judges = judgesOfSuite();

  const made = (...labels: string[]): Case => makeCase(4, Date.now(), labels);
  const verdicts = async (one: Case) => {
    const { chain, roots, key } = one;
    const bySystem = await judges.openssl.judge({ chain, roots, key });
    return {
      meshcert: (await opinionOn(one, Date.now())).code ?? 'accepts',
      openssl: bySystem.ok ? 'accepts' : bySystem.partial ? 'accepts with partial chains' : 'refuses',
      go: (await judges.go.judge({ chain, roots, key, handshake: true })).ok ? 'accepts' : 'refuses',
      envoy: (await notAnswered([one])).size === 0 ? 'accepts' : 'refuses',
    };
  };
  const PARTIAL = { meshcert: 'accepts', openssl: 'accepts with partial chains', go: 'accepts', envoy: 'accepts' };

  it('ends a path for meshcert, Go and Envoy, and for OpenSSL if configured', async () => {
    assert.deepEqual(await verdicts(made('the intermediate is the only root')), PARTIAL);
    assert.deepEqual(await verdicts(made('the intermediate is the only root', 'other roots beside it')), PARTIAL);
  });

  it('changes nothing beside the root that issued it', async () => {
    const all = { meshcert: 'accepts', openssl: 'accepts', go: 'accepts', envoy: 'accepts' };
    assert.deepEqual(await verdicts(made('the intermediate is in the bundle too')), all);
  });

  it('does not end a path for Envoy where the root that issued it is in the bundle and has expired', async () => {
    const expired = made('the intermediate is in the bundle too', 'expired @root');
    assert.deepEqual(await verdicts(expired), {
      meshcert: 'ERR_VERIFY_LINK_EXPIRED',
      openssl: 'accepts with partial chains',
      go: 'accepts',
      envoy: 'refuses',
    });
  });
});
