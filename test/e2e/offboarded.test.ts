import assert from 'node:assert/strict';
import { it } from 'node:test';
import { AgentWorld } from '../support/agent-world.ts';

/** There are seven watches, and the MeshCertificate reports three of them. */
const MOST_LINES = 10;

it('an agent whose definition and Roles are gone says so in a few lines without stacks, and continues when they are back', async () => {
  await using world = await AgentWorld.start();
  world.putCertificate();
  world.follow();
  await world.untilReady();
  const aged = world.clock.now() + 10_000;
  await world.until('watches that have lasted', () => world.clock.now() >= aged, 1_000);
  world.api.fault({ match: ({ plural }) => plural === 'meshcertificates', status: 404 });
  world.api.fault({ match: ({ plural }) => plural !== 'meshcertificates', status: 403 });
  world.api.dropWatches('end');
  const before = world.lines.length;
  const until = world.clock.now() + 100_000;
  await world.until('100 seconds', () => world.clock.now() >= until, 2_000);
  const lines = world.lines.slice(before).filter((line) => /^(warn|error) /.test(line));
  assert.ok(lines.length <= MOST_LINES, lines.join('\n'));
  assert.ok(
    lines.some((line) => /^warn could not watch meshcertificates.*"code":"ERR_KUBE_NOT_FOUND/.test(line)),
    lines.join('\n'),
  );
  assert.ok(
    lines.some((line) => /^warn could not watch secrets.*"code":"ERR_KUBE_FORBIDDEN"/.test(line)),
    lines.join('\n'),
  );
  for (const line of lines) assert.doesNotMatch(line, /"err":|\n {4}at /);

  world.api.clearFaults();
  const first = await world.leaf();
  await world.until('the next leaf', async () => (await world.leaf()) !== first, 60_000);
  assert.ok(world.lines.slice(before).some((line) => /^info watching meshcertificates again/.test(line)));
});
