import { PkiError } from './error.ts';

/** ASN.1 tags in DER, for the few types that certificates and requests consist of. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8: 0x0c,
  numeric: 0x12,
  printable: 0x13,
  t61: 0x14,
  ia5: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  bmp: 0x1e,
  sequence: 0x30,
  set: 0x31,
} as const;

type Bytes = Uint8Array;

export function tlv(tag: number, ...contents: Bytes[]): Buffer {
  const content = Buffer.concat(contents);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  const digits: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) digits.unshift(rest % 256);
  return Buffer.from([0x80 | digits.length, ...digits]);
}

export const seq = (...items: Bytes[]): Buffer => tlv(TAG.sequence, ...items);
/** SET OF: sorted, as DER requires. */
export const set = (...items: Bytes[]): Buffer => tlv(TAG.set, ...items.map(Buffer.from).sort(Buffer.compare));
export const bool = (value: boolean): Buffer => tlv(TAG.boolean, Buffer.from([value ? 0xff : 0]));
export const nullValue = (): Buffer => tlv(TAG.null);
export const utf8 = (text: string): Buffer => tlv(TAG.utf8, Buffer.from(text, 'utf8'));
export const octetString = (content: Bytes): Buffer => tlv(TAG.octetString, content);
export const bitString = (content: Bytes, unusedBits = 0): Buffer =>
  tlv(TAG.bitString, Buffer.from([unusedBits]), content);
/** `[n] IMPLICIT` over a primitive type: its content without tag and length. */
export const context = (n: number, content: Bytes): Buffer => tlv(0x80 | n, content);
/** `[n]` constructed: EXPLICIT over one item, IMPLICIT over a SEQUENCE or SET when given its items. */
export const explicit = (n: number, ...items: Bytes[]): Buffer => tlv(0xa0 | n, ...items);

/** A non-negative INTEGER, from a number or from big-endian bytes (a serial number). */
export function int(value: number | bigint | Bytes): Buffer {
  let bytes: Buffer;
  if (value instanceof Uint8Array) bytes = Buffer.from(value);
  else {
    const hex = value.toString(16);
    bytes = Buffer.from(hex.length % 2 ? `0${hex}` : hex, 'hex');
  }
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  bytes = bytes.subarray(start);
  const first = bytes[0] ?? 0;
  return tlv(TAG.integer, ...(bytes.length === 0 || first >= 0x80 ? [Buffer.from([0])] : []), bytes);
}

export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes: number[] = [];
  for (const arc of [first * 40 + second, ...rest]) {
    const digits = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) digits.unshift(0x80 | (left % 128));
    bytes.push(...digits);
  }
  return tlv(TAG.oid, Buffer.from(bytes));
}

/** UTCTime to 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5); whole seconds, rounded down. */
export function time(epochMs: number): Buffer {
  const text = new Date(epochMs).toISOString().replace(/[-:T]|\.\d+/g, '');
  const year = Number(text.slice(0, 4));
  return year < 2050
    ? tlv(TAG.utcTime, Buffer.from(text.slice(2), 'latin1'))
    : tlv(TAG.generalizedTime, Buffer.from(text, 'latin1'));
}

/** One value as read: `raw` includes tag and length, `content` does not. */
export interface Tlv {
  readonly tag: number;
  readonly content: Buffer;
  readonly raw: Buffer;
}

/** Reads the value that starts at `offset`; throws ERR_DER_SYNTAX on anything that is not definite-length DER. */
export function readTlv(bytes: Buffer, offset = 0): Tlv {
  const tag = bytes[offset];
  const first = bytes[offset + 1];
  if (tag === undefined || first === undefined) throw new PkiError('ERR_DER_SYNTAX', 'DER ends within a value');
  if ((tag & 0x1f) === 0x1f) throw new PkiError('ERR_DER_SYNTAX', 'DER has a tag of more than one byte');
  let start = offset + 2;
  let length = first;
  if (first >= 0x80) {
    const digits = first & 0x7f;
    // Four bytes of length are 4 GiB: more than any input here may have.
    if (digits === 0 || digits > 4) throw new PkiError('ERR_DER_SYNTAX', 'DER has an unusable length');
    if (start + digits > bytes.length) throw new PkiError('ERR_DER_SYNTAX', 'DER ends within a length');
    length = bytes.readUIntBE(start, digits);
    if (length < 0x80 || length < 256 ** (digits - 1)) {
      throw new PkiError('ERR_DER_SYNTAX', 'DER has a length in more bytes than needed');
    }
    start += digits;
  }
  if (start + length > bytes.length) throw new PkiError('ERR_DER_SYNTAX', 'DER is cut short');
  return { tag, content: bytes.subarray(start, start + length), raw: bytes.subarray(offset, start + length) };
}

/** The values inside a SEQUENCE, SET or constructed context tag. */
export function children(parent: Tlv): Tlv[] {
  const items: Tlv[] = [];
  for (let offset = 0; offset < parent.content.length; ) {
    const item = readTlv(parent.content, offset);
    items.push(item);
    offset += item.raw.length;
  }
  return items;
}

export function readOid(value: Tlv): string {
  if (value.tag !== TAG.oid || value.content.length === 0) throw new PkiError('ERR_DER_SYNTAX', 'expected an OID');
  const arcs: number[] = [];
  let arc = 0;
  let isBegun = false;
  for (const byte of value.content) {
    if (!isBegun && byte === 0x80) throw new PkiError('ERR_DER_SYNTAX', 'an OID has more bytes than needed');
    arc = arc * 128 + (byte & 0x7f);
    isBegun = byte >= 0x80;
    if (!isBegun) {
      arcs.push(arc);
      arc = 0;
    }
  }
  if (isBegun) throw new PkiError('ERR_DER_SYNTAX', 'an OID ends within an arc');
  const [head = 0, ...rest] = arcs;
  const first = Math.min(2, Math.floor(head / 40));
  return [first, head - first * 40, ...rest].join('.');
}

/** UTCTime or GeneralizedTime in Zulu form, as epoch milliseconds. */
export function readTime(value: Tlv): number {
  const text = value.content.toString('latin1');
  const match = /^(\d{2}|\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(text);
  const [, yy = '', month, day, hour, minute, second] = match ?? [];
  if (!match || value.tag !== (yy.length === 2 ? TAG.utcTime : TAG.generalizedTime)) {
    throw new PkiError('ERR_DER_SYNTAX', 'a time is not in the form that RFC 5280 requires');
  }
  const year = yy.length === 4 ? yy : `${Number(yy) < 50 ? '20' : '19'}${yy}`;
  const iso = `${year}-${month}-${day}T${hour}:${minute}:${second}`;
  const ms = Date.parse(`${iso}Z`);
  // 30 February is read as 2 March, 24:00 as the next day.
  if (Number.isNaN(ms) || !new Date(ms).toISOString().startsWith(iso)) {
    throw new PkiError('ERR_DER_SYNTAX', 'a time does not exist in the calendar');
  }
  return ms;
}
