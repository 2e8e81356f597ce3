import { type CallOptions, type Channel, openChannel } from '../../src/grpc/channel.ts';
import { messageType } from '../../src/grpc/load.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';
import { addressOf, type BrokerConfig, type SpiffeConfig } from './config.ts';
import { brokerError, workloadApiError } from './errors.ts';
import { chooseSvid, readSvid, type X509SvidResponse } from './svids.ts';

/** A server that streams X.509-SVIDs. */
export interface SvidEndpoint {
  /** For messages. */
  readonly from: string;
  /** Each response replaces the one before. The channel is closed when the stream is left. */
  responses(signal: AbortSignal): AsyncIterable<X509SvidResponse>;
  /** The one error of a failed stream that the agent acts on. */
  explain(error: unknown): unknown;
}

type Call = Pick<CallOptions, 'method' | 'metadata'> & { readonly request: object };

const WORKLOAD_API: Call = {
  method: 'SpiffeWorkloadAPI/FetchX509SVID',
  // Without it the server refuses each call: it shows that no browser was led to the socket.
  metadata: { 'workload.spiffe.io': 'true' },
  request: {},
};
const BROKER_API: Omit<Call, 'request'> = {
  method: 'spiffe.broker.API/SubscribeToX509SVID',
  metadata: { 'broker.spiffe.io': 'true' },
};
const REFERENCE = 'spiffe.broker.KubernetesObjectReference';

export class WorkloadEndpoint implements SvidEndpoint {
  readonly #config: Pick<SpiffeConfig, 'socket' | 'address'>;

  constructor(config: Pick<SpiffeConfig, 'socket' | 'address'>) {
    this.#config = config;
  }

  get from(): string {
    return `Workload API at ${this.#config.socket ?? this.#config.address}`;
  }

  responses(signal: AbortSignal): AsyncIterable<X509SvidResponse> {
    // No keepalive: over a unix socket it finds nothing, and grpc-go ends connections that ping too often.
    return streamed(openChannel({ address: addressOf(this.#config), tls: 'plaintext' }), WORKLOAD_API, signal);
  }

  explain(error: unknown): unknown {
    return workloadApiError(error, this.from);
  }
}

/** The SVIDs of another workload. The agent connects by mutual TLS with its own SVID, which the Workload API gives it. */
export class BrokerEndpoint implements SvidEndpoint {
  readonly #config: BrokerConfig;
  readonly #workload: WorkloadEndpoint;
  readonly #host: Pick<Host, 'clock' | 'namespace'>;

  constructor(config: BrokerConfig, workload: WorkloadEndpoint, host: Pick<Host, 'clock' | 'namespace'>) {
    this.#config = config;
    this.#workload = workload;
    this.#host = host;
  }

  get from(): string {
    return `Broker API at ${this.#config.socket ?? this.#config.address}`;
  }

  async *responses(signal: AbortSignal): AsyncGenerator<X509SvidResponse> {
    const own = await this.#ownSvid(signal);
    const channel = openChannel({
      address: addressOf(this.#config),
      tls: {
        ca: formatCertificates(own.roots),
        cert: formatCertificates(own.chain),
        key: own.key.toPem(),
        refuse: (uris) => this.#refusal(uris, own),
      },
    });
    yield* streamed(channel, { ...BROKER_API, request: { reference: this.#reference } }, signal);
  }

  explain(error: unknown): unknown {
    return brokerError(error, this.from);
  }

  get #reference(): object {
    const { plural, group, name } = this.#config.object;
    // Only objects beside the MeshCertificate: who may write it must not get identities of other namespaces.
    const key = { namespace: this.#host.namespace, name };
    const value = messageType(REFERENCE).encode({ type: { plural, group }, key });
    return { reference: { type_url: `type.googleapis.com/${REFERENCE}`, value } };
  }

  async #ownSvid(signal: AbortSignal): Promise<Identity> {
    const { from } = this.#workload;
    const { clientId: id } = this.#config;
    try {
      for await (const { svids } of this.#workload.responses(signal)) {
        const svid = chooseSvid(from, svids, { id, hint: undefined }, 'broker.clientId');
        return readSvid(from, svid, { form: 'spiffe', id }, this.#host.clock.now(), undefined);
      }
    } catch (error) {
      throw this.#workload.explain(error);
    }
    throw new MeshError('ERR_MESH_UNAVAILABLE', `${from} ended the stream; meshcert opens it again`);
  }

  /** Why the owner of these names is no Broker API for this agent. */
  #refusal([id, ...others]: readonly string[], own: Identity): string | undefined {
    const { serverId } = this.#config;
    const name = parseSpiffeId(id ?? '');
    if (!name || others.length > 0) return 'not for one SPIFFE ID';
    if (serverId !== undefined) return id === serverId ? undefined : 'for another SPIFFE ID than broker.serverId';
    const isAgent = name.trustDomain === parseSpiffeId(own.id)?.trustDomain && name.path.startsWith('/spire/agent/');
    return isAgent ? undefined : 'not that of a SPIRE agent of the trust domain; set broker.serverId';
  }
}

async function* streamed(channel: Channel, call: Call, signal: AbortSignal): AsyncGenerator<X509SvidResponse> {
  try {
    yield* channel.stream<object, X509SvidResponse>({ ...call, signal });
  } finally {
    channel.close();
  }
}
