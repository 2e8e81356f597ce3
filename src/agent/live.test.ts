import assert from 'node:assert/strict';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { it, type TestContext } from 'node:test';
import { systemClock } from '../async/clock.ts';
import { askGateway } from './live.ts';

async function ask(test: TestContext, listener: RequestListener, wanted?: readonly string[]): Promise<object> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const answer = await askGateway(
    { url: new URL(`http://127.0.0.1:${port}/`), ...(wanted ? { wanted } : {}) },
    systemClock,
    test.signal,
  );
  if ('failure' in answer) return { failure: answer.failure.replace(`:${port}`, '') };
  return answer;
}

it('an answer of a gateway is read', async (test) => {
  const answer = await ask(test, (_, response) => response.end('{"tlscontexts":["a"]}'));
  assert.deepEqual(answer, { body: { tlscontexts: ['a'] } });
});

it('an answer that never ends is not read to the end', async (test) => {
  const answer = await ask(test, (_, response) => {
    const more = () => {
      while (response.write(Buffer.alloc(65_536, ' '))) if (response.destroyed) return;
    };
    response.on('drain', more);
    more();
  });
  assert.deepEqual(answer, { failure: 'http://127.0.0.1 answers with more than 16 MiB' });
});

it('an answer that takes far more memory than its text is not decoded', async (test) => {
  const deep = await ask(test, (_, response) => response.end('['.repeat(1_000_000)));
  assert.deepEqual(deep, { failure: 'http://127.0.0.1 answers with JSON of more than 32 levels' });
  const wide = await ask(test, (_, response) => response.end(`[${'0,'.repeat(2_000_000)}0]`));
  assert.deepEqual(wide, { failure: 'http://127.0.0.1 answers with JSON of more than 500000 values' });
  const none = await ask(test, (_, response) => response.end('<html>'));
  assert.deepEqual(none, { failure: 'http://127.0.0.1 answers something that is not JSON' });
});

it('of an answer with lines only the wanted ones are kept, and none of a line without an end', async (test) => {
  const text = '# TYPE b gauge\na{x="1"} 1\nb{x="2"} 2\nab 3\nb 4\nb 5';
  const wanted = await ask(test, (_, response) => response.end(text), ['b']);
  assert.deepEqual(wanted, { body: ['b{x="2"} 2', 'b 4'] });
  const long = await ask(test, (_, response) => response.end('b'.repeat(100_000)), ['b']);
  assert.deepEqual(long, { failure: 'http://127.0.0.1 answers with a line of more than 65536 characters' });
  const many = await ask(test, (_, response) => response.end(`b${'x'.repeat(8_000)}\n`.repeat(2_200)), ['b']);
  assert.deepEqual(many, { failure: 'http://127.0.0.1 answers with more than 16 MiB of the lines asked for' });
});
