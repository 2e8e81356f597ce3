import { linkedTo } from '../../src/async/linked-signal.ts';
import { asError } from '../../src/async/retrying.ts';
import { type SharedHandle, sharing } from '../../src/async/sharing.ts';
import { Trigger, unlessFired } from '../../src/async/trigger.ts';
import type { Checking, Host, Source } from '../../src/mesh/adapter.ts';
import { MeshError } from '../../src/mesh/error.ts';
import type { Examiner } from '../../src/mesh/examiner.ts';
import type { Identity } from '../../src/mesh/identity.ts';
import { LastRead } from '../../src/mesh/last-read.ts';
import type { Certificate } from '../../src/pki/certificate.ts';
import { findPath, reachesRootInTime } from '../../src/pki/chain.ts';
import { ConsulAgent } from './agent.ts';
import { LONGEST_WAIT_MS, nextLeafStep } from './blocking.ts';
import { presentable, staleReason } from './chain.ts';
import type { ConsulConfig } from './config.ts';
import { RetryWindow } from './errors.ts';
import { checkTrustDomain, wrongName } from './name.ts';
import { answered, examineConsul } from './protocol/examine.ts';
import { type ReceivedLeaf, readLeaf, readRoots } from './protocol/read-http.ts';
import { sameTrust, type Trust } from './protocol/trust.ts';

/**
 * After a change of the CA, agents request new leaves at a random moment within this time; this source does the same.
 */
const SPREAD_MS = 30_000;
const GREETING_MS = 10_000;

/**
 * Identities from the HTTP API, where the Consul agent makes key and leaf. What was learned survives a failed stream.
 */
export class HttpSource implements Source, Checking {
  /** Agents renew by 90 % of a leaf's life at the latest. */
  readonly overdue = 0.92;
  readonly #config: ConsulConfig;
  readonly #host: Host;
  readonly #agent: ConsulAgent;
  #trust: Trust | undefined;
  #leaf: ReceivedLeaf | undefined;
  #yielded: Identity | undefined;
  readonly #window = new RetryWindow();

  constructor(config: ConsulConfig & { http: NonNullable<ConsulConfig['http']> }, host: Host) {
    this.#config = config;
    this.#host = host;
    this.#agent = new ConsulAgent(config, host);
  }

  async *watch(signal: AbortSignal): AsyncGenerator<Identity> {
    using inner = linkedTo(signal);
    const stop = inner.signal;
    const changed = new Trigger();
    const leafDue = new Trigger();
    let failure: { error: unknown } | undefined;
    const run = (loop: Promise<void>) =>
      loop.catch((error) => {
        if (stop.aborted) return;
        failure ??= { error };
        changed.fire();
      });
    this.#yielded = undefined;
    const loops = [run(this.#followRoots(changed, leafDue, stop)), run(this.#followLeaf(changed, leafDue, stop))];
    try {
      while (!signal.aborted) {
        await changed.wait(stop);
        if (failure) throw failure.error;
        yield* this.#news(leafDue, stop);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      inner.abort(new Error('the watch ended'));
      await Promise.all(loops);
    }
  }

  check(examiner: Examiner): Promise<void> {
    const { http, tokens } = this.#agent;
    let trust: Trust | undefined;
    return examineConsul(examiner, {
      connection: (signal) =>
        answered(
          http.request({ path: '/v1/agent/connect/ca/roots', timeoutMs: GREETING_MS }, signal),
          `Consul at ${http.address}`,
        ),
      token: (signal) => tokens.get(signal),
      roots: async (signal) => {
        trust = readRoots(this.#agent.rootsName, await this.#agent.roots().next(0, signal));
        checkTrustDomain(this.#config, trust.trustDomain);
        return trust;
      },
      leaf: async (signal) => {
        const [leaf] = readLeaf(this.#agent.leafName, await this.#agent.leaf().next(0, signal)).certificates;
        const wrong = trust && wrongName(this.#config, leaf, trust.trustDomain);
        if (wrong) throw new MeshError('ERR_MESH_BAD_RESPONSE', wrong);
        return leaf;
      },
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#agent[Symbol.asyncDispose]();
  }

  async #followRoots(changed: Trigger, leafDue: Trigger, signal: AbortSignal): Promise<void> {
    const query = this.#agent.roots();
    using _parsed = this.#parsed();
    for (;;) {
      const body = await query.next(this.#agent.patience(LONGEST_WAIT_MS), signal);
      if (!this.#learn(body)) continue;
      changed.fire();
      void this.#spreadRenewal(leafDue, signal);
    }
  }

  /** The parsed last answer, shared by all followers of this agent. */
  #parsed(): SharedHandle<LastRead<string, Trust>> {
    const share = this.#host.share ?? sharing();
    return share(this.#agent.rootsName, () => new LastRead());
  }

  /** True when the answer says something new. */
  #learn(body: string): boolean {
    using parsed = this.#parsed();
    const trust = parsed.value.read(body, (text) => readRoots(this.#agent.rootsName, text));
    checkTrustDomain(this.#config, trust.trustDomain);
    const same = this.#trust !== undefined && sameTrust(this.#trust, trust);
    this.#trust = trust;
    return !same;
  }

  /**
   * Requests a new leaf soon when the new roots made the current one stale, and at once when it is no longer usable.
   */
  async #spreadRenewal(leafDue: Trigger, signal: AbortSignal): Promise<void> {
    try {
      const chain = this.#chain();
      const [leaf] = chain;
      if (!leaf || !this.#stale()) return;
      const { clock, random } = this.#host;
      const useful = findPath(leaf, chain.slice(1), this.#trust?.roots ?? [], clock.now()).ok;
      await clock.sleep(useful ? random() * SPREAD_MS : 0, signal);
      if (this.#stale()) leafDue.fire();
    } catch (error) {
      if (!signal.aborted) this.#host.report(asError(error));
    }
  }

  async #followLeaf(changed: Trigger, leafDue: Trigger, signal: AbortSignal): Promise<void> {
    const { clock } = this.#host;
    const query = this.#agent.leaf();
    for (let known = false; ; known = true) {
      const leaf = known ? this.#leaf?.certificates[0] : undefined;
      const step = leaf ? nextLeafStep(leaf, clock.now()) : { block: 0 };
      try {
        const body = await unlessFired(leafDue, signal, async (stop) => {
          if ('sleep' in step) await clock.sleep(step.sleep, stop);
          return query.next('block' in step ? this.#agent.patience(step.block) : 0, stop);
        });
        const next = readLeaf(this.#agent.leafName, body ?? (await query.next(0, signal)));
        const same = this.#leaf?.certificates[0].fingerprint === next.certificates[0].fingerprint;
        this.#leaf = next;
        this.#window.reset();
        if (!known || !same || this.#chain().length !== this.#yielded?.chain.length) changed.fire();
      } catch (error) {
        await this.#endure(error, signal);
      }
    }
  }

  /** While signing is rate-limited the current leaf stays in use; any other error ends the stream. */
  async #endure(error: unknown, signal: AbortSignal): Promise<void> {
    if (!(error instanceof MeshError) || error.code !== 'ERR_MESH_RATE_LIMITED') throw error;
    const { clock, random } = this.#host;
    const afterMs = this.#window.next(clock.monotonic(), random);
    const leaf = this.#leaf?.certificates[0];
    if (!leaf || leaf.notAfter <= clock.now()) {
      throw new MeshError(error.code, error.message, { retry: { afterMs }, cause: error });
    }
    this.#host.report(error);
    await clock.sleep(afterMs, signal);
  }

  /** What changed since the last value: new roots with the old leaf before the new leaf. */
  async *#news(leafDue: Trigger, signal: AbortSignal): AsyncGenerator<Identity> {
    if (!this.#trust || !this.#leaf) return;
    if (this.#stale()) {
      const newer = this.#learn(await this.#agent.roots().next(0, signal));
      if (newer) void this.#spreadRenewal(leafDue, signal);
    }
    const { roots } = this.#trust;
    if (this.#yielded && !sameCertificates(this.#yielded.roots, roots)) {
      this.#yielded = { ...this.#yielded, roots };
      yield this.#yielded;
    }
    const next = this.#identity(this.#leaf, this.#trust);
    const last = this.#yielded;
    if (last && sameCertificates(last.chain, next.chain) && sameCertificates(last.roots, next.roots)) return;
    this.#yielded = next;
    yield next;
  }

  #identity({ key, certificates }: ReceivedLeaf, trust: Trust): Identity {
    const now = this.#host.clock.now();
    const [leaf] = certificates;
    const chain = presentable(certificates, trust, now);
    const wrong = wrongName(this.#config, leaf, trust.trustDomain);
    const path = findPath(leaf, chain.slice(1), trust.roots, now);
    if (!wrong && reachesRootInTime(path)) return { id: leaf.names.uris[0] ?? '', key, chain, roots: trust.roots };
    const broken = path.ok ? '' : `its chain fails at ${path.at.subject || path.at.fingerprint} (${path.reason})`;
    throw new MeshError(
      'ERR_MESH_BAD_RESPONSE',
      `${this.#agent.leafName}: ${wrong ?? broken}; the request is repeated. If this lasts, compare service, datacenter and the cluster's CA`,
    );
  }

  #chain(): Certificate[] {
    return this.#leaf && this.#trust ? presentable(this.#leaf.certificates, this.#trust, this.#host.clock.now()) : [];
  }

  #stale(): string | undefined {
    return this.#trust && staleReason(this.#config, this.#chain(), this.#trust, this.#host.clock.now());
  }
}

function sameCertificates(a: Identity['chain'], b: Identity['chain']): boolean {
  return a.length === b.length && a.every((each, at) => each.fingerprint === b[at]?.fingerprint);
}
