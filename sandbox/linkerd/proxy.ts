import { constants } from 'node:crypto';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import type { Identity } from '../../src/mesh/identity.ts';
import { Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import { peek } from './client-hello.ts';

/** How a port of a meshed pod treats TLS. */
export type PortKind =
  /** Terminated when the server name is the pod's identity, else passed through. */
  | 'ordinary'
  /** Passed through unread: opaque ports, and ports that bypass the proxy. */
  | 'opaque'
  /** 4143: only proxies, which identify themselves by ALPN. */
  | 'proxy';

export interface ProxyOptions {
  readonly kind: PortKind;
  /** The pod's own certificate, read at each connection. */
  readonly identity: () => Identity;
  /** The roots that the pod verifies clients against: those of its start. */
  readonly anchors: () => readonly Certificate[];
  /** A terminated connection; `client` is the identity of a client that presented a certificate. */
  readonly terminated: (socket: TLSSocket, client: string | undefined) => void;
  /** A connection that is passed through unchanged. */
  readonly passed: (socket: Socket) => void;
}

export interface ProxyCounts {
  terminated: number;
  passed: number;
  /** Handshakes that failed, and clients whose certificate did not verify. */
  refused: number;
  /** Those of them in which the client's certificate had ended. */
  expired: number;
}

export interface InboundProxy {
  readonly port: number;
  readonly counts: Readonly<ProxyCounts>;
  /** Why the newest refused connection was refused. */
  readonly lastRefusal: string | undefined;
  /** Cuts every connection; new ones are accepted again. */
  cut(): void;
  stop(): Promise<void>;
}

const TRANSPORT_PROTOCOL = 'transport.l5d.io/v1';

/**
 * The inbound side of Linkerd's proxy for one port: TLS 1.3 only, no ALPN, a client certificate is requested but
 * optional.
 */
export async function startProxy(options: ProxyOptions): Promise<InboundProxy> {
  const counts: ProxyCounts = { terminated: 0, passed: 0, refused: 0, expired: 0 };
  const sockets = new Set<Socket>();
  let lastRefusal: string | undefined;
  const refuse = (reason: string) => {
    counts.refused++;
    lastRefusal = reason;
  };

  const tls = createTlsServer({
    ...context(options),
    requestCert: true,
    rejectUnauthorized: false,
    // A resumed session would carry a client certificate past a change of anchors.
    secureOptions: constants.SSL_OP_NO_TICKET,
    ...(options.kind === 'proxy' && {
      ALPNCallback: (offer: { readonly protocols: readonly string[] }) =>
        offer.protocols.find((protocol) => protocol === TRANSPORT_PROTOCOL),
    }),
  });
  tls.on('tlsClientError', (error) => refuse(error.message));
  tls.on('secureConnection', (socket) => {
    socket.on('error', () => socket.destroy());
    const certificate = socket.getPeerX509Certificate();
    if (certificate && !socket.authorized) {
      if (`${socket.authorizationError}` === 'CERT_HAS_EXPIRED') counts.expired++;
      refuse(`client certificate: ${socket.authorizationError}`);
      socket.destroy();
    } else if (options.kind === 'proxy') {
      refuse('no transport header');
      socket.destroy();
    } else {
      counts.terminated++;
      const names = certificate && Certificate.fromDer(certificate.raw).names;
      options.terminated(socket, names && (names.dns[0] ?? names.uris[0]));
    }
  });

  const server = createServer(async (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket)).on('error', () => socket.destroy());
    const beginning = options.kind === 'opaque' ? ({ tls: false } as const) : await peek(socket);
    if (!beginning) {
      socket.destroy();
    } else if (beginning.tls && beginning.serverName === options.identity().id) {
      tls.setSecureContext(context(options));
      tls.emit('connection', socket);
    } else if (options.kind === 'proxy') {
      refuse(beginning.tls ? `server name ${beginning.serverName} is not ours` : 'not TLS');
      socket.destroy();
    } else {
      counts.passed++;
      options.passed(socket);
    }
  });
  const port = await listen(server);
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };

  return {
    port,
    counts,
    get lastRefusal() {
      return lastRefusal;
    },
    cut,
    async stop() {
      const closed = new Promise((resolve) => server.close(resolve));
      cut();
      await closed;
    },
  };
}

function context({ identity, anchors }: ProxyOptions) {
  const { key, chain } = identity();
  return {
    key: key.toPem(),
    cert: formatCertificates(chain),
    ca: formatCertificates(anchors()),
    minVersion: 'TLSv1.3',
    ecdhCurve: 'X25519:P-256:P-384',
    // Of RSA it supports only PKCS#1, which TLS 1.3 does not use.
    sigalgs: 'ECDSA+SHA256:ECDSA+SHA384',
  } as const;
}

/** Joins a connection to a local server, both ways. */
export function pipeTo(socket: Socket, port: number): void {
  const other = connect(port, '127.0.0.1');
  other.on('error', () => socket.destroy()).on('close', () => socket.destroy());
  socket.on('error', () => other.destroy()).on('close', () => other.destroy());
  socket.pipe(other).pipe(socket);
}

export function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}
