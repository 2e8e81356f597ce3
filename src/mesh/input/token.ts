import { MeshError } from '../error.ts';
import { holdSecret } from '../secrets.ts';

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
