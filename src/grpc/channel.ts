import { isIP } from 'node:net';
import {
  connect,
  createSecureContext,
  type PeerCertificate,
  type SecureContext,
  type SecureVersion,
  type TLSSocket,
} from 'node:tls';
import {
  CallCredentials,
  ChannelCredentials,
  type ChannelOptions,
  Client,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';
import { Semaphore } from '../async/limits.ts';
import { MeshError } from '../mesh/error.ts';
import { Certificate } from '../pki/certificate.ts';
import { CallStream, type DuplexStream, Unreadable } from './duplex.ts';
import { GrpcError } from './error.ts';
import { loadMethod } from './messages.ts';

interface ChannelTls {
  /** PEM; absent: the roots that Node ships. */
  readonly ca?: string | undefined;
  /** The name to send (SNI) and to verify, if it differs from the address. */
  readonly serverName?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** In place of the check of the server's name: why the owner of these URI names is not the server, or undefined. */
  readonly refuse?: ((uris: readonly string[]) => string | undefined) | undefined;
  /** Default: TLSv1.2. */
  readonly minVersion?: SecureVersion | undefined;
}

interface ChannelTarget {
  /** `host:port`, or `unix:/path`. */
  readonly address: string;
  readonly tls: ChannelTls | 'plaintext';
  /** HTTP/2 pings; absent: none. grpc-go answers pings more often than each 5 min with GOAWAY unless configured. */
  readonly keepalive?:
    | {
        readonly timeMs: number;
        readonly timeoutMs: number;
        /** Also while no call is in progress; default: true. */
        readonly idle?: boolean;
      }
    | undefined;
}

export interface CallOptions {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A connection to one server, made at the first call and again as needed. Roots and keys are fixed: to change them,
 * open another channel.
 */
export interface Channel {
  /** Rejects with a GrpcError, or with the signal's reason when aborted. */
  unary<Response extends object>(request: object, options: CallOptions & { deadlineMs: number }): Promise<Response>;
  /** For methods that answer with a stream; `request` is the one message for those that do not take a stream. */
  stream<Request extends object, Response extends object>(
    options: CallOptions & { readonly request?: Request | undefined },
  ): DuplexStream<Request, Response>;
  /** Cancels the calls in progress and closes the sockets. */
  close(): void;
}

/** The size limit of a Secret, into which everything from a mesh must fit. */
const LARGEST_MESSAGE = 1024 * 1024;

/** Does no I/O; throws when a certificate or key does not load. */
export function openChannel(target: ChannelTarget): Channel {
  const address = target.address.startsWith('unix:') ? target.address : `dns:${target.address}`;
  const client = new Client(address, credentialsOf(target), optionsOf(target));
  const running = new Set<() => void>();

  return {
    unary<Response extends object>(request: object, options: CallOptions & { deadlineMs: number }) {
      const { method, signal, deadlineMs } = options;
      const { path, requestSerialize, responseDeserialize } = loadMethod(method);
      const deserialize = Unreadable.instead(responseDeserialize);
      return new Promise<Response>((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const deadline = Date.now() + deadlineMs;
        const answer = (error: ServiceError | null, response?: object) => {
          signal?.removeEventListener('abort', abort);
          running.delete(cancel);
          if (error) reject(GrpcError.from(error));
          else if (response instanceof Unreadable) reject(GrpcError.unreadable(response.cause));
          else resolve(response as Response);
        };
        const metadata = metadataOf(options);
        const call = client.makeUnaryRequest(
          path,
          requestSerialize,
          deserialize,
          request,
          metadata,
          { deadline },
          answer,
        );
        const cancel = () => call.cancel();
        const abort = () => {
          reject(signal?.reason);
          cancel();
        };
        running.add(cancel);
        signal?.addEventListener('abort', abort, { once: true });
      });
    },

    stream<Request extends object, Response extends object>(
      options: CallOptions & { readonly request?: Request | undefined },
    ) {
      const method = loadMethod(options.method);
      const { path, requestSerialize } = method;
      const deserialize = Unreadable.instead(method.responseDeserialize);
      const metadata = metadataOf(options);
      const call = method.requestStream
        ? client.makeBidiStreamRequest(path, requestSerialize, deserialize, metadata)
        : client.makeServerStreamRequest(path, requestSerialize, deserialize, options.request ?? {}, metadata);
      const cancel = () => stream.close();
      const stream = new CallStream<Request, Response>(call, options.signal, () => running.delete(cancel));
      running.add(cancel);
      return stream;
    },

    close() {
      for (const cancel of [...running]) cancel();
      client.close();
    },
  };
}

/** A channel that several callers share, and the turns that they take: this many at once. */
export function limitedChannel(target: ChannelTarget, atOnce: number) {
  const channel = openChannel(target);
  return { channel, turns: new Semaphore(atOnce), [Symbol.dispose]: () => channel.close() };
}

function credentialsOf({ address, tls }: ChannelTarget): ChannelCredentials {
  if (tls === 'plaintext') return ChannelCredentials.createInsecure();
  const { ca, cert, key, refuse, minVersion = 'TLSv1.2' } = tls;
  const context = createSecureContext({ ca, cert, key, minVersion });
  return new TlsCredentials(context, tls.serverName ?? hostOf(address), refuse);
}

/** The host in `host:port` or `[address]:port`. */
function hostOf(address: string): string {
  return address.replace(/:\d+$/, '').replace(/^\[(.*)\]$/, '$1');
}

function optionsOf({ tls, keepalive }: ChannelTarget): ChannelOptions {
  return {
    'grpc.enable_http_proxy': 0,
    // No DNS TXT lookups, and no connections shared with a channel that trusts other roots.
    'grpc.service_config_disable_resolution': 1,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    'grpc.max_reconnect_backoff_ms': 30_000,
    'grpc.max_receive_message_length': LARGEST_MESSAGE,
    ...(tls === 'plaintext' || tls.serverName === undefined ? {} : { 'grpc.default_authority': tls.serverName }),
    ...(keepalive === undefined
      ? {}
      : {
          'grpc.keepalive_time_ms': keepalive.timeMs,
          'grpc.keepalive_timeout_ms': keepalive.timeoutMs,
          'grpc.keepalive_permit_without_calls': (keepalive.idle ?? true) ? 1 : 0,
        }),
  };
}

const PRINTABLE = /^[ -~]*$/;
const UNSENDABLE = 'has a character that is not printable ASCII and cannot be sent; correct the setting it comes from';

function metadataOf(options: CallOptions): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(options.metadata ?? {})) {
    // The error of grpc-js would quote the value.
    if (!PRINTABLE.test(value)) throw new MeshError('ERR_MESH_CONFIG', `gRPC metadata "${name}" ${UNSENDABLE}`);
    metadata.set(name, value);
  }
  return metadata;
}

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
class TlsCredentials extends ChannelCredentials {
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
