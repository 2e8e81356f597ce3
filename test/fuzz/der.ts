/**
 * A DER writer for the certificates of the fuzz tests. It shares no code with the product's, and writes whatever it is
 * given, valid or not.
 */

export type Bytes = Uint8Array;

export function tlv(tag: number, ...contents: readonly Bytes[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.of(tag), derLength(content.length), content]);
}

function derLength(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length);
  const digits = Buffer.from(length.toString(16).padStart(length > 0xffff ? 6 : length > 0xff ? 4 : 2, '0'), 'hex');
  return Buffer.concat([Buffer.of(0x80 | digits.length), digits]);
}

/** The same value with a length of four bytes, which is BER and not DER. */
export function longLength(value: Buffer): Buffer {
  const { tag, content } = split(value);
  const length = Buffer.alloc(5);
  length[0] = 0x84;
  length.writeUInt32BE(content.length, 1);
  return Buffer.concat([Buffer.of(tag), length, content]);
}

/** The same constructed value with an indefinite length, which is BER and not DER. */
export function indefiniteLength(value: Buffer): Buffer {
  const { tag, content } = split(value);
  return Buffer.concat([Buffer.of(tag, 0x80), content, Buffer.of(0, 0)]);
}

/** Tag and content of a value that this file wrote. */
export function split(value: Buffer): { readonly tag: number; readonly content: Buffer } {
  const first = value[1] ?? 0;
  const start = first < 0x80 ? 2 : 2 + (first & 0x7f);
  return { tag: value[0] ?? 0, content: value.subarray(start) };
}

export const sequence = (...items: readonly Bytes[]): Buffer => tlv(0x30, ...items);
export const setOf = (...items: readonly Bytes[]): Buffer => tlv(0x31, ...items);
export const boolean = (value: boolean): Buffer => tlv(0x01, Buffer.of(value ? 0xff : 0));
export const integer = (content: number | Bytes): Buffer =>
  tlv(0x02, typeof content === 'number' ? Buffer.of(content) : content);
export const octets = (content: Bytes): Buffer => tlv(0x04, content);
export const bits = (content: Bytes, unused = 0): Buffer => tlv(0x03, Buffer.of(unused), content);
export const nothing = (): Buffer => tlv(0x05);
export const explicit = (n: number, ...items: readonly Bytes[]): Buffer => tlv(0xa0 | n, ...items);
export const implicit = (n: number, content: Bytes): Buffer => tlv(0x80 | n, content);
export const ascii = (text: string): Buffer => Buffer.from(text, 'latin1');

export const STRING = { utf8: 0x0c, printable: 0x13, t61: 0x14, ia5: 0x16, universal: 0x1c, bmp: 0x1e } as const;

export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const content = [first * 40 + second, ...rest].flatMap((arc) => {
    const septets = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      septets.unshift((left & 0x7f) | 0x80);
    return septets;
  });
  return tlv(0x06, Buffer.from(content));
}

/** Bits of a named bit list, without the zeros at its end. */
export function namedBits(...positions: readonly number[]): Buffer {
  if (positions.length === 0) return bits(Buffer.alloc(0));
  const last = Math.max(...positions);
  const content = Buffer.alloc((last >> 3) + 1);
  for (const at of positions) content[at >> 3] = (content[at >> 3] ?? 0) | (0x80 >> (at & 7));
  return bits(content, 7 - (last & 7));
}

export function pem(label: string, der: Buffer): string {
  const lines = der.toString('base64').match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
