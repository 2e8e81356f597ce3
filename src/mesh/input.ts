import type { Certificate } from '../pki/certificate.ts';
import { findPath, orderChain, reachesRootInTime } from '../pki/chain.ts';
import type { PrivateKey } from '../pki/key.ts';
import { parseSpiffeId } from '../pki/names.ts';
import type { Expectation } from './adapter.ts';
import { MeshError } from './error.ts';
import { holdSecret } from './secrets.ts';

/** The claims of a ServiceAccount's token; none of them is secret. */
export interface Claims {
  readonly sub: string | undefined;
  /** The ServiceAccount that `sub` names. */
  readonly account: { readonly namespace: string; readonly name: string } | undefined;
  readonly audiences: readonly string[];
  /** Epoch milliseconds. */
  readonly expires: number | undefined;
}

/** Undefined if the text is not a JWT. The signature is not checked: only the CA can do that. */
export function readClaims(token: string): Claims | undefined {
  const payload = token.trim().split('.')[1];
  if (!payload) return undefined;
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    if (typeof claims !== 'object' || claims === null) return undefined;
    const { sub, aud, exp } = claims as { sub?: unknown; aud?: unknown; exp?: unknown };
    const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(String(sub)) ?? [];
    return {
      sub: typeof sub === 'string' ? sub : undefined,
      account: namespace === undefined || name === undefined ? undefined : { namespace, name },
      audiences: (Array.isArray(aud) ? aud : [aud]).filter((one) => typeof one === 'string'),
      expires: typeof exp === 'number' ? exp * 1000 : undefined,
    };
  } catch {
    return undefined;
  }
}

/** `of system:serviceaccount:shop:web, audience mesh-ca, valid until …`. */
export function describeClaims(claims: Claims | undefined): string {
  if (!claims) return 'which is not a JWT';
  const { sub = 'nobody', audiences, expires } = claims;
  const until = expires === undefined ? 'without expiry' : `valid until ${new Date(expires).toISOString()}`;
  return `of ${sub}, audience ${audiences.join(', ') || 'none'}, ${until}`;
}

/** A leaf with its key, without roots yet. */
export interface ReceivedPair {
  readonly id: string;
  readonly key: PrivateKey;
  readonly chain: readonly Certificate[];
}

/** `from` is what has to be looked at when the pair is wrong: `CA … at …`, `the files …`. */
export function readPair(
  from: string,
  key: PrivateKey,
  certificates: readonly Certificate[],
  expectation: Expectation,
  now: number,
): ReceivedPair {
  const [leaf] = certificates;
  if (!leaf || leaf.isCa) throw bad(`${from}: there is no leaf certificate; see its logs`);
  const id = idOf(from, leaf, expectation);
  if (leaf.publicKeyFingerprint !== key.publicKeyFingerprint) {
    throw bad(`${from}: the certificate for ${id} comes with another key, which it was not made for; see its logs`);
  }
  checkName(from, id, expectation);
  if (leaf.notAfter <= now) {
    const at = new Date(leaf.notAfter).toISOString();
    throw bad(`${from}: the certificate for ${id} expired at ${at}; is it still renewed, and do the clocks agree?`);
  }
  return { id, key, chain: orderChain(certificates) };
}

function idOf(from: string, { names }: Certificate, { form }: Expectation): string {
  const given = form === 'spiffe' ? names.uris : names.dns;
  const [id, ...others] = given;
  if (id !== undefined && others.length === 0 && (form === 'dns' || parseSpiffeId(id))) return id;
  const what = given.join(', ') || (form === 'spiffe' ? 'no URI' : 'no DNS name');
  throw bad(`${from}: the certificate is for ${what}; expected one ${form === 'spiffe' ? 'SPIFFE ID' : 'DNS name'}`);
}

function checkName(from: string, id: string, { id: due, trustDomain }: Expectation): void {
  const given = parseSpiffeId(id)?.trustDomain;
  if (trustDomain !== undefined && given !== trustDomain) {
    const next = `if that is the mesh's trust domain, set trustDomain: ${given}`;
    throw new MeshError('ERR_MESH_CONFIG', `${from}: ${id} is not in the trust domain ${trustDomain}; ${next}`, {
      retry: { afterMs: 60_000 },
    });
  }
  if (due !== undefined && id !== due) {
    throw bad(`${from}: the certificate is for ${id}; expected ${due}; compare id and the account with the mesh`);
  }
}

/** Whether the pair proves itself under these roots, as far as signatures and times go; the rest is for verify. */
export function provable(pair: Pick<ReceivedPair, 'chain'>, roots: readonly Certificate[], now: number): boolean {
  const [leaf, ...rest] = pair.chain;
  // Meshes backdate leaves, hosts disagree about the time: a leaf of the next minute is for verify to judge.
  return leaf !== undefined && reachesRootInTime(findPath(leaf, rest, roots, Math.max(now, leaf.notBefore)));
}

/**
 * Roots under which the pair proves itself, if it can: those named now; and those before, while the leaf still needs
 * them, since a root may come before its first leaf.
 */
export function provingRoots(
  pair: Pick<ReceivedPair, 'chain'>,
  named: readonly Certificate[],
  before: readonly Certificate[],
  now: number,
): readonly Certificate[] | undefined {
  if (named.length === 0) return undefined;
  if (provable(pair, named, now)) return named;
  if (!provable(pair, before, now)) return undefined;
  const known = new Set(named.map(({ fingerprint }) => fingerprint));
  return [...named, ...before.filter(({ fingerprint }) => !known.has(fingerprint))];
}

export function requireProvable(from: string, pair: ReceivedPair, roots: readonly Certificate[], now: number): void {
  if (!provable(pair, roots, now)) throw unprovable(from, pair);
}

export function unprovable(from: string, { id, chain }: ReceivedPair): MeshError {
  const issuer = chain.at(-1)?.issuer ?? '';
  return bad(
    `${from}: the certificate for ${id} has the issuer "${issuer}", which is not under the roots that came with it`,
  );
}

function bad(message: string): MeshError {
  return new MeshError('ERR_MESH_BAD_RESPONSE', message);
}

/** Characters that a header may carry, without spaces: RFC 6750 allows no others. */
const SENDABLE = /^[\x21-\x7e]+$/;

/**
 * The token in `text`, checked before it becomes gRPC metadata or an HTTP header, and from then on redacted in all
 * output of this process. White space around it is trimmed. `source` names where it comes from, such as `the token file
 * /run/token`; no error quotes the text. `lifeMs`: how long it remains valid, if known.
 */
export function acceptToken(source: string, text: string, lifeMs?: number): string {
  const token = text.trim();
  if (token === '') throw new MeshError('ERR_MESH_TOKEN', `${source} is empty; put one token there`);
  if (SENDABLE.test(token)) {
    holdSecret(token, lifeMs);
    return token;
  }
  for (const part of token.split(/\s+/)) holdSecret(part, lifeMs);
  throw new MeshError('ERR_MESH_TOKEN', `${source} ${wrongWith(token)}; put one token there, on one line`);
}

function wrongWith(token: string): string {
  const lines = token.split(/\r\n|\r|\n/).length;
  if (lines > 1) return `has ${lines} lines where one is expected`;
  return /\s/.test(token)
    ? 'has white space inside the token'
    : 'has a character that is not printable ASCII, which no header can carry';
}

/** The audience of tokens that the Kubernetes API itself reviews. They open that API too. */
export const KUBERNETES_AUDIENCE = 'https://kubernetes.default.svc.cluster.local';

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
const JSON_LIMITS: JsonLimits = { depth: 32, values: 20_000 };

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
