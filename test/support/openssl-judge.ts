import { duplexPair } from 'node:stream';
import { connect, createSecureContext, createServer, type SecureContext, type TLSSocket } from 'node:tls';
import { SandboxCa } from '../../sandbox/tls/ca.ts';
import type { PresentedPair } from '../../src/core/checks.ts';
import { type Certificate, formatCertificates } from '../../src/pki/certificate.ts';

const NAME = 'judge';
const judge = SandboxCa.root().identity({ dns: [NAME] });
const own = { key: judge.key.toPem(), cert: formatCertificates(judge.chain), minVersion: 'TLSv1.3' } as const;

/**
 * OpenSSL's verdict on a pair that is presented in a TLS 1.3 handshake to a server that trusts these roots: undefined
 * when it is accepted, else its reason. By the real time.
 */
export function opensslRefusal(
  { key, chain }: PresentedPair,
  roots: readonly Certificate[],
): Promise<string | undefined> {
  let presenting: SecureContext;
  try {
    presenting = createSecureContext({ key: key?.toPem(), cert: formatCertificates(chain) });
  } catch (error) {
    return Promise.resolve(`cannot be loaded: ${String(error)}`);
  }
  const server = createServer({ ...own, requestCert: true, rejectUnauthorized: false });
  // A server's own options accept no partial chains; a context by name does.
  const trusting = createSecureContext({ ...own, ca: formatCertificates(roots), allowPartialTrustChain: true });
  server.addContext(NAME, trusting);
  const [near, far] = duplexPair();
  return new Promise((resolve) => {
    const end = (verdict: string | undefined) => {
      resolve(verdict);
      for (const stream of [near, far]) stream.destroy();
    };
    const accepted = (socket: TLSSocket) => {
      if (!socket.getPeerX509Certificate()) end('no certificate was presented');
      else end(socket.authorized ? undefined : String(socket.authorizationError));
    };
    server.on('secureConnection', accepted).on('tlsClientError', (error) => end(String(error)));
    server.emit('connection', far);
    connect({ socket: near, servername: NAME, secureContext: presenting, rejectUnauthorized: false }).on(
      'error',
      (error) => end(String(error)),
    );
  });
}
