import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { messageType } from '../../src/grpc/messages.ts';
import { Certificate, formatCertificates } from '../../src/pki/certificate.ts';
import type { ListenOn } from '../grpc/listen.ts';
import { type RunningServer, type ServerStream, serve } from '../grpc/server.ts';
import type { SpireAuthority } from './authority.ts';
import { der, type WireResponse } from './workload-api.ts';

interface Reference {
  readonly type: { readonly plural: string; readonly group: string };
  readonly key: { readonly namespace: string; readonly name: string };
}

interface Request {
  readonly reference: { readonly reference: { readonly type_url: string; readonly value: Buffer } };
}

type BrokerStream = ServerStream<Request, WireResponse>;

export interface BrokerApiOptions {
  readonly authority: SpireAuthority;
  readonly listen: ListenOn;
  /** SPIFFE IDs that may ask. */
  readonly brokers: readonly string[];
  /** SPIFFE ID of the server; default: that of a SPIRE agent. */
  readonly serverId?: string;
}

const OBJECT = 'type.googleapis.com/spiffe.broker.KubernetesObjectReference';

/** The Broker API of a SPIRE agent: SVIDs of objects, for brokers that prove themselves by mutual TLS. */
export class BrokerApi {
  readonly #options: BrokerApiOptions;
  readonly #streams = new Map<BrokerStream, string>();
  #server: RunningServer | undefined;
  /** SPIFFE ID by `<plural>.<group>/<namespace>/<name>`. */
  readonly objects = new Map<string, string>();
  /** SPIFFE IDs of the callers, in the order of their calls. */
  readonly callers: string[] = [];

  private constructor(options: BrokerApiOptions) {
    this.#options = options;
  }

  static async start(options: BrokerApiOptions): Promise<BrokerApi> {
    const api = new BrokerApi(options);
    await api.listen();
    return api;
  }

  /** `unix:/path` or `host:port`. */
  get address(): string {
    return this.#server?.address ?? '';
  }

  async listen(): Promise<void> {
    const { authority, listen, serverId = authority.idOf('/spire/agent/join_token/node') } = this.#options;
    const { key, chain } = authority.issue(serverId);
    const tls = {
      cert: formatCertificates(chain),
      key: key.toPem(),
      clientCa: formatCertificates(authority.roots),
      requireClientCertificate: true,
    };
    const services = {
      'spiffe.broker.API': { SubscribeToX509SVID: { stream: (one: BrokerStream) => this.#serve(one) } },
    };
    this.#server ??= await serve({ services: services as never, listen, tls });
  }

  /** A new leaf for each caller. */
  rotate(): void {
    for (const [stream, id] of this.#streams) stream.write(this.#response(id));
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = undefined;
    this.#streams.clear();
  }

  async #serve(stream: BrokerStream): Promise<void> {
    const { metadata, clientCertificate, signal } = stream.context;
    if (metadata['broker.spiffe.io'] !== 'true') {
      throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'security header missing from request');
    }
    const [caller = ''] = clientCertificate ? Certificate.fromDer(clientCertificate.raw).names.uris : [];
    this.callers.push(caller);
    if (!this.#options.brokers.includes(caller)) throw new GrpcError(grpcStatus.PERMISSION_DENIED, 'no broker');
    const id = this.#idOf(await first(stream));
    await new Promise<void>((resolve) => {
      this.#streams.set(stream, id);
      signal.addEventListener('abort', () => resolve(), { once: true });
      stream.write(this.#response(id));
    }).finally(() => this.#streams.delete(stream));
  }

  #idOf({ reference: { reference } }: Request): string {
    if (reference.type_url !== OBJECT) throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'unknown reference type');
    const { type, key } = messageType<Reference>(OBJECT.split('/')[1] ?? '').decode(reference.value);
    const id = this.objects.get(`${type.plural}.${type.group}/${key.namespace}/${key.name}`);
    if (id === undefined) throw new GrpcError(grpcStatus.NOT_FOUND, 'no such object');
    return id;
  }

  #response(id: string): WireResponse {
    const { chain, key, roots } = this.#options.authority.issue(id);
    const svid = { spiffe_id: id, x509_svid: der(chain), bundle: der(roots), hint: '' };
    const x509_svid_key = key.keyObject.export({ type: 'pkcs8', format: 'der' });
    return { svids: [{ ...svid, x509_svid_key }], crl: [], federated_bundles: {} };
  }
}

async function first(stream: BrokerStream): Promise<Request> {
  for await (const request of stream) return request;
  throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'no request');
}
