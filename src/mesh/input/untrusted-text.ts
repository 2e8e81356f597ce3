/** As in `printable`, without line breaks and tabs. */
const CONTROLS = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Each control character as `\\u001b`: within a text in JSON, or in quotes in YAML, it stays what it was. */
export const escapeUnprintable = (text: string): string =>
  text.replace(CONTROLS, (found) => [...Array(found.length).keys()].map((at) => unicode(found, at)).join(''));

const unicode = (text: string, at: number): string => `\\u${text.charCodeAt(at).toString(16).padStart(4, '0')}`;

export interface JsonLimits {
  /** Nesting of arrays and objects. */
  readonly depth: number;
  /** Values of all kinds and names of fields, over all levels. */
  readonly values: number;
}

/** The largest answers of a mesh have about a hundred roots of about ten fields each, three levels deep. */
export const JSON_LIMITS: JsonLimits = { depth: 32, values: 20_000 };

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN = new Set([0x5b, 0x7b]);
const CLOSE = new Set([0x5d, 0x7d]);

/**
 * `JSON.parse` for untrusted text: it is counted first, since a value takes up to forty times the memory of its two
 * bytes of text. Throws a RangeError over the limits, a SyntaxError for text that is not JSON; neither quotes the text.
 */
export function parseJson(text: string, limits: JsonLimits = JSON_LIMITS): unknown {
  count(text, limits);
  try {
    return JSON.parse(text);
  } catch {
    throw new SyntaxError('not JSON');
  }
}

function count(text: string, limits: JsonLimits): void {
  let depth = 0;
  let values = 1;
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === QUOTE) at = endOfString(text, at);
    else if (unit === COMMA || unit === COLON) values += 1;
    else if (OPEN.has(unit)) {
      depth += 1;
      values += 1;
    } else if (CLOSE.has(unit)) depth -= 1;
    if (depth > limits.depth) throw new RangeError(`JSON of more than ${limits.depth} levels`);
    if (values > limits.values) throw new RangeError(`JSON of more than ${limits.values} values`);
  }
}

/** Where the string that begins at `start` ends; the end of the text if it does not. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === BACKSLASH) at += 1;
    else if (unit === QUOTE) return at;
  }
  return text.length;
}

/**
 * Far deeper than anything that people write; the parser takes some kilobytes for each level, and has no limit of its
 * own.
 */
const DEEPEST = 500;
const COMPACT = new RegExp(`^[ \\t]*(?:[-?:] +){${DEEPEST},}`, 'm');

/** Throws a RangeError for untrusted YAML whose collections are nested too deeply to be parsed safely. */
export function requireShallowYaml(text: string): void {
  let depth = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (char === '[' || char === '{') depth += 1;
    // Text between them may contain more closing than opening brackets.
    else if ((char === ']' || char === '}') && depth > 0) depth -= 1;
    if (depth > DEEPEST) throw tooDeep();
  }
  if (COMPACT.test(text)) throw tooDeep();
}

const tooDeep = (): RangeError => new RangeError(`YAML is nested more than ${DEEPEST} levels deep`);
