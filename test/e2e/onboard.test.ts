import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { carryOutOff, lookAndPlanOff, showOffPlan } from '../../src/onboard/offboard.ts';
import { carryOut, checkOnServer, isNothing, leftBehind, lookAndPlan } from '../../src/onboard/onboard.ts';
import { bare } from '../../src/onboard/snapshot.ts';
import { OnboardWorld, type WorldMesh } from '../support/onboard-world.ts';

async function onboarded(world: OnboardWorld): Promise<void> {
  world.runAgent();
  const plan = await world.through(lookAndPlan(world.options()), 'the plan');
  const left = await world.through(carryOut(plan, world.options()), 'the way in');
  assert.equal(leftBehind(left)?.message, undefined, world.said.join('\n'));
}

describe('onboarding', () => {
  it('goes from a cluster without meshcert to traffic over mTLS in three meshes', async () => {
    await using world = await OnboardWorld.start('istio', 'linkerd', 'consul');
    const meshes: readonly WorldMesh[] = ['istio', 'linkerd', 'consul'];
    for (const mesh of meshes) assert.equal(await world.status(mesh), 503);
    await onboarded(world);
    for (const mesh of meshes) {
      assert.equal(await world.status(mesh), 200);
      const spec = (await world.mapping(mesh)).spec as Record<string, unknown>;
      assert.equal(spec.service, `https://web.${mesh}-apps:443`);
    }
    const moved = world.said.filter((line) => line.includes(' moved to '));
    assert.equal(moved.length, 3);
    assert.match(
      moved.join('\n'),
      /Mapping emissary\/istio moved to istio: meets spiffe:\/\/cluster\.local\/ns\/istio-apps\/sa\/web, HTTP 200/,
    );
    assert.match(world.said.join('\n'), /\.\.\. istio waits for /);
  });

  it('changes from plaintext to mTLS and back in one step each, whatever the gateway treats as a batch', async () => {
    await using world = await OnboardWorld.start('istio', 'linkerd');
    const seen = new Map<string, string[]>();
    const stop = new AbortController();
    const { gateway } = world.cluster;
    const plain = () => [...gateway.configuration.clusters.values()].every(({ tls }) => tls === undefined);
    await world.through(gateway.until(plain), 'the cluster as it was');
    const watching = gateway.until(({ configuration }) => {
      for (const { prefix, cluster } of configuration.routes) {
        const tls = configuration.clusters.get(cluster)?.tls;
        const mode = !tls ? 'plaintext' : tls.certificate && tls.ca ? 'mtls' : 'unverified';
        const modes = seen.get(prefix) ?? [];
        seen.set(prefix, modes.at(-1) === mode ? modes : [...modes, mode]);
      }
      return false;
    }, stop.signal);
    await onboarded(world);
    const plan = await world.through(lookAndPlanOff(world.offOptions()), 'the plan');
    await world.through(carryOutOff(plan, world.offOptions()), 'the way out');
    await world.through(world.clock.sleep(3000), 'the last batch');
    stop.abort(new Error('seen enough'));
    await assert.rejects(watching, /seen enough/);
    for (const prefix of ['/istio/', '/linkerd/']) {
      assert.deepEqual(seen.get(prefix), ['plaintext', 'mtls', 'plaintext']);
    }
  });

  it('changes nothing when it is run twice', async () => {
    await using world = await OnboardWorld.start('istio', 'linkerd');
    await onboarded(world);
    world.cluster.api.requests.reset();
    const again = await world.through(lookAndPlan(world.options({ preferences: { changes: [] } })), 'the plan');
    assert.ok(isNothing(again));
    await world.through(carryOut(again, world.options()), 'the way in');
    assert.deepEqual(writes(world), []);
  });

  it('skips a Mapping whose upstream refuses the certificate, says why, and moves the others', async () => {
    await using world = await OnboardWorld.start('istio', 'consul');
    world.runAgent();
    const before = bare(await world.mapping('consul'));
    const options = world.options();
    // A server of another CA answers there, which Consul's roots do not verify.
    const istio = options.connectTo.get('web.istio-apps:443') ?? '';
    const connectTo = new Map([...options.connectTo, ['web.consul-apps:443', istio] as const]);
    const plan = await world.through(lookAndPlan(options), 'the plan');
    const left = await world.through(carryOut(plan, { ...options, connectTo }), 'the way in');
    assert.match(leftBehind(left)?.message ?? '', /^not moved: Mapping emissary\/consul; /);
    assert.deepEqual(bare(await world.mapping('consul')), before);
    assert.match(world.said.join('\n'), /Mapping emissary\/consul ERR_PROBE_\w+: not moved: .*web\.consul-apps:443/);
    assert.equal(await world.status('istio'), 200);
  });

  it('does not move what cannot be reached from here, unless told to skip the trial', async () => {
    await using world = await OnboardWorld.start('istio');
    world.runAgent();
    const unreachable = new Map([['web.istio-apps:443', '127.0.0.1:1']]);
    const options = world.options({ connectTo: unreachable });
    const plan = await world.through(lookAndPlan(options), 'the plan');
    const left = await world.through(carryOut(plan, options), 'the way in');
    assert.equal(leftBehind(left)?.code, 'ERR_ONBOARD_LEFT_BEHIND');
    assert.match(world.said.join('\n'), /ERR_PROBE_UNREACHABLE: .*use --connect-to, or --no-probe/);
    const untried = { ...options, probe: false };
    const again = await world.through(lookAndPlan(untried), 'the plan');
    assert.deepEqual(await world.through(carryOut(again, untried), 'the way in'), []);
    assert.equal(await world.status('istio'), 200);
  });

  it('restores a Mapping when requests fail after the move', async () => {
    await using world = await OnboardWorld.start('istio');
    world.runAgent();
    const before = bare(await world.mapping('istio'));
    const options = world.options({ gatewayUrl: 'http://127.0.0.1:1', settleMs: 1000 });
    const plan = await world.through(lookAndPlan(options), 'the plan');
    const left = await world.through(carryOut(plan, options), 'the way in');
    assert.equal(left.length, 1);
    assert.match(
      world.said.join('\n'),
      /ERR_ONBOARD_NOT_CONFIRMED: reverted: requests through the gateway got worse: .*ECONNREFUSED/,
    );
    assert.deepEqual(bare(await world.mapping('istio')), before);
    const again = await world.through(lookAndPlan(world.options()), 'the plan');
    assert.deepEqual(await world.through(carryOut(again, world.options()), 'the way in'), []);
    assert.equal(await world.status('istio'), 200);
  });

  it('gives up and reports what is missing when no agent answers', async () => {
    await using world = await OnboardWorld.start('istio');
    const options = world.options({ timeoutMs: 10_000 });
    const plan = await world.through(lookAndPlan(options), 'the plan');
    await assert.rejects(world.through(carryOut(plan, options), 'the way in'), {
      code: 'ERR_ONBOARD_NOT_READY',
      message: /not there after 10 s: istio waits for its first status: is an agent running\?/,
    });
  });

  it('lets the API server check everything and stores nothing with --dry-run=server', async () => {
    await using world = await OnboardWorld.start('istio');
    const plan = await world.through(lookAndPlan(world.options()), 'the plan');
    await world.through(checkOnServer(plan, world.options()), 'the check');
    assert.match(
      world.said.join('\n'),
      /MeshCertificate emissary\/istio cannot be checked before its definition exists/,
    );
    assert.match(world.said.join('\n'), /Mapping emissary\/istio would be applied/);
    const again = await world.through(lookAndPlan(world.options()), 'the plan');
    assert.deepEqual(
      again.steps.map(({ action }) => action),
      plan.steps.map(({ action }) => action),
    );
  });
});

describe('offboarding', () => {
  it('restores Mappings first and deletes what they needed last, never a context that one names', async () => {
    await using world = await OnboardWorld.start('istio', 'linkerd');
    const before = { istio: bare(await world.mapping('istio')), linkerd: bare(await world.mapping('linkerd')) };
    await onboarded(world);
    world.cluster.api.requests.reset();
    const plan = await world.through(lookAndPlanOff(world.offOptions()), 'the plan');
    assert.match(showOffPlan(plan), /\n\nWhat a release can cost\n {2}Emissary changes [^\n]+ quiet hour\.\n$/);
    await world.through(carryOutOff(plan, world.offOptions()), 'the way out');
    assert.deepEqual(bare(await world.mapping('istio')), before.istio);
    assert.deepEqual(bare(await world.mapping('linkerd')), before.linkerd);
    const done = writes(world);
    for (const mesh of ['istio', 'linkerd']) {
      const released = done.indexOf(`patch mappings/${mesh}`);
      const deleted = done.indexOf(`delete meshcertificates/${mesh}`);
      const gone = done.findIndex((one) => one.startsWith(`delete tlscontexts/${mesh}`));
      assert.ok(0 <= released && released < deleted && deleted < gone, done.join('\n'));
    }
    assert.ok(done.indexOf('delete serviceaccounts/meshcert') > done.indexOf('delete meshcertificates/linkerd'));
    assert.deepEqual(
      done.filter((one) => one.startsWith('delete secrets/')),
      [],
    );
    const nothing = await world.through(lookAndPlanOff(world.offOptions()), 'the plan');
    assert.deepEqual([nothing.leaving, nothing.grants], [[], { steps: [], left: [] }]);
    assert.ok(!showOffPlan(nothing).includes('can cost'));
  });

  it('deletes the Secrets too if deletionPolicy is Delete, after the contexts', async () => {
    await using world = await OnboardWorld.start('istio');
    world.runAgent();
    const options = world.options({ preferences: { changes: [...world.changes(), 'deletionPolicy=Delete'] } });
    const way = await world.through(lookAndPlan(options), 'the plan');
    await world.through(carryOut(way, options), 'the way in');
    world.cluster.api.requests.reset();
    const plan = await world.through(lookAndPlanOff(world.offOptions(['istio'])), 'the plan');
    await world.through(carryOutOff(plan, world.offOptions()), 'the way out');
    const done = writes(world);
    assert.ok(
      !done.includes('delete secrets/istio-identity') || done.includes('delete tlscontexts/istio'),
      done.join(),
    );
    for (const name of ['istio-identity', 'istio-ca']) {
      assert.equal(await world.kube.get({ apiVersion: 'v1', kind: 'Secret', namespace: 'emissary', name }), undefined);
    }
  });

  it('keeps everything while a Mapping names the context by somebody else’s change', async () => {
    await using world = await OnboardWorld.start('istio');
    await onboarded(world);
    const own = { ...(await world.mapping('istio')), metadata: { name: 'by-hand', namespace: 'emissary' } };
    world.cluster.api.put(own);
    const plan = await world.through(lookAndPlanOff(world.offOptions()), 'the plan');
    await assert.rejects(world.through(carryOutOff(plan, world.offOptions()), 'the way out'), {
      code: 'ERR_OFFBOARD_IN_USE',
      message: /spec\.tls of Mapping emissary\/by-hand still names the TLSContext.* Remove spec\.tls there/,
    });
    assert.equal(await world.status('istio'), 200);
  });

  it('names the MeshCertificate that was probably meant', async () => {
    await using world = await OnboardWorld.start('istio');
    await onboarded(world);
    await assert.rejects(world.through(lookAndPlanOff(world.offOptions(['isto'])), 'the plan'), {
      code: 'ERR_ONBOARD_UNKNOWN_NAME',
      message: 'no MeshCertificate "isto" in namespace emissary; did you mean "istio"?',
    });
  });
});

/** What onboarding itself wrote, in order. */
function writes(world: OnboardWorld): string[] {
  return world.cluster.api.requests.entries
    .filter(({ userAgent, verb }) => userAgent === 'meshcert-onboard' && !['get', 'list', 'watch'].includes(verb))
    .map(({ verb, resource, name }) => `${verb} ${resource}/${name}`);
}
