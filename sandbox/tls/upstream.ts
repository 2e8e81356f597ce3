import {
  createServer,
  type Server as HttpServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http';
import { type AddressInfo, createServer as createNetServer, type Server as NetServer, type Socket } from 'node:net';

import { createServer as createTlsServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import type { Identity } from '../../src/mesh/identity.ts';
import { Certificate, formatCertificates } from '../../src/pki/certificate.ts';

export interface UpstreamOptions {
  /** The server's own identity, read at each connection. */
  readonly identity: () => Identity;
  /** The roots that client certificates must lead to, read at each connection. */
  readonly trust: () => readonly Certificate[];
  /**
   * By SPIFFE ID, or by DNS name in meshes without; refused peers get 403. Default: every peer that verifies under the
   * roots.
   */
  readonly allow?: (peerId: string) => boolean;
  /** Only connections with this SNI are accepted, as in some sidecars. */
  readonly sni?: string | (() => string);
  /** Only clients that offer one of these are accepted, as in permissive sidecars. Default: no ALPN. */
  readonly alpn?: readonly string[];
  /** Default `TLSv1.2`. */
  readonly minVersion?: 'TLSv1.2' | 'TLSv1.3';
  /** Also answer plaintext clients, as permissive meshes do; counted separately. Default: they are disconnected. */
  readonly plaintext?: boolean;
  /** Accept clients without a certificate; they have the id `''`. Default false. */
  readonly anonymous?: boolean;
}

export interface UpstreamCounts {
  requests: number;
  refused: number;
  plaintext: number;
  /** Failed handshakes, by OpenSSL's or our own reason. */
  handshakeFailures: number;
  /** Those of them in which the client's certificate had ended. */
  expired: number;
}

export interface SandboxUpstream {
  readonly port: number;
  readonly counts: Readonly<UpstreamCounts>;
  /** Served requests. */
  readonly requests: number;
  /** The client certificates seen, by fingerprint, with the number of requests made with each. */
  readonly peers: ReadonlyMap<string, number>;
  readonly lastFailure: string | undefined;
  stop(): Promise<void>;
}

/** The first byte of a TLS record that carries a handshake. */
const TLS_HANDSHAKE = 0x16;

/**
 * Signature algorithms that BoringSSL, and therefore a sidecar, accepts from clients: no Ed25519, and P-521 not in TLS
 * 1.3.
 */
const SIGNATURES = [
  ...['ecdsa_secp256r1_sha256', 'rsa_pss_rsae_sha256', 'RSA+SHA256'],
  ...['ecdsa_secp384r1_sha384', 'rsa_pss_rsae_sha384', 'RSA+SHA384', 'rsa_pss_rsae_sha512', 'RSA+SHA512'],
].join(':');

/** A workload of a mesh: HTTPS that requires a client certificate of the mesh. */
export async function startUpstream(options: UpstreamOptions): Promise<SandboxUpstream> {
  const counts: UpstreamCounts = { requests: 0, refused: 0, plaintext: 0, handshakeFailures: 0, expired: 0 };
  const peers = new Map<string, number>();
  const sockets = new Set<Socket>();
  let lastFailure: string | undefined;
  const fail = (reason: string) => {
    counts.handshakeFailures++;
    lastFailure = reason;
  };

  const http = createHttpServer((request, response) => answer(request, response));
  function answer(request: IncomingMessage, response: ServerResponse): void {
    const socket = request.socket as Partial<TLSSocket>;
    request.resume();
    if (!socket.encrypted) {
      counts.plaintext++;
      response.end(JSON.stringify({ peer: null, path: request.url }));
      return;
    }
    const peer = peerOf(socket as TLSSocket);
    if (options.allow && !options.allow(peer?.id ?? '')) {
      counts.refused++;
      response.writeHead(403, { 'content-type': 'text/plain' }).end('RBAC: access denied');
      return;
    }
    counts.requests++;
    if (peer) peers.set(peer.fingerprint, (peers.get(peer.fingerprint) ?? 0) + 1);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ peer: peer?.id ?? '', path: request.url }));
  }

  const tls = createTlsServer({
    ...secureContext(options),
    requestCert: true,
    // Checked below, where the reason is known.
    rejectUnauthorized: false,
    ...(options.alpn
      ? {
          ALPNCallback: ({ protocols }: { protocols: string[] }) =>
            protocols.find((one) => options.alpn?.includes(one)),
        }
      : {}),
  });
  tls.on('secureConnection', (socket) => {
    const wanted = typeof options.sni === 'function' ? options.sni() : options.sni;
    if (wanted !== undefined && socket.servername !== wanted) {
      fail(`the client asked for ${socket.servername || 'no server name'}, not ${wanted}`);
      socket.destroy();
    } else if (options.alpn && !socket.alpnProtocol) {
      fail('the client offered no application protocol');
      socket.destroy();
    } else if (!socket.authorized && !(options.anonymous && !peerOf(socket))) {
      // If a certificate is optional, an invalid one is still refused.
      if (`${socket.authorizationError}` === 'CERT_HAS_EXPIRED') counts.expired++;
      fail(`${socket.authorizationError}`);
      socket.destroy();
    } else http.emit('connection', socket);
  });
  tls.on('tlsClientError', (error) => fail(error.message));

  const listener = createNetServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    socket.once('readable', () => {
      const first: Buffer | null = socket.read();
      if (!first) return;
      socket.unshift(first);
      if (first[0] === TLS_HANDSHAKE) {
        tls.setSecureContext(secureContext(options));
        tls.emit('connection', socket);
      } else if (options.plaintext) http.emit('connection', socket);
      else {
        counts.plaintext++;
        socket.destroy();
      }
    });
  });
  const port = await listen(listener);

  return {
    port,
    counts,
    peers,
    get requests() {
      return counts.requests;
    },
    get lastFailure() {
      return lastFailure;
    },
    async stop() {
      const closed = new Promise((resolve) => listener.close(resolve));
      for (const socket of sockets) socket.destroy();
      http.closeAllConnections();
      await closed;
    },
  };
}

function secureContext(options: UpstreamOptions): SecureContextOptions {
  const identity = options.identity();
  return {
    key: identity.key.toPem(),
    cert: formatCertificates(identity.chain),
    ca: formatCertificates(options.trust()),
    minVersion: options.minVersion ?? 'TLSv1.2',
    sigalgs: SIGNATURES,
  };
}

function peerOf(socket: TLSSocket): { id: string; fingerprint: string } | undefined {
  const raw = socket.getPeerX509Certificate()?.raw;
  if (!raw) return undefined;
  const { names, fingerprint } = Certificate.fromDer(raw);
  return { id: names.uris[0] ?? names.dns[0] ?? '', fingerprint };
}

/**
 * Leaves idle connections open, as Envoy does for an hour. Node.js would close them after five seconds: a process that
 * did not run for that long would close one at the moment at which it sends the next request on it.
 */
export const createHttpServer = (answer: RequestListener): HttpServer => createServer({ keepAliveTimeout: 0 }, answer);

export function listen(server: NetServer): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}
