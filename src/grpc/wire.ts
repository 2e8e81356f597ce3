/** Which fields of a message hold messages, by number. */
export type WireShape = ReadonlyMap<number, () => WireShape>;

/** A push with 64 roots and a bundle for each of 256 trust domains has about 1,500 fields. */
const MOST_FIELDS = 10_000;
const VARINT = 0;
const FIXED64 = 1;
const LENGTH = 2;
const FIXED32 = 5;

/**
 * Counts the fields of an encoded message, and of the messages in it, before it is decoded: an empty field takes two
 * bytes there and about a hundred in memory. Throws a RangeError over the limit, and for bytes that are not a message.
 */
export function checkFields(bytes: Uint8Array, shape: WireShape): void {
  new Counting(bytes).message(0, bytes.length, shape);
}

class Counting {
  readonly #bytes: Uint8Array;
  #at = 0;
  #fields = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  message(start: number, end: number, shape: WireShape): void {
    this.#at = start;
    while (this.#at < end) {
      this.#fields += 1;
      if (this.#fields > MOST_FIELDS) throw new RangeError(`a message of more than ${MOST_FIELDS} fields`);
      const tag = this.#varint(end);
      const kind = tag & 7;
      if (kind === VARINT) this.#varint(end);
      else if (kind === FIXED64) this.#at += 8;
      else if (kind === FIXED32) this.#at += 4;
      else if (kind === LENGTH) {
        const stop = this.#varint(end) + this.#at;
        if (stop > end) throw cut();
        const inner = shape.get(Math.floor(tag / 8));
        if (inner) this.message(this.#at, stop, inner());
        this.#at = stop;
      } else throw new RangeError('a message with a field of an unknown kind');
    }
    if (this.#at > end) throw cut();
  }

  /** Exact up to 2^53; no valid tag or length is longer, so the value of longer ones does not matter. */
  #varint(end: number): number {
    let value = 0;
    for (let digit = 0; digit < 10 && this.#at < end; digit++) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * 2 ** (7 * digit);
      if (byte < 0x80) return value;
    }
    throw cut();
  }
}

const cut = (): RangeError => new RangeError('a message that is cut short');
