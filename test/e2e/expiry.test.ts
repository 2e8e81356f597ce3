import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Leadership } from '../../src/agent/election.ts';
import type { PublicationStatus } from '../../src/core/status.ts';
import { readiness } from '../../src/http/source.ts';
import { AgentWorld, NAMESPACE } from '../support/agent-world.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const never: Leadership = {
  leads: () => false,
  fence: () => ({ check() {} }),
  onChange() {},
  run: (signal) => new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
  leases: [],
};

/** The stored status, as any client of the API server reads it. */
async function stored(world: AgentWorld): Promise<PublicationStatus> {
  const ref = { apiVersion: 'meshcert.dev/v1alpha1', kind: 'MeshCertificate', namespace: NAMESPACE, name: 'istio' };
  return (await world.kube.get(ref))?.status as PublicationStatus;
}

const conditionOf = (status: PublicationStatus, type: string) => status.conditions.find((one) => one.type === type);

/** A leaf of an hour, and a mesh that has been down since the leaf was half used. */
async function expired(world: AgentWorld): Promise<number> {
  world.putCertificate();
  world.follow();
  await world.untilReady();
  await world.clock.advance(HOUR / 2);
  world.mesh.outage = true;
  await world.until('expiry', () => world.condition('Ready')?.reason === 'Expired', MINUTE);
  await world.until('an attempt after it', () => secondsSince(world, world.status?.lastError?.time) < 60, 10_000);
  return Date.parse(world.status?.notAfter ?? '');
}

/** Advances the time, with everything that happens in it. */
function pass(world: AgentWorld, ms: number): Promise<void> {
  const end = world.clock.now() + ms;
  return world.until('the time', () => world.clock.now() >= end, 5_000);
}

const secondsSince = (world: AgentWorld, time = '') => (world.clock.now() - Date.parse(time)) / 1000;

describe('after the certificate has expired', () => {
  it('the status names why no newer one came, since when, and the last and the next attempt', async () => {
    await using world = await AgentWorld.start();
    const end = await expired(world);
    for (const status of [world.status as PublicationStatus, await stored(world)]) {
      const { lastError, nextAttemptTime } = status;
      assert.equal(lastError?.code, 'ERR_MESH_UNREACHABLE');
      const since = lastError.firstTime ?? '';
      assert.ok(Date.parse(since) < end && Date.parse(since) > end - HOUR / 2, `failing since ${since}`);
      assert.ok(Date.parse(lastError.time) > Date.parse(since));
      assert.ok(Date.parse(nextAttemptTime ?? '') - Date.parse(lastError.time) <= 30_000, nextAttemptTime);
      const ready = conditionOf(status, 'Ready');
      assert.ok(ready?.message.includes(`Since ${since}: ERR_MESH_UNREACHABLE: the toy CA does not answer`));
      assert.equal(conditionOf(status, 'Degraded')?.reason, 'MeshUnreachable');
      assert.match(conditionOf(status, 'Degraded')?.message ?? '', /ERR_MESH_UNREACHABLE/);
      assert.match(conditionOf(status, 'Published')?.message ?? '', /ERR_MESH_UNREACHABLE/);
      assert.doesNotMatch(JSON.stringify(status), /ERR_VERIFY_EXPIRED/);
    }
    const { problems } = readiness({ ready: true, problems: [] }, world.board.all());
    const { lastError, nextAttemptTime } = world.status ?? {};
    assert.deepEqual(
      problems.map(({ message: _, ...rest }) => rest),
      [
        {
          code: 'ERR_MESH_UNREACHABLE',
          certificate: 'emissary/istio',
          since: lastError?.firstTime,
          lastTime: lastError?.time,
          nextAttemptTime,
        },
      ],
    );
  });

  it('the times of attempts are written at most every two minutes', async () => {
    await using world = await AgentWorld.start();
    await expired(world);
    world.api.requests.reset();
    const asked = world.mesh.asked;
    await pass(world, 20 * MINUTE);
    const writes = world.api.requests.entries.filter(({ resource }) => resource === 'meshcertificates/status');
    assert.ok(world.mesh.asked - asked >= 40, `${world.mesh.asked - asked} attempts`);
    assert.ok(writes.length >= 8 && writes.length <= 11, `${writes.length} writes`);
    assert.ok(secondsSince(world, (await stored(world)).lastError?.time) < 150);
  });

  it('the log repeats it at warn every ten minutes', async () => {
    await using world = await AgentWorld.start();
    await expired(world);
    world.lines.length = 0;
    await pass(world, HOUR);
    const lines = world.lines.filter((line) => /^(warn|error)/.test(line));
    const ended = lines.filter((line) => line.startsWith('warn the certificate has expired, and no newer one came'));
    assert.ok(ended.length >= 5 && ended.length <= 7, lines.join('\n'));
    assert.ok(lines.length <= 14, lines.join('\n'));
    for (const field of ['ERR_MESH_UNREACHABLE', '"since"', '"lastAttempt"', '"nextAttempt"', '"notAfter"']) {
      assert.ok(
        ended.every((line) => line.includes(field)),
        field,
      );
    }
  });

  it('a restart forgets neither the cause nor when it began', async () => {
    await using world = await AgentWorld.start();
    await expired(world);
    const before = await stored(world);
    await world.stop();
    await world.clock.advance(5 * MINUTE);
    world.follow();
    await world.until('the first status', () => world.status !== undefined);
    assert.equal(world.status?.lastError?.code, 'ERR_MESH_UNREACHABLE');
    await world.until('an attempt of its own', () => secondsSince(world, world.status?.lastError?.time) < 60);
    assert.equal(world.status?.lastError?.firstTime, before.lastError?.firstTime);
    assert.equal((await stored(world)).lastError?.firstTime, before.lastError?.firstTime);
  });

  it('nothing of it is left once the mesh is back', async () => {
    await using world = await AgentWorld.start();
    await expired(world);
    world.mesh.outage = false;
    await world.untilReady();
    await world.until('nothing degraded', async () => conditionOf(await stored(world), 'Degraded')?.status === 'False');
    const { lastError, nextAttemptTime } = await stored(world);
    assert.deepEqual([lastError, nextAttemptTime], [undefined, undefined]);
    assert.ok(world.lines.some((line) => line.startsWith('info No problems.')));
  });
});

describe('a follower', () => {
  it('reports what the leader has found, and logs no rotation', async () => {
    await using world = await AgentWorld.start();
    await using second = AgentWorld.beside(world, never);
    world.putCertificate();
    world.follow();
    await world.untilReady();
    second.follow();
    await second.untilReady();
    const first = world.status?.fingerprint;
    await world.until('a rotation', () => world.status?.fingerprint !== first, MINUTE);
    await second.until('the same status', () => second.status?.fingerprint === world.status?.fingerprint);
    await second.until('the same time', () => second.status?.renewalTime === world.status?.renewalTime);
    assert.deepEqual(
      second.lines.filter((line) => /^(info|warn|error)/.test(line)),
      [],
    );
    world.mesh.outage = true;
    await world.until('expiry', () => world.condition('Ready')?.reason === 'Expired', MINUTE);
    await second.until('the cause', () => second.status?.lastError?.code === 'ERR_MESH_UNREACHABLE');
    assert.equal(second.condition('Degraded')?.reason, 'MeshUnreachable');
    assert.equal(second.status?.lastError?.firstTime, world.status?.lastError?.firstTime);
  });
});

describe('a normal rotation', () => {
  it('is one line at info', async () => {
    await using world = await AgentWorld.start();
    world.putCertificate();
    world.follow();
    await world.untilReady();
    const first = world.status?.fingerprint;
    world.lines.length = 0;
    await world.until('a rotation', () => world.status?.fingerprint !== first, MINUTE);
    const lines = world.lines.filter((line) => /^(info|warn|error)/.test(line));
    assert.equal(lines.length, 1, lines.join('\n'));
    assert.match(lines[0] ?? '', /^info certificate published .*"objects":\["Secret emissary\/istio-identity"\]/);
  });
});
