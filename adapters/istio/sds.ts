import { CallDeadline } from '../../src/async/clock.ts';
import { UnderWay } from '../../src/async/under-way.ts';
import { openChannel } from '../../src/grpc/channel.ts';
import type { Checking, Host, Revoking, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf } from '../../src/mesh/identity.ts';
import { formatDuration } from '../../src/mesh/schema/duration.ts';
import type { Crl } from '../../src/pki/crl.ts';
import type { IstioConfig, SdsConfig } from './config.ts';
import { istioCrls } from './crls.ts';
import { sdsError } from './errors.ts';
import { examineSds } from './examine.ts';
import { expectation } from './name.ts';
import { SdsState } from './sds-state.ts';
import { type Push, type Subscription, subscribe } from './sds-stream.ts';

/** pilot-agent answers from memory, or within its five attempts at the CA. */
const FIRST_ANSWER_MS = 30_000;
/** After a new leaf without the root that it needs; pilot-agent pushes that root immediately after the leaf. */
const ROOT_FOLLOWS_MS = 30_000;
/** pilot-agent and SPIRE rotate at half of a leaf's life. */
const ROTATED_BY = 0.75;
/** A leaf that was already late when it arrived is given this share of its life, at least a second. */
const LATE_SHARE = 0.05;

/** Identities from a socket that serves SDS: pilot-agent, the SPIRE agent. */
export class SdsSource implements Source, Checking, Revoking {
  readonly #config: IstioConfig;
  readonly #sds: SdsConfig;
  readonly #host: Host;
  readonly #underWay = new UnderWay();
  /** Fingerprint of the last leaf that was not replaced in time. */
  #overdueLeaf: string | undefined;

  constructor(config: IstioConfig, sds: SdsConfig, host: Host) {
    this.#config = config;
    this.#sds = sds;
    this.#host = host;
  }

  async *watch(caller: AbortSignal): AsyncGenerator<Identity, void, undefined> {
    const { clock } = this.#host;
    using late = this.#underWay.begin(caller);
    const { signal } = late;
    let current: string | undefined;
    const deadline = new CallDeadline(clock, (reason) => {
      this.#overdueLeaf = current;
      late.abort(new MeshError('ERR_MESH_SILENT', reason));
    });
    // No keepalive: over a unix socket it detects nothing, and grpc-go ends connections that ping too often.
    const channel = openChannel({ address: `unix:${this.#sds.socket}`, tls: 'plaintext' });
    const state = new SdsState(this.#from, expectation(this.#config, this.#host.namespace), this.#sds, {
      now: () => clock.now(),
      readFile: (path) => this.#readFile(path, signal),
    });
    deadline.set(FIRST_ANSWER_MS, `${this.#from} ${within(FIRST_ANSWER_MS)} sent no complete identity; see its logs`);
    try {
      for await (const push of subscribe(channel, this.#subscription, signal)) {
        const identity = await this.#take(state, push);
        if (identity) {
          deadline.clear();
          yield identity;
          // The write to the cluster goes first: nothing waits for the answer.
          await nextTick();
          current = leafOf(identity).fingerprint;
          // The same leaf from a new subscription does not end the delay.
          if (this.#isOverdue(identity)) this.#host.report(this.#overdueError(identity));
          deadline.set(...this.#silence(identity));
        } else if (state.waitsForRoots) {
          const what = `${this.#from} sent a new leaf, but not its root ${within(ROOT_FOLLOWS_MS)}`;
          deadline.set(ROOT_FOLLOWS_MS, `${what}; meshcert subscribes again`);
        }
        push.accept();
      }
      signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} ended the stream; meshcert opens it again`);
    } catch (error) {
      throw sdsError(error, this.#sds.socket);
    } finally {
      deadline.clear();
      channel.close();
    }
  }

  crls(signal: AbortSignal): AsyncIterable<readonly Crl[]> {
    return istioCrls(this.#host, signal);
  }

  check(examiner: Examiner): Promise<void> {
    return examineSds(examiner, this.#sds.socket, async (signal) => {
      for await (const identity of this.watch(signal)) return identity;
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} sent nothing`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the source is disposed of'));
  }

  get #from(): string {
    return `SDS socket ${this.#sds.socket}`;
  }

  get #subscription(): Subscription {
    const { namespace } = this.#host;
    const { certificateName, bundleName, disableSpiffeValidation } = this.#sds;
    return {
      names: [certificateName, bundleName],
      nodeId: this.#sds.nodeId ?? `sidecar~127.0.0.1~meshcert.${namespace}~${namespace}.svc.cluster.local`,
      plainRoots: disableSpiffeValidation,
    };
  }

  /** Unusable content is refused and ends the stream: only a new stream makes the agent send again. */
  async #take(state: SdsState, push: Push): Promise<Identity | undefined> {
    try {
      return await state.take(push);
    } catch (error) {
      if (error instanceof MeshError) push.refuse(error.message);
      throw error;
    }
  }

  /** The time from now until a new leaf is overdue, and the reason to report then. */
  #silence(identity: Identity): [number, string] {
    const { notBefore, notAfter } = leafOf(identity);
    const due = dueOf(identity) - this.#host.clock.now();
    const ms = this.#sds.expectedRotation ?? Math.max(due, (notAfter - notBefore) * LATE_SHARE, 1000);
    return [Math.round(ms), `${this.#from} sent no new leaf ${within(ms)}; meshcert subscribes again`];
  }

  #isOverdue(identity: Identity): boolean {
    if (leafOf(identity).fingerprint === this.#overdueLeaf) return true;
    return this.#sds.expectedRotation === undefined && dueOf(identity) <= this.#host.clock.now();
  }

  #overdueError(identity: Identity): MeshError {
    const until = new Date(leafOf(identity).notAfter).toISOString();
    const what = `${this.#from} still sends a leaf that should have been replaced, and that ends at ${until}`;
    return new MeshError('ERR_MESH_SILENT', `${what}; does its agent reach the CA? meshcert subscribes again`);
  }

  async #readFile(path: string, signal: AbortSignal): Promise<string | undefined> {
    for await (const content of this.#host.file(path, signal)) return content;
    return undefined;
  }
}

/** When the next leaf is expected, epoch ms. */
const dueOf = (identity: Identity): number => {
  const { notBefore, notAfter } = leafOf(identity);
  return notBefore + (notAfter - notBefore) * ROTATED_BY;
};
const nextTick = (): Promise<void> => new Promise((resolve) => process.nextTick(resolve));
const within = (ms: number): string => `within ${formatDuration(Math.round(ms / 1000) * 1000)}`;
