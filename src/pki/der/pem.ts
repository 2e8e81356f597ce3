import { PkiError } from './error.ts';

export interface PemBlock {
  readonly label: string;
  readonly der: Buffer;
}

export interface PemLimits {
  /** Whole input, bytes. */
  readonly bytes: number;
  readonly blocks: number;
}

/**
 * 1 MiB is the size limit of a Kubernetes Secret; a public root store of 150 certificates is a quarter of that. Without
 * caps a hostile issuer can make the reader work for minutes (GHSA-r4pg-vg54-wxx4).
 */
export const PEM_LIMITS: PemLimits = { bytes: 1024 * 1024, blocks: 256 };

const BEGIN = '-----BEGIN ';
const END = '-----END ';
const DASHES = '-----';
/** Longest label in use is `ENCRYPTED PRIVATE KEY`. */
const LONGEST_LABEL = 40;

/**
 * All PEM blocks, in order, in linear time. Text between blocks, CRLF, indentation and a missing newline between two
 * blocks are tolerated; a block that is truncated, mislabelled, nested, encrypted by headers or not base64 is an error,
 * as is an input without any block.
 */
export function parsePem(input: string | Uint8Array, limits: PemLimits = PEM_LIMITS): PemBlock[] {
  if (input.length > limits.bytes) {
    throw new PkiError('ERR_PEM_TOO_LARGE', `PEM input of ${input.length} bytes is over the limit of ${limits.bytes}`);
  }
  const text = typeof input === 'string' ? input : Buffer.from(input).toString('latin1');
  const blocks: PemBlock[] = [];
  let at = 0;
  for (;;) {
    const begin = text.indexOf(BEGIN, at);
    const stray = text.slice(at, begin < 0 ? undefined : begin).indexOf(END);
    if (stray >= 0) throw new PkiError('ERR_PEM_SYNTAX', `PEM block ${blocks.length + 1} has an end but no beginning`);
    if (begin < 0) break;
    if (blocks.length >= limits.blocks) {
      throw new PkiError('ERR_PEM_TOO_MANY', `PEM input has more than ${limits.blocks} blocks`);
    }
    const { block, next } = readBlock(text, begin, blocks.length + 1);
    blocks.push(block);
    at = next;
  }
  if (blocks.length === 0) throw new PkiError('ERR_PEM_EMPTY', 'input has no PEM block');
  return blocks;
}

function readBlock(text: string, begin: number, ordinal: number): { block: PemBlock; next: number } {
  const wrong = (what: string) => new PkiError('ERR_PEM_SYNTAX', `PEM block ${ordinal} ${what}`);
  const labelStart = begin + BEGIN.length;
  const labelEnd = text.slice(labelStart, labelStart + LONGEST_LABEL + DASHES.length).indexOf(DASHES);
  if (labelEnd < 0) throw wrong('has no readable label');
  const label = text.slice(labelStart, labelStart + labelEnd);
  if (!/^[A-Z0-9][A-Z0-9 .]*$/.test(label)) throw wrong('has no readable label');
  const bodyStart = labelStart + labelEnd + DASHES.length;
  const bodyEnd = text.indexOf(DASHES, bodyStart);
  const end = `${END}${label}${DASHES}`;
  if (bodyEnd < 0) throw wrong(`(${label}) is cut short: it has no end`);
  if (!text.startsWith(end, bodyEnd)) throw wrong(`(${label}) does not end with its own label`);
  const body = text.slice(bodyStart, bodyEnd);
  if (body.includes(':')) throw wrong(`(${label}) has headers, as encrypted keys have; decrypt it first`);
  const base64 = body.replace(/[\s\0]+/g, '');
  if (base64.length === 0 || base64.length % 4 !== 0 || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) {
    throw wrong(`(${label}) is not complete base64`);
  }
  return { block: { label, der: Buffer.from(base64, 'base64') }, next: bodyEnd + end.length };
}

/** Decodes one block as `formatPem` writes it, which needs none of the checks of `parsePem`. */
export const derIn = (pem: string): Buffer => Buffer.from(pem.split('\n').slice(1, -2).join(''), 'base64');

/** One block with lines of 64 columns and a final newline. */
export function formatPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  return `${BEGIN}${label}${DASHES}\n${base64.replace(/(.{1,64})/g, '$1\n')}${END}${label}${DASHES}\n`;
}
