import { randomBytes } from 'node:crypto';
import type { Clock } from '../../src/async/clock.ts';
import { GrpcError, grpcStatus } from '../../src/grpc/error.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { type RunningServer, type ServerStream, serve } from '../grpc/server.ts';
import {
  certificateResource,
  type DiscoveryRequest,
  rootsResource,
  SDS_SERVICE,
  type SdsResource,
  SECRET_TYPE,
  validatorResource,
} from './sds-wire.ts';

export interface SpireAgentOptions {
  readonly socket: string;
  readonly id: string;
  readonly trustDomain: string;
  readonly clock: Clock;
  readonly request: () => Identity;
}

interface SpireSubscriber {
  readonly stream: ServerStream<DiscoveryRequest, object>;
  readonly plainRoots: boolean;
  names: readonly string[];
  nonce: string;
}

const ROTATE_AT = 0.5;

/** The SDS server of the SPIRE agent: the whole state at each push, strict about names, roots inside a validator. */
export class SpireAgent {
  readonly #options: SpireAgentOptions;
  readonly #subscribers = new Set<SpireSubscriber>();
  #server: RunningServer | undefined;
  #identity: Identity;
  #version = 0;
  #cancel: () => void = () => {};
  /** Whether the process on the other side of the socket has a registration entry. */
  registered = true;
  /** Whether it can be attested at all. */
  attested = true;
  readonly refusals: string[] = [];

  constructor(options: SpireAgentOptions) {
    this.#options = options;
    this.#identity = options.request();
  }

  async start(): Promise<void> {
    const services = {
      [SDS_SERVICE]: {
        StreamSecrets: { stream: (stream: ServerStream<never, object>) => this.#serve(stream) },
        FetchSecrets: { unary: (request: never) => this.#fetch(request) },
      },
    };
    this.#server = await serve({ services, listen: { path: this.#options.socket } });
    this.#schedule();
  }

  rotate(): void {
    this.#identity = this.#options.request();
    this.#schedule();
    this.update();
  }

  /** Sends everything that each subscriber requested, again. */
  update(): void {
    for (const subscriber of this.#subscribers) this.#send(subscriber);
  }

  async stop(): Promise<void> {
    this.#cancel();
    await this.#server?.stop();
    this.#subscribers.clear();
  }

  #fetch(request: DiscoveryRequest): object {
    this.#authorise(request.resource_names);
    const resources = this.#resources(request.resource_names, wantsPlainRoots(request));
    return { version_info: '1', type_url: SECRET_TYPE, nonce: newNonce(), resources };
  }

  async #serve(stream: ServerStream<DiscoveryRequest, object>): Promise<void> {
    let subscriber: SpireSubscriber | undefined;
    try {
      for await (const request of stream) {
        if (request.error_detail) this.refusals.push(request.error_detail.message);
        if (!subscriber) {
          subscriber = { stream, plainRoots: wantsPlainRoots(request), names: [], nonce: '' };
          this.#subscribers.add(subscriber);
        } else {
          const stale = request.response_nonce !== subscriber.nonce;
          const same = request.resource_names.join() === subscriber.names.join();
          if (stale || request.error_detail || same) continue;
        }
        this.#authorise(request.resource_names);
        subscriber.names = request.resource_names;
        this.#send(subscriber);
      }
    } finally {
      if (subscriber) this.#subscribers.delete(subscriber);
    }
  }

  #authorise(names: readonly string[]): void {
    if (!this.attested) throw new GrpcError(grpcStatus.UNAVAILABLE, 'could not attest the caller');
    const known = [...this.#bundleNames, ...(this.registered ? this.#certificateNames : [])];
    const bundles = names.filter((name) => this.#bundleNames.includes(name));
    // One bundle for each stream: of several, those after the first count as unknown.
    const refused = [...names.filter((name) => !known.includes(name)), ...bundles.slice(1)];
    if (refused.length > 0) {
      const listed = refused.map((name) => JSON.stringify(name)).join(' ');
      throw new GrpcError(
        grpcStatus.INVALID_ARGUMENT,
        `workload is not authorized for the requested identities [${listed}]`,
      );
    }
  }

  get #certificateNames(): string[] {
    return ['default', this.#options.id];
  }

  get #bundleNames(): string[] {
    return ['ROOTCA', 'ALL', `spiffe://${this.#options.trustDomain}`];
  }

  #send(subscriber: SpireSubscriber): void {
    subscriber.nonce = newNonce();
    const resources = this.#resources(subscriber.names, subscriber.plainRoots);
    const version_info = String(++this.#version);
    subscriber.stream.write({ version_info, type_url: SECRET_TYPE, nonce: subscriber.nonce, resources });
  }

  /** No names at all means everything. */
  #resources(names: readonly string[], plainRoots: boolean): SdsResource[] {
    const wanted = names.length === 0 ? [this.#options.id, 'ROOTCA'] : names;
    const { chain, roots, key } = this.#identity;
    return wanted.map((name) => {
      if (this.#certificateNames.includes(name)) return certificateResource(name, chain, key.toPem());
      if (plainRoots) return rootsResource(name, roots);
      return validatorResource(name, new Map([[this.#options.trustDomain, roots]]));
    });
  }

  #schedule(): void {
    this.#cancel();
    const { clock } = this.#options;
    const life = leafOf(this.#identity).notAfter - clock.now();
    this.#cancel = clock.after(life * ROTATE_AT, () => this.rotate());
  }
}

const newNonce = (): string => randomBytes(4).toString('hex');

function wantsPlainRoots({ node }: DiscoveryRequest): boolean {
  return node?.metadata?.fields.disable_spiffe_cert_validation?.boolValue === true;
}
