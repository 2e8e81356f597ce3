import type { Readable } from 'node:stream';

/**
 * The lines of a stream of text, without their ends; a last line without one is dropped as cut off. Throws a RangeError
 * for a line of more than `longest` characters.
 */
export async function* lines(stream: Readable, longest = Number.POSITIVE_INFINITY): AsyncGenerator<string> {
  stream.setEncoding('utf8');
  let rest: string[] = [];
  let length = 0;
  for await (const chunk of stream) {
    const parts = String(chunk).split('\n');
    const last = parts.pop() ?? '';
    for (const part of parts) {
      yield rest.length === 0 ? part : rest.join('') + part;
      rest = [];
      length = 0;
    }
    if (last !== '') rest.push(last);
    length += last.length;
    if (length > longest) throw new RangeError(`a line of more than ${longest} characters`);
  }
}
