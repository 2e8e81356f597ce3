import type { Clock } from '../../src/async/clock.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import type { ListenOn } from '../grpc/listen.ts';
import { type RunningServer, type ServerStream, serve } from '../grpc/server.ts';
import type { SpireAuthority } from './authority.ts';

/** A registration entry that matches whoever calls. */
export interface Entry {
  readonly id: string;
  readonly hint?: string;
}

interface WireSvid {
  spiffe_id: string;
  x509_svid: Buffer;
  x509_svid_key: Buffer;
  bundle: Buffer;
  hint: string;
}

/** What the Workload API sends; tests spoil it. */
export interface WireResponse {
  svids: WireSvid[];
  crl: Buffer[];
  federated_bundles: Record<string, Buffer>;
}

export interface WorkloadApiOptions {
  readonly clock: Clock;
  readonly authority: SpireAuthority;
  readonly listen: ListenOn;
  readonly entries: readonly Entry[];
}

type Stream = ServerStream<never, WireResponse>;

const ROTATE_AT = 0.5;

/** The Workload API of a SPIRE agent: everything to each caller, now and at each change. */
export class WorkloadApi {
  readonly #options: WorkloadApiOptions;
  readonly #streams = new Map<Stream, (error: GrpcError) => void>();
  readonly #held = new Map<string, Identity>();
  #entries: readonly Entry[];
  #server: RunningServer | undefined;
  #cancel: () => void = () => {};
  /** By trust domain. */
  readonly federated = new Map<string, readonly Certificate[]>();
  /** DER. */
  crls: readonly Buffer[] = [];
  /** The agent cannot reach its server: nothing is renewed. */
  serverOutage = false;
  spoil: ((response: WireResponse) => WireResponse) | undefined;

  private constructor(options: WorkloadApiOptions) {
    this.#options = options;
    this.#entries = options.entries;
  }

  static async start(options: WorkloadApiOptions): Promise<WorkloadApi> {
    const api = new WorkloadApi(options);
    await api.#listen();
    api.rotate();
    return api;
  }

  /** `unix:/path` or `host:port`. */
  get address(): string {
    return this.#server?.address ?? '';
  }

  get streams(): number {
    return this.#streams.size;
  }

  /** New leaves for all entries, and a response for each caller. */
  rotate(): void {
    if (!this.serverOutage) {
      this.#held.clear();
      for (const { id } of this.#entries) this.#held.set(id, this.#options.authority.issue(id));
      this.update();
    }
    this.#schedule();
  }

  /** Callers that no entry matches are denied, also those that are connected. */
  setEntries(entries: readonly Entry[]): void {
    this.#entries = entries;
    this.rotate();
  }

  /** What stands, once more: after a change of a bundle or of a CRL. */
  update(): void {
    for (const stream of this.#streams.keys()) this.#send(stream);
  }

  /** The agent is gone, or back. */
  async outage(on: boolean): Promise<void> {
    if (!on) return this.#listen();
    await this.#server?.stop();
    this.#server = undefined;
    this.#streams.clear();
  }

  async stop(): Promise<void> {
    this.#cancel();
    await this.outage(true);
  }

  async #listen(): Promise<void> {
    if (this.#server) return;
    const services = { SpiffeWorkloadAPI: { FetchX509SVID: { stream: (stream: Stream) => this.#serve(stream) } } };
    this.#server = await serve({ services: services as never, listen: this.#options.listen });
  }

  async #serve(stream: Stream): Promise<void> {
    if (stream.context.metadata['workload.spiffe.io'] !== 'true') {
      throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'security header missing from request');
    }
    await new Promise<void>((resolve, reject) => {
      this.#streams.set(stream, reject);
      stream.context.signal.addEventListener('abort', () => resolve(), { once: true });
      this.#send(stream);
    }).finally(() => this.#streams.delete(stream));
  }

  #send(stream: Stream): void {
    if (this.#entries.length === 0) {
      this.#streams.get(stream)?.(new GrpcError(grpcStatus.PERMISSION_DENIED, 'no identity issued'));
      return;
    }
    const response = this.#response();
    stream.write(this.spoil?.(response) ?? response);
  }

  #response(): WireResponse {
    const bundle = der(this.#options.authority.roots);
    return {
      svids: this.#entries.flatMap(({ id, hint = '' }) => {
        const held = this.#held.get(id);
        if (!held) return [];
        const key = held.key.keyObject.export({ type: 'pkcs8', format: 'der' });
        return [{ spiffe_id: id, x509_svid: der(held.chain), x509_svid_key: key, bundle, hint }];
      }),
      crl: [...this.crls],
      federated_bundles: Object.fromEntries(
        [...this.federated].map(([domain, roots]) => [`spiffe://${domain}`, der(roots)]),
      ),
    };
  }

  #schedule(): void {
    this.#cancel();
    const { clock } = this.#options;
    const times = [...this.#held.values()].map((held) => {
      const { notBefore, notAfter } = leafOf(held);
      return notBefore + (notAfter - notBefore) * ROTATE_AT;
    });
    if (times.length === 0) return;
    // An agent without its server tries again and again.
    const wait = Math.max(Math.min(...times) - clock.now(), this.serverOutage ? 5_000 : 0);
    this.#cancel = clock.after(wait, () => this.rotate());
  }
}

export const der = (certificates: readonly Certificate[]): Buffer => Buffer.concat(certificates.map((one) => one.der));
