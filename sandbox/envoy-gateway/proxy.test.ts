import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { afterEach, beforeEach, test } from 'node:test';
import { FakeClock } from '../../test/support/fake-clock.ts';
import { listen } from '../tls/upstream.ts';
import { GatewayProxy } from './proxy.ts';
import type { ProxyCluster } from './translation.ts';

const CLUSTER: ProxyCluster = { name: 'httproute/shop/web/rule/0', host: 'web.shop', port: 443, tls: undefined };
const TLS: ProxyCluster = {
  ...CLUSTER,
  tls: { roots: 'roots', client: undefined, sni: 'web.shop', names: [], alpn: [] },
};

let proxy: GatewayProxy;
let port: number;
const servers: Server[] = [];

beforeEach(async () => {
  const { signal } = new AbortController();
  const resolve = () => ({ host: '127.0.0.1', port });
  proxy = new GatewayProxy({ clock: new FakeClock(), signal, resolve, warmingMs: 0, freshEvery: 0 });
  await proxy.start();
  apply(CLUSTER);
});

afterEach(async () => {
  await proxy.stop();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

function apply(...clusters: readonly ProxyCluster[]): void {
  proxy.apply({ routes: clusters.map((cluster) => ({ prefix: '/', cluster })), secrets: new Map() });
}

async function serve(answer: RequestListener): Promise<number> {
  const server = createServer(answer);
  servers.push(server);
  return await listen(server);
}

async function get(): Promise<string> {
  const response = await fetch(proxy.url);
  return `${response.status} ${await response.text()}`;
}

/** An upstream that holds each request until the test answers it. */
async function holding(): Promise<() => Promise<ServerResponse>> {
  const server = createServer();
  servers.push(server);
  port = await listen(server);
  return async () => {
    const [, response] = await once(server, 'request');
    return response;
  };
}

test('after a pod has left the endpoints, no request goes to it on a connection that is still open', async () => {
  let requests = 0;
  // As a pod that ends: it closes its connections, here at the very moment at which a request arrives.
  port = await serve((request, response) => (++requests === 1 ? response.end('old') : request.socket.destroy()));
  assert.equal(await get(), '200 old');
  port = await serve((_, response) => response.end('new'));
  assert.equal(await get(), '200 new');
  assert.equal(requests, 1);
});

test('an open connection to a pod that stays is used again', async () => {
  const ports = new Set<number | undefined>();
  port = await serve(({ socket }, response) => response.end(`${ports.add(socket.remotePort).size}`));
  assert.equal(await get(), '200 1');
  assert.equal(await get(), '200 1');
});

for (const [what, next] of [
  ['gets its first policy', [TLS]],
  ['is no longer routed to', []],
] as const) {
  test(`a request in progress is answered when its cluster ${what}`, async () => {
    const arrives = await holding();
    const answer = get();
    const held = await arrives();
    apply(...next);
    held.end('in time');
    assert.equal(await answer, '200 in time');
  });
}

test('it does not end idle connections after seconds, as Envoy does not for an hour', async () => {
  port = await serve((_, response) => response.end());
  const { headers } = await fetch(proxy.url);
  assert.equal(headers.get('keep-alive'), null);
});
