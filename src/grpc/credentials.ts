import { isIP } from 'node:net';
import { connect, type SecureContext } from 'node:tls';
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js';

type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;

/**
 * TLS that verifies the server by a name or an address. The library's own names an address in SNI, which RFC 6066
 * forbids and Node refuses from 26 on.
 */
export class TlsCredentials extends ChannelCredentials {
  readonly #context: SecureContext;
  readonly #host: string;

  /** `host` is what the certificate must be for. */
  constructor(context: SecureContext, host: string) {
    super();
    this.#context = context;
    this.#host = host;
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
    const settings = {
      host,
      secureContext: this.#context,
      ALPNProtocols: ['h2'],
      ...(isIP(host) ? {} : { servername: host }),
    };
    return {
      connect: (socket) =>
        new Promise((resolve, reject) => {
          const secured = connect({ ...settings, socket }, () => resolve({ socket: secured, secure: true }));
          secured.on('error', reject);
        }),
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => credentials,
      destroy() {},
    };
  }
}
