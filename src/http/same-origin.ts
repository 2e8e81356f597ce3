import { isIP } from 'node:net';

/** Names that cannot be registered: of this machine, of the cluster's Services and pods. */
const LOCAL_SUFFIXES = ['.localhost', '.svc', '.cluster.local'];

/**
 * Whether a request with this Host header is meant for this server. A page of another site whose name was made to
 * resolve here (DNS rebinding) sends its own name; a client that uses an IP address, a name without dots or the name of
 * a Service in the cluster does not. `allowed` has further names, or `*.example.com` for all names below one.
 */
export function isOwnHost(header: string | undefined, allowed: readonly string[]): boolean {
  // Only HTTP/1.0 may omit it, which no browser uses.
  if (header === undefined || header === '') return true;
  const host = hostOf(header);
  if (host === undefined) return false;
  if (isIP(host) !== 0 || !host.includes('.')) return true;
  if (LOCAL_SUFFIXES.some((suffix) => host.endsWith(suffix))) return true;
  return allowed.some((name) => (name.startsWith('*.') ? host.endsWith(name.slice(1)) : host === name));
}

/** In lower case, without port, brackets and final dot; undefined if it is not a host. */
function hostOf(header: string): string | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([-A-Za-z0-9_.]+))(?::\d{1,5})?$/.exec(header);
  return (match?.[1] ?? match?.[2])?.toLowerCase().replace(/\.$/, '');
}

/** Nothing inline, nothing from other origins, no frames, no caching. */
export const SECURITY_HEADERS: Readonly<Record<string, string>> = {
  'Content-Security-Policy': [
    "default-src 'none'",
    "style-src 'self'",
    "script-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'Cache-Control': 'no-store',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
};
