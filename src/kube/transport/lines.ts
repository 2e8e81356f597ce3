import type { Readable } from 'node:stream';

/** The lines of a stream of text, without their ends; a last line without one is dropped as cut off. */
export async function* lines(stream: Readable): AsyncGenerator<string> {
  stream.setEncoding('utf8');
  let rest: string[] = [];
  for await (const chunk of stream) {
    const parts = String(chunk).split('\n');
    const last = parts.pop() ?? '';
    for (const part of parts) {
      yield rest.length === 0 ? part : rest.join('') + part;
      rest = [];
    }
    if (last !== '') rest.push(last);
  }
}
