import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { describe, it } from 'node:test';
import { connect } from 'node:tls';
import { settle } from '../../test/support/fake-clock.ts';
import { peek } from './client-hello.ts';

/** The first bytes from a client. */
async function hello(servername?: string): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect({
    port: (server.address() as AddressInfo).port,
    host: '127.0.0.1',
    ...(servername && { servername }),
  });
  client.on('error', () => {});
  const [socket] = (await once(server, 'connection')) as [Socket];
  const [data] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  server.close();
  return data;
}

const feed = () => new PassThrough() as unknown as Socket & PassThrough;

describe('the beginning of a connection', () => {
  it('is reported with its server name, and can still be read', async () => {
    const bytes = await hello('web.shop.example');
    const socket = feed();
    const beginning = peek(socket);
    socket.push(bytes);
    assert.deepEqual(await beginning, { tls: true, serverName: 'web.shop.example' });
    assert.deepEqual(socket.read(), bytes);
  });

  it('is awaited when it comes in pieces', async () => {
    const bytes = await hello('web.shop.example');
    for (const at of [1, 4, 40, bytes.length - 1]) {
      const socket = feed();
      let called = false;
      const beginning = peek(socket).finally(() => {
        called = true;
      });
      socket.push(bytes.subarray(0, at));
      await settle();
      assert.equal(called, false, `after ${at} bytes`);
      socket.push(bytes.subarray(at));
      assert.deepEqual(await beginning, { tls: true, serverName: 'web.shop.example' });
      assert.deepEqual(socket.read(), bytes);
    }
  });

  it('may name no server, or be no TLS at all', async () => {
    const nameless = feed();
    const first = peek(nameless);
    nameless.push(await hello());
    assert.deepEqual(await first, { tls: true, serverName: undefined });
    const plain = feed();
    const second = peek(plain);
    plain.push('GET / HTTP/1.1\r\n');
    assert.deepEqual(await second, { tls: false });
  });

  it('is undefined when the connection ends before it', async () => {
    const socket = feed();
    const beginning = peek(socket);
    socket.push((await hello('web')).subarray(0, 10));
    socket.push(null);
    assert.equal(await beginning, undefined);
  });
});
