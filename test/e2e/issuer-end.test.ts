import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AgentWorld } from '../support/agent-world.ts';
import { TOY_ID } from '../support/toy-mesh.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** A mesh whose issuer ends in ten hours and shortens day-long leaves to its own end, as Linkerd does. */
async function start() {
  const world = await AgentWorld.start();
  const { clock, mesh } = world;
  const root = mesh.ca;
  let issuer = root.intermediate({ name: 'ending issuer', lifetimeMs: 10 * HOUR });
  mesh.answer = () => {
    const notAfter = Math.min(clock.now() + 24 * HOUR, issuer.certificate.notAfter);
    return { ...issuer.identity({ uris: [TOY_ID], notBefore: clock.now(), notAfter }), roots: mesh.roots };
  };
  const renewIssuer = () => {
    issuer = root.intermediate({ name: 'next issuer', lifetimeMs: 1000 * HOUR });
  };
  const writes = () =>
    world.api.requests.entries.filter(({ verb, resource }) => verb === 'patch' && resource === 'secrets').length;
  return Object.assign(world, { renewIssuer, writes, end: issuer.certificate.notAfter });
}

describe('an issuer that ends', () => {
  it('costs no write and few requests while its leaves end with it, and is named', async () => {
    await using world = await start();
    const { clock, mesh } = world;
    world.run();
    await world.untilReady();
    const first = await world.leaf();
    world.api.requests.reset();
    await world.until('the second request', () => mesh.issued >= 2, MINUTE);
    await world.until('the condition', () => world.condition('IssuerEnding')?.status === 'True', MINUTE);
    assert.match(world.condition('IssuerEnding')?.message ?? '', /CN=ending issuer ends at /);
    assert.equal(world.status?.issuer?.subject, 'CN=ending issuer');
    assert.equal(world.condition('Ready')?.status, 'True');
    assert.ok(Date.parse(world.status?.renewalTime ?? '') > clock.now(), 'the time of the next request is told');
    await world.until('the last minute', () => clock.now() > world.end - MINUTE, 10_000);
    assert.equal(await world.leaf(), first);
    assert.equal(world.writes(), 0);
    assert.ok(mesh.issued < 12, `${mesh.issued} requests in ten hours`);
  });

  it('is followed by its successor as soon as the mesh has one', async () => {
    await using world = await start();
    world.run();
    await world.untilReady();
    await world.until('the second request', () => world.mesh.issued >= 2, MINUTE);
    const first = await world.leaf();
    world.renewIssuer();
    await world.until('the next leaf', () => world.status?.fingerprint !== first, MINUTE);
    await world.until('no issuer that ends', () => world.condition('IssuerEnding')?.status === 'False');
    assert.equal(world.status?.issuer?.subject, 'CN=next issuer');
  });

  it('does not delay a leaf that a user requested', async () => {
    await using world = await start();
    world.run();
    await world.untilReady();
    const first = world.status?.fingerprint;
    await world.until('the second request', () => world.mesh.issued >= 2, MINUTE);
    assert.equal(world.status?.fingerprint, first);
    world.agent?.reconcilers.find('emissary', 'istio')?.renew();
    await world.until('another leaf', () => world.status?.fingerprint !== first);
  });
});
