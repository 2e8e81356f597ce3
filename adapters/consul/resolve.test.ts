import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Lookup, resolveServers } from './protocol.ts';

const live = () => new AbortController().signal;

const hosts: Readonly<Record<string, readonly string[]>> = {
  'one.svc': ['10.0.0.1'],
  'three.svc': ['10.0.0.1', '10.0.0.2', 'fd00::3', '10.0.0.2'],
};
const find: Lookup = async (host) => {
  const found = hosts[host];
  if (!found) throw new Error(`getaddrinfo ENOTFOUND ${host}`);
  return found;
};

test('a name for several servers is one server for each, verified by that name', async () => {
  assert.deepEqual(await resolveServers(['three.svc:8502'], undefined, live(), find), [
    { address: '10.0.0.1:8502', name: 'three.svc:8502 (10.0.0.1)', serverName: 'three.svc' },
    { address: '10.0.0.2:8502', name: 'three.svc:8502 (10.0.0.2)', serverName: 'three.svc' },
    { address: '[fd00::3]:8502', name: 'three.svc:8502 (fd00::3)', serverName: 'three.svc' },
  ]);
});

test('a configured server name goes with each of them', async () => {
  const servers = await resolveServers(['three.svc:8502'], 'server.dc1.consul', live(), find);
  assert.deepEqual(new Set(servers.map(({ serverName }) => serverName)), new Set(['server.dc1.consul']));
});

test('a name for one server is dialled as it is, and an address is not resolved', async () => {
  const never: Lookup = () => Promise.reject(new Error('looked up'));
  assert.deepEqual(await resolveServers(['one.svc:8502'], undefined, live(), find), [
    { address: 'one.svc:8502', name: 'one.svc:8502', serverName: undefined },
  ]);
  assert.equal((await resolveServers(['10.0.0.9:8502', '[::1]:8502'], undefined, live(), never)).length, 2);
});

test('names that resolve to nothing are skipped while another one resolves', async () => {
  const servers = await resolveServers(['gone.svc:8502', 'one.svc:8502'], undefined, live(), find);
  assert.deepEqual(
    servers.map(({ name }) => name),
    ['one.svc:8502'],
  );
  await assert.rejects(resolveServers(['gone.svc:8502'], undefined, live(), find), {
    code: 'ERR_MESH_UNREACHABLE',
    message: /gone\.svc:8502: getaddrinfo ENOTFOUND/,
  });
});

test('a lookup that hangs is abandoned when aborted', async () => {
  const abort = new AbortController();
  const resolving = resolveServers(['slow.svc:8502'], undefined, abort.signal, () => new Promise(() => {}));
  abort.abort(new Error('enough'));
  await assert.rejects(resolving, /enough/);
});
