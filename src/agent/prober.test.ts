import assert from 'node:assert/strict';
import { it } from 'node:test';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { silentLog } from '../mesh/log.ts';
import { Prober } from './host.ts';

it('a probe that fails at once is not repeated without a pause', async () => {
  const clock = new FakeClock();
  const ca = SandboxCa.root({ clock });
  const identity = { ...ca.identity({ uris: ['spiffe://td/ns/a/sa/b'] }), roots: [ca.root] };
  const stop = new AbortController();
  let probes = 0;
  const log = { ...silentLog, info: () => void probes++ };
  // A reconciler does the same: it reconciles again whenever a probe has ended.
  const ask = () => prober.ask(identity, identity.roots, stop.signal);
  const prober = new Prober({ clock, log }, { address: 'h:99999' }, ask);
  ask();
  for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(probes, 1);
  assert.equal(prober.problem(identity)?.code, 'ERR_PROBE_FAILED');
  await clock.advance(60_000);
  assert.ok(probes >= 2 && probes <= 13, `${probes} probes in a minute`);
  stop.abort();
});
