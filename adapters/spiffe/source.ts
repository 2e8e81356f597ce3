import { CallDeadline } from '../../src/async/clock.ts';
import { UnderWay } from '../../src/async/under-way.ts';
import type { Checking, Host, Revoking, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import { type Identity, leafOf, sameIdentity, sameLeaf } from '../../src/mesh/identity.ts';
import type { Crl } from '../../src/pki/crl.ts';
import { parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { SpiffeConfig } from './config.ts';
import { BrokerEndpoint, type SvidEndpoint, WorkloadEndpoint } from './endpoint.ts';
import { chooseSvid, expectation, readCrls, readSvid, readUpstreamTrust, type X509SvidResponse } from './svids.ts';

/** The agent answers from memory. */
const FIRST_ANSWER_MS = 30_000;
/** SPIRE agents renew at half of a leaf's life. */
const ROTATED_BY = 0.75;
/** Between two attempts to hear of a leaf that is late, as a share of its life; at least a second. */
const LATE_SHARE = 0.05;

/** Identities from the SPIFFE Workload API, or from the Broker API. */
export class SvidSource implements Source, Checking, Revoking {
  /** This source tells by itself when a leaf is late. */
  readonly overdue = 1;
  readonly #config: SpiffeConfig;
  readonly #host: Host;
  readonly #endpoint: SvidEndpoint;
  readonly #underWay = new UnderWay();

  constructor(config: SpiffeConfig, host: Host) {
    this.#config = config;
    this.#host = host;
    const workload = new WorkloadEndpoint(config);
    this.#endpoint = config.broker ? new BrokerEndpoint(config.broker, workload, host) : workload;
  }

  async *watch(caller: AbortSignal): AsyncGenerator<Identity, void, undefined> {
    const { clock } = this.#host;
    using work = this.#underWay.begin(caller);
    const deadline = new CallDeadline(clock, (reason) => work.abort(new MeshError('ERR_MESH_SILENT', reason)));
    let last: Identity | undefined;
    deadline.set(FIRST_ANSWER_MS, `${this.#from} sent nothing within 30 s; see the logs of the agent`);
    try {
      for await (const response of this.#endpoint.responses(work.signal)) {
        const svid = chooseSvid(this.#from, response.svids, this.#config);
        const identity = this.#withUpstream(
          readSvid(this.#from, svid, expectation(this.#config), clock.now(), last),
          response,
          last,
        );
        if (sameIdentity(last, identity)) continue;
        const isNewLeaf = !sameLeaf(identity, last);
        last = identity;
        if (isNewLeaf) deadline.clear();
        yield identity;
        // A changed bundle does not give an old leaf more time.
        if (!isNewLeaf) continue;
        if (this.#dueOf(identity) <= clock.now()) this.#host.report(this.#late(identity));
        deadline.set(this.#patience(identity), this.#late(identity).message);
      }
      work.signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} ended the stream; meshcert opens it again`);
    } catch (error) {
      throw this.#endpoint.explain(error);
    } finally {
      deadline.clear();
    }
  }

  /** By a subscription of its own: a change of the CRLs alone is no news of the identity. */
  async *crls(caller: AbortSignal): AsyncGenerator<readonly Crl[], void, undefined> {
    using work = this.#underWay.begin(caller);
    try {
      for await (const { crl } of this.#endpoint.responses(work.signal)) yield readCrls(this.#from, crl);
      work.signal.throwIfAborted();
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} ended the stream; meshcert opens it again`);
    } catch (error) {
      throw this.#endpoint.explain(error);
    }
  }

  async check(examiner: Examiner): Promise<void> {
    if (!examiner.here) {
      examiner.skip('spiffe-svid', `${this.#from} is on the agent's node; run meshcert doctor in the agent's pod`);
      return;
    }
    const first = async (signal: AbortSignal): Promise<Identity> => {
      for await (const identity of this.watch(signal)) return identity;
      throw new MeshError('ERR_MESH_UNAVAILABLE', `${this.#from} sent nothing`);
    };
    await examiner.look('spiffe-svid', first, (identity) => {
      const { notAfter, issuer } = leafOf(identity);
      const roots = `${identity.roots.length} root${identity.roots.length === 1 ? '' : 's'}`;
      return `sent ${identity.id} until ${new Date(notAfter).toISOString()}, by "${issuer}", under ${roots}`;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#underWay.end(new Error('the source is disposed of'));
  }

  #withUpstream(identity: Identity, { federated_bundles }: X509SvidResponse, last: Identity | undefined): Identity {
    const { upstreamTrustDomain } = this.#config;
    const own = parseSpiffeId(identity.id)?.trustDomain;
    if (upstreamTrustDomain === undefined || upstreamTrustDomain === own) return identity;
    const known = last?.upstream?.roots ?? [];
    return { ...identity, upstream: readUpstreamTrust(this.#from, upstreamTrustDomain, federated_bundles, known) };
  }

  get #from(): string {
    return this.#endpoint.from;
  }

  #dueOf(identity: Identity): number {
    const { notBefore, notAfter } = leafOf(identity);
    return notBefore + (notAfter - notBefore) * ROTATED_BY;
  }

  /** How long to wait for the next leaf before the stream is opened again. */
  #patience(identity: Identity): number {
    const { notBefore, notAfter } = leafOf(identity);
    const due = this.#dueOf(identity) - this.#host.clock.now();
    return Math.round(Math.max(due, (notAfter - notBefore) * LATE_SHARE, 1000));
  }

  #late(identity: Identity): MeshError {
    const until = new Date(leafOf(identity).notAfter).toISOString();
    const what = `${this.#from} sent no new certificate in three quarters of the life of the last one, which ends at ${until}`;
    return new MeshError(
      'ERR_MESH_SILENT',
      `${what}; does the SPIRE agent reach its server? meshcert subscribes again`,
    );
  }
}
