/** No network sends smaller packets; each piece costs microseconds, however small it is. */
const LEAST_PIECE = 256;
/** Allowed for an answer that is written field by field. */
const SMALL_PIECES = 1024;

/**
 * All bytes of a stream, or undefined when there are more than `most`, or far more pieces than that many bytes need;
 * the rest is not read then. Each piece is copied and none is kept, so that small pieces take no more memory than large
 * ones.
 */
export async function bounded(stream: AsyncIterable<Uint8Array>, most: number): Promise<Buffer | undefined> {
  let bytes = Buffer.allocUnsafe(0);
  let size = 0;
  let pieces = SMALL_PIECES + most / LEAST_PIECE;
  for await (const piece of stream) {
    pieces -= 1;
    if (size + piece.length > most || pieces < 0) return undefined;
    if (size + piece.length > bytes.length) {
      const larger = Buffer.allocUnsafe(Math.min(most, Math.max(16_384, 2 * (size + piece.length))));
      bytes.copy(larger, 0, 0, size);
      bytes = larger;
    }
    bytes.set(piece, size);
    size += piece.length;
  }
  return bytes.subarray(0, size);
}
