import { ServerCredentials } from '@grpc/grpc-js';

export interface ServerTls {
  /** PEM: leaf, then intermediates. */
  readonly cert: string;
  readonly key: string;
  /** PEM. Given: clients are asked for a certificate, and one that does not verify is refused. */
  readonly clientCa?: string | undefined;
  /** Refuse clients without a certificate. */
  readonly requireClientCertificate?: boolean | undefined;
}

type ContextOptions = NonNullable<ReturnType<ServerCredentials['_getSecureContextOptions']>>;

const contextOf = (tls: ServerTls): ContextOptions => ({
  cert: [Buffer.from(tls.cert)],
  key: [Buffer.from(tls.key)],
  ca: tls.clientCa === undefined ? undefined : Buffer.from(tls.clientCa),
});

/** grpc-js fixes a server's certificate when it starts to listen; its own seam for watchers lets us replace it. */
class ReloadableCredentials extends ServerCredentials {
  constructor(tls: ServerTls | undefined) {
    if (!tls) super(null);
    else {
      const { clientCa, requireClientCertificate = false } = tls;
      super(
        { requestCert: clientCa !== undefined, rejectUnauthorized: requireClientCertificate, minVersion: 'TLSv1.2' },
        contextOf(tls),
      );
    }
  }

  update(tls: ServerTls): void {
    this.updateSecureContextOptions(contextOf(tls));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

export function serverCredentials(tls: ServerTls | undefined): ReloadableCredentials {
  return new ReloadableCredentials(tls);
}
