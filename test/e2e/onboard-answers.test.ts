import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, it } from 'node:test';
import { carryOut, leftBehind, lookAndPlan } from '../../src/onboard/onboard.ts';
import { bare } from '../../src/onboard/snapshot.ts';
import { OnboardWorld } from '../support/onboard-world.ts';

/** Whether the gateway sends requests of this prefix by TLS. */
const isMoved = ({ cluster: { gateway } }: OnboardWorld, path: string): boolean => {
  const { routes, clusters } = gateway.configuration;
  const route = routes.find(({ prefix }) => prefix === path);
  return route !== undefined && clusters.get(route.cluster)?.tls !== undefined;
};

/** In front of the gateway, or in its place. */
async function listening(serve: (socket: Socket) => void) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

describe('a move that is checked by requests through the gateway', () => {
  for (const [before, after, kept] of [
    [200, 403, false],
    [404, 404, true],
  ] as const) {
    it(`${kept ? 'leaves' : 'moves back'} a Mapping that turns from ${before} into ${after}`, async () => {
      await using world = await OnboardWorld.start('istio');
      world.runAgent();
      await using front = await listening((socket) => {
        const status = isMoved(world, '/istio/') ? after : before;
        socket.once('data', () => socket.end(`HTTP/1.1 ${status} x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`));
      });
      const was = bare(await world.mapping('istio'));
      const options = world.options({ gatewayUrl: `http://127.0.0.1:${front.port}`, settleMs: 3000 });
      const plan = await world.through(lookAndPlan(options), 'the plan');
      const left = await world.through(carryOut(plan, options), 'the way in');
      const said = world.said.join('\n');
      if (kept) {
        assert.equal(leftBehind(left), undefined, said);
        assert.match(said, new RegExp(`Mapping emissary/istio moved to istio: .*HTTP ${after}`));
        return;
      }
      assert.equal(leftBehind(left)?.code, 'ERR_ONBOARD_LEFT_BEHIND', said);
      assert.match(said, new RegExp(`ERR_ONBOARD_NOT_CONFIRMED: reverted: .*HTTP ${after} after .*HTTP ${before}`));
      assert.deepEqual(bare(await world.mapping('istio')), was);
    });
  }

  it('moves back a Mapping of which one of two pods refuses the identity', async () => {
    await using world = await OnboardWorld.start('istio');
    world.runAgent();
    let requests = 0;
    await using front = await listening((socket) => {
      const status = isMoved(world, '/istio/') && requests++ % 2 === 0 ? 403 : 200;
      socket.once('data', () => socket.end(`HTTP/1.1 ${status} x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`));
    });
    const options = world.options({ gatewayUrl: `http://127.0.0.1:${front.port}`, settleMs: 10_000 });
    const plan = await world.through(lookAndPlan(options), 'the plan');
    assert.equal((await world.through(carryOut(plan, options), 'the way in')).length, 1, world.said.join('\n'));
  });

  it('tries a TCPMapping by a connection, and moves it back when the gateway ends that', async () => {
    for (const [refuses, port] of [
      [false, undefined],
      [true, undefined],
      [true, 1],
    ] as const) {
      await using world = await OnboardWorld.start('istio');
      world.runAgent();
      await using front = await listening((socket) => {
        const isOverTls = [...world.cluster.gateway.configuration.clusters.values()].some(({ tls }) => tls);
        if (refuses && isOverTls) socket.end();
      });
      world.cluster.api.put({
        apiVersion: 'getambassador.io/v3alpha1',
        kind: 'TCPMapping',
        metadata: { name: 'db', namespace: 'emissary' },
        spec: { port: port ?? front.port, service: 'web.istio-apps:443' },
      });
      const preferences = { changes: world.changes(), routes: ['emissary/db'] };
      const options = world.options({ gatewayUrl: `http://127.0.0.1:${front.port}`, settleMs: 3000, preferences });
      const plan = await world.through(lookAndPlan(options), 'the plan');
      const left = await world.through(carryOut(plan, options), 'the way in');
      const said = world.said.join('\n');
      const expected = !refuses
        ? /TCPMapping emissary\/db moved to istio: .*the connection stays open/
        : port === undefined
          ? /ERR_ONBOARD_NOT_CONFIRMED: reverted: .*the gateway ended the connection.*before the move the connection stays open/
          : /moved to istio: .*not tried through the gateway: port 1 of the gateway cannot be reached from here: .*ECONNREFUSED/;
      assert.match(said, expected);
      assert.equal(left.length, refuses && port === undefined ? 1 : 0, said);
    }
  });

  it('says of a Mapping that serves no safe request that it was not tried', async () => {
    await using world = await OnboardWorld.start('istio');
    world.runAgent();
    const mapping = await world.mapping('istio');
    world.cluster.api.put({ ...mapping, spec: { ...(mapping.spec as object), method: 'POST' } });
    const options = world.options();
    const plan = await world.through(lookAndPlan(options), 'the plan');
    assert.deepEqual(await world.through(carryOut(plan, options), 'the way in'), []);
    assert.match(
      world.said.join('\n'),
      /not tried through the gateway: it serves POST only, which can change something/,
    );
  });
});
