import { isIP } from 'node:net';
import { connect, type PeerCertificate, type SecureContext, type TLSSocket } from 'node:tls';
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js';
import { Certificate } from '../pki/certificate.ts';

type Refuse = (uris: readonly string[]) => string | undefined;
type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;

/** For a whole handshake; the calls that wait for it have deadlines of their own. */
const HANDSHAKE_MS = 20_000;

function identityError(raw: Buffer, refuse: Refuse): Error | undefined {
  const why = refuse(Certificate.fromDer(raw).names.uris);
  return why === undefined ? undefined : new Error(`the server's certificate is ${why}`);
}

/**
 * TLS that verifies the server by a name or an address. The library's own credentials send an address as SNI, which RFC
 * 6066 forbids and Node refuses from version 26 on.
 */
export class TlsCredentials extends ChannelCredentials {
  readonly #context: SecureContext;
  readonly #host: string;
  readonly #refuse: Refuse | undefined;

  /** `host` is the name that the certificate must have, unless `refuse` judges its URI names instead. */
  constructor(context: SecureContext, host: string, refuse?: Refuse) {
    super();
    this.#context = context;
    this.#host = host;
    this.#refuse = refuse;
  }

  _isSecure(): boolean {
    return true;
  }

  _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  _createSecureConnector(_target: unknown, _options: unknown, callCredentials?: CallCredentials): SecureConnector {
    const credentials = callCredentials ?? CallCredentials.createEmpty();
    const host = this.#host;
    const refuse = this.#refuse;
    const settings = {
      secureContext: this.#context,
      ALPNProtocols: ['h2'],
      ...(refuse
        ? { checkServerIdentity: (_: string, { raw }: PeerCertificate) => identityError(raw, refuse) }
        : { host, ...(isIP(host) ? {} : { servername: host }) }),
    };
    // At shutdown, the library forgets a connection whose handshake is in progress.
    const shaking = new Set<TLSSocket>();
    return {
      connect: (socket) =>
        new Promise((resolve, reject) => {
          const secured = connect({ ...settings, socket }, () => {
            shaking.delete(secured);
            secured.setTimeout(0);
            resolve({ socket: secured, secure: true });
          });
          shaking.add(secured);
          secured.on('error', reject);
          secured.setTimeout(HANDSHAKE_MS, () => secured.destroy(new Error('no TLS handshake within 20 s')));
          secured.once('close', () => {
            shaking.delete(secured);
            reject(new Error('the connection ended before the TLS handshake did'));
          });
        }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => credentials,
      destroy() {
        for (const secured of shaking) secured.destroy();
      },
    };
  }
}
