import { randomUUID } from 'node:crypto';
import { existsSync, unlinkSync } from 'node:fs';
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
} from './sds-wire.ts';

export interface PilotAgentOptions {
  readonly socket: string;
  readonly clock: Clock;
  readonly random: () => number;
  /** A new key and its certificate from the CA; throws during an outage. */
  readonly request: () => Identity;
}

interface PilotSubscriber {
  readonly stream: ServerStream<DiscoveryRequest, object>;
  names: readonly string[];
  nonce: string;
  readonly end: (error: GrpcError) => void;
}

const WORKLOAD = 'default';
const ROOTS = 'ROOTCA';
/** SECRET_GRACE_PERIOD_RATIO and its jitter. */
const ROTATE_AT = 0.5;
const JITTER = 0.01;

/** The SDS server of Istio's agent, with its peculiarities: partial pushes, a lost cache at rotation, made-up names. */
export class PilotAgent {
  readonly #options: PilotAgentOptions;
  readonly #subscribers = new Set<PilotSubscriber>();
  #server: RunningServer | undefined;
  #cached: Identity | undefined;
  #roots = '';
  #count = 0;
  #cancel: () => void = () => {};
  #stopped = false;
  /** Rewrites a resource before it is sent, for tests that corrupt one. */
  spoil: ((name: string, resource: SdsResource) => SdsResource) | undefined;
  /** On: rotates without pushing. */
  mute = false;
  /** error_detail messages received. */
  readonly refusals: string[] = [];
  /** Requests dropped for a stale nonce. */
  dropped = 0;
  /** Accepted answers. */
  accepted = 0;
  /** Streams opened so far. */
  streams = 0;
  /** An error_detail came in the first request, which crashes the real agent. */
  crashed = false;

  constructor(options: PilotAgentOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const services = {
      [SDS_SERVICE]: {
        StreamSecrets: { stream: (stream: ServerStream<never, object>) => this.#serve(stream) },
      },
    };
    this.#stopped = false;
    this.#server = await serve({ services, listen: { path: this.#options.socket } });
    try {
      this.#generate(WORKLOAD);
    } catch {
      // The real agent keeps trying; here the next request does.
    }
  }

  get subscribers(): number {
    return this.#subscribers.size;
  }

  /** Like a rotation that is due: the cached certificate is dropped first, then subscribers receive a new one. */
  rotate(): void {
    this.#cached = undefined;
    if (!this.mute) this.push(WORKLOAD);
  }

  /** Sends one resource to its subscribers; ROOTCA may be sent unchanged and without a request, as the agent does. */
  push(name: string): void {
    for (const subscriber of [...this.#subscribers]) {
      if (subscriber.names.includes(name)) this.#send(subscriber, [name]);
    }
  }

  /** A new process: its memory is lost and the socket is another file of the same name. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** What an old process that ends late does to the socket of the new one. */
  unlinkSocket(): void {
    if (existsSync(this.#options.socket)) unlinkSync(this.#options.socket);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#cancel();
    this.#cached = undefined;
    this.#roots = '';
    this.#subscribers.clear();
    await this.#server?.stop();
    this.#server = undefined;
    this.unlinkSocket();
  }

  async #serve(stream: ServerStream<DiscoveryRequest, object>): Promise<void> {
    this.streams++;
    let end: (error: GrpcError) => void = () => {};
    const failed = new Promise<never>((_, reject) => {
      end = reject;
    });
    const subscriber: PilotSubscriber = { stream, names: [], nonce: '', end };
    try {
      await Promise.race([failed, this.#listen(subscriber)]);
    } finally {
      this.#subscribers.delete(subscriber);
    }
  }

  async #listen(subscriber: PilotSubscriber): Promise<void> {
    let first = true;
    for await (const request of subscriber.stream) {
      if (first && !request.node?.id) {
        throw new GrpcError(grpcStatus.INVALID_ARGUMENT, 'missing node information');
      }
      if (first) this.#subscribers.add(subscriber);
      this.#answer(subscriber, request, first);
      first = false;
    }
  }

  #answer(subscriber: PilotSubscriber, request: DiscoveryRequest, first: boolean): void {
    if (request.error_detail) {
      this.refusals.push(request.error_detail.message);
      if (first) this.#crash();
      return;
    }
    if (request.type_url !== SECRET_TYPE || request.resource_names.length === 0) {
      subscriber.names = [];
      return;
    }
    if (!first && request.response_nonce !== subscriber.nonce) {
      this.dropped++;
      return;
    }
    const added = request.resource_names.filter((name) => !subscriber.names.includes(name));
    subscriber.names = request.resource_names;
    if (added.length > 0) this.#send(subscriber, added);
    else this.accepted++;
  }

  #crash(): void {
    this.crashed = true;
    void this.stop();
  }

  #send(subscriber: PilotSubscriber, names: readonly string[]): void {
    const resources: SdsResource[] = [];
    for (const name of names) {
      try {
        const resource = this.#generate(name);
        resources.push(this.spoil?.(name, resource) ?? resource);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        subscriber.end(new GrpcError(grpcStatus.UNKNOWN, `failed to generate secret for ${name}: ${reason}`));
        return;
      }
    }
    subscriber.nonce = randomUUID();
    const time = new Date(this.#options.clock.now()).toISOString();
    const version_info = `${time}/${++this.#count}`;
    subscriber.stream.write({ version_info, type_url: SECRET_TYPE, nonce: subscriber.nonce, resources });
  }

  /** An unknown name gets the workload's certificate, and is never pushed again. */
  #generate(name: string): SdsResource {
    const known = this.#cached;
    const identity = known ?? this.#options.request();
    if (!known) {
      this.#cached = identity;
      this.#schedule(identity);
    }
    if (name === ROOTS) return rootsResource(name, sortedByText(identity));
    this.#noteRoots(identity);
    const { key, chain, roots } = identity;
    const sec1 = key.keyObject.export({ type: 'sec1', format: 'pem' }).toString();
    return certificateResource(name, [...chain, ...roots], sec1);
  }

  /** The first certificate pushes ROOTCA too, since no roots were known before; later ones only when they differ. */
  #noteRoots({ roots }: Identity): void {
    const text = roots.map(({ fingerprint }) => fingerprint).join();
    if (text === this.#roots) return;
    this.#roots = text;
    queueMicrotask(() => this.push(ROOTS));
  }

  #schedule(identity: Identity): void {
    this.#cancel();
    const { clock, random } = this.#options;
    const life = leafOf(identity).notAfter - clock.now();
    const jitter = (random() * 2 - 1) * JITTER;
    this.#cancel = clock.after(life * (ROTATE_AT - jitter), () => {
      if (!this.#stopped) this.rotate();
    });
  }
}

function sortedByText({ roots }: Identity) {
  return [...roots].sort((a, b) => (a.pem < b.pem ? -1 : 1));
}
