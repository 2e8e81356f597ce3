import { createPrivateKey, X509Certificate } from 'node:crypto';
import { openssl, withFiles } from '../property/openssl.ts';

/** PEM; the chain leaf first. */
export interface Presented {
  readonly chain: string;
  readonly roots: string;
  readonly key: string;
}

/**
 * How a server verifies a client: its purpose, the security level of a Debian server, no trust except the bundle, and
 * OpenSSL's default strictness. Envoy treats each certificate of the bundle as an anchor, and so does `-partial_chain`.
 */
const AS_A_SERVER = [
  ...['-purpose', 'sslclient', '-auth_level', '2', '-partial_chain'],
  ...['-no-CAfile', '-no-CApath', '-no-CAstore'],
];

/** Why the openssl command refuses a client certificate at a time (epoch ms); undefined when it accepts it. */
export function cliRefusal({ chain, roots, key }: Presented, at: number): string | undefined {
  const { ok, output } = withFiles({ 'chain.pem': chain, 'roots.pem': roots }, (path) => {
    const files = ['-CAfile', path('roots.pem'), '-untrusted', path('chain.pem')];
    return openssl(['verify', ...AS_A_SERVER, '-attime', String(Math.floor(at / 1000)), ...files, path('chain.pem')]);
  });
  if (!ok) return output.trim();
  return new X509Certificate(chain).checkPrivateKey(createPrivateKey(key)) ? undefined : 'the key is of another';
}
