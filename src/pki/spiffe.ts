export interface SpiffeId {
  readonly trustDomain: string;
  /** Empty, or starting with a slash. */
  readonly path: string;
}

/** Longest URI that SPIFFE implementations must support. */
const LONGEST_ID = 2048;
const LONGEST_TRUST_DOMAIN = 255;

/** Undefined unless `text` is exactly a SPIFFE ID: lower-case trust domain, no empty, `.` or `..` segment. */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  const match = /^spiffe:\/\/([a-z0-9._-]+)((?:\/[A-Za-z0-9._-]+)*)$/.exec(text);
  const [, trustDomain = '', path = ''] = match ?? [];
  if (!match || text.length > LONGEST_ID || trustDomain.length > LONGEST_TRUST_DOMAIN) return undefined;
  if (path.split('/').some((segment) => segment === '.' || segment === '..')) return undefined;
  return { trustDomain, path };
}

export const formatSpiffeId = ({ trustDomain, path }: SpiffeId): string => `spiffe://${trustDomain}${path}`;
