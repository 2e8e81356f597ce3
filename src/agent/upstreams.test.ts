import assert from 'node:assert/strict';
import { it } from 'node:test';
import { istio } from '../../adapters/istio/adapter.ts';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import { startUpstream } from '../../sandbox/tls/upstream.ts';
import { drive } from '../../test/support/drive.ts';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { Semaphore } from '../async/limits.ts';
import { ALLOW_ANY } from '../config/allow.ts';
import type { RouteState } from '../gateway/gateway.ts';
import type { Kube } from '../kube/api.ts';
import type { Adapter } from '../mesh/adapter.ts';
import { silentLog } from '../mesh/log.ts';
import { UpstreamWatch } from './upstreams.ts';

const [OLD, NEW] = ['web', 'web-new'].map((name) => `spiffe://td/ns/shop/sa/${name}`) as [string, string];

it('expects a further name as soon as the gateway accepts it', async () => {
  // TLS judges by the time of the machine.
  const clock = new FakeClock(Date.now() - 30 * 60_000);
  const ca = SandboxCa.root();
  let server = ca.identity({ uris: [OLD] });
  const upstream = await startUpstream({ identity: () => server, trust: () => [ca.root] });
  await using _upstream = { [Symbol.asyncDispose]: () => upstream.stop() };
  const identity = ca.identity({ uris: ['spiffe://td/ns/emissary/sa/emissary'] });
  const none = { dropped: [], withdrawn: [], problem: undefined, nextChangeAt: undefined };
  const decision = { publishedIdentity: identity, upstreamTrust: { bundle: [ca.root], since: new Map(), ...none } };
  const stop = new AbortController();
  const watch = new UpstreamWatch({
    env: { kube: {} as Kube, clock, random: () => 0.5, log: silentLog, allow: ALLOW_ANY, handshakes: new Semaphore(2) },
    adapter: istio as Adapter,
    spec: { intervalMs: 10_000, serviceAccounts: false, identities: [] },
    tls: {},
    changed: () => {},
  });
  const observe = (...accepted: readonly string[]) => {
    const destination = { address: `127.0.0.1:${upstream.port}`, names: accepted.map((uri) => ({ uri })) };
    const route = { kind: 'Service', namespace: 'shop', name: 'web', service: 'web', state: 'ok' } as const;
    const routes: readonly RouteState[] = [{ ...route, upstreams: [destination] }];
    watch.observe({ leading: true, decision, routes }, stop.signal);
  };
  const presents = (state: string, id: string) => () => {
    const [found] = watch.state.found;
    return found?.state === state && found.id === id;
  };
  observe(OLD);
  await drive(clock, presents('ok', OLD), { stepMs: 50 });
  server = ca.identity({ uris: [NEW] });
  await drive(clock, presents('ERR_PROBE_UPSTREAM_ID', NEW), { stepMs: 50 });
  observe(OLD, NEW);
  await drive(clock, presents('ok', NEW), { stepMs: 50 });
  assert.equal(watch.state.found.length, 1);
  stop.abort();
  watch.stop();
});
