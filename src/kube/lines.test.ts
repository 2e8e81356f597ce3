import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { describe, it } from 'node:test';
import { lines } from './client.ts';

async function read(...chunks: (string | Buffer)[]): Promise<string[]> {
  const all: string[] = [];
  for await (const line of lines(Readable.from(chunks.map((chunk) => Buffer.from(chunk))))) all.push(line);
  return all;
}

describe('the lines of a stream', () => {
  it('are assembled from several chunks, and split out of one', async () => {
    assert.deepEqual(await read('on', 'e\ntwo\nthr', '', 'ee\n'), ['one', 'two', 'three']);
  });

  it('do not include a last one that was cut off', async () => {
    assert.deepEqual(await read('one\n{"type":"ADD'), ['one']);
  });

  it('decode characters whose bytes were split between chunks', async () => {
    const bytes = Buffer.from('é\n');
    assert.deepEqual(await read(bytes.subarray(0, 1), bytes.subarray(1)), ['é']);
  });
});
