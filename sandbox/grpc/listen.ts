import { existsSync, unlinkSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';

export interface ServerTls {
  /** PEM: leaf, then intermediates. */
  readonly cert: string;
  readonly key: string;
  /** PEM. If given, clients are asked for a certificate; one that does not verify counts as none. */
  readonly clientCa?: string | undefined;
  /** Refuse clients without a certificate that verifies. */
  readonly requireClientCertificate?: boolean | undefined;
}

/** A socket file, replaced if it exists, or a TCP port (0: any free one), by default on 127.0.0.1. */
export type ListenOn = { readonly path: string } | { readonly port: number; readonly host?: string };

export interface StreamListener {
  /** What a client dials: `unix:/path` or `host:port`. */
  readonly address: string;
  readonly port: number;
  /** For new connections; existing ones keep their settings. */
  setTls(tls: ServerTls): void;
  /** Accepts no new connections. */
  close(): void;
  /** Also ends the existing connections. */
  destroy(): Promise<void>;
}

const HTTP2_ONLY = ['h2'];

/** Passes on every connection once it is ready, after the handshake if there is one. */
export async function listen(
  on: ListenOn,
  tls: ServerTls | undefined,
  connected: (socket: Socket) => void,
): Promise<StreamListener> {
  const secure = tls ? createTlsServer({ ...contextOf(tls), ALPNProtocols: HTTP2_ONLY }, connected) : undefined;
  const server: Server = secure ?? createServer(connected);
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => socket.destroy());
  });
  if ('path' in on && existsSync(on.path)) unlinkSync(on.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    if ('path' in on) server.listen(on.path, resolve);
    else server.listen(on.port, on.host ?? '127.0.0.1', resolve);
  });
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? (bound as AddressInfo).port : 0;
  return {
    address: 'path' in on ? `unix:${on.path}` : `${on.host ?? '127.0.0.1'}:${port}`,
    port,
    setTls: (next) => secure?.setSecureContext(contextOf(next)),
    close: () => void server.close(),
    destroy: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

function contextOf({ cert, key, clientCa, requireClientCertificate = false }: ServerTls): TlsOptions {
  const asked = clientCa === undefined ? {} : { ca: clientCa, requestCert: true };
  return { cert, key, minVersion: 'TLSv1.2', rejectUnauthorized: requireClientCertificate, ...asked };
}
