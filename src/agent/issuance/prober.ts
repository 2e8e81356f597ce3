import type { Clock } from '../../async/clock.ts';
import { type LinkedSignal, linkedTo } from '../../async/linked-signal.ts';
import type { ProbeSpec } from '../../config/schema/mesh-certificate.ts';
import type { Problem } from '../../core/problem.ts';
import type { ProbeOutcome } from '../../core/trust/hold.ts';
import { type Identity, leafOf } from '../../mesh/identity.ts';
import type { Log } from '../../mesh/log.ts';
import type { Certificate } from '../../pki/certificate.ts';
import { type ProbeResult, probe } from '../../probe/probe.ts';

/** Between two probes of the same held leaf. */
const AGAIN_MS = 5000;

/**
 * Every other result, such as an upstream that is down or is a different server, says nothing about our certificate.
 */
const ANSWERS = { accepted: 'accepted', ERR_PROBE_REFUSED: 'refused' } as const;

interface ProberOptions {
  readonly clock: Clock;
  readonly log: Log;
}

/** Probes a held leaf until the upstream accepts it; one probe at a time. */
export class Prober {
  readonly #env: ProberOptions;
  readonly #probeSpec: ProbeSpec | undefined;
  readonly #changed: () => void;
  #stop: LinkedSignal | undefined;
  #running: Promise<void> | undefined;
  /** The leaf that was probed last, whatever the result. */
  #asked: string | undefined;
  #last: { readonly fingerprint: string; readonly outcome: ProbeOutcome; readonly result: ProbeResult } | undefined;

  constructor(env: ProberOptions, probeSpec: ProbeSpec | undefined, changed: () => void) {
    this.#env = env;
    this.#probeSpec = probeSpec;
    this.#changed = changed;
  }

  /** The upstream's last answer to this identity; a failure to reach the upstream leaves it unchanged. */
  outcome(identity: Identity | undefined): ProbeOutcome {
    return this.#of(identity)?.outcome ?? 'unknown';
  }

  /** Why the last probe of this identity has no answer; undefined if it has one. */
  problem(identity: Identity | undefined): Problem | undefined {
    const { result } = this.#of(identity) ?? {};
    if (!result || result.code in ANSWERS) return undefined;
    return { code: result.code, message: result.message };
  }

  /** Starts a probe unless one is running or none is configured. */
  ask(identity: Identity | undefined, bundle: readonly Certificate[], signal: AbortSignal): void {
    const probeSpec = this.#probeSpec;
    if (!probeSpec || !identity || this.#running || this.outcome(identity) === 'accepted') return;
    const stop = linkedTo(signal);
    this.#stop = stop;
    this.#running = this.#probe(probeSpec, identity, bundle, stop.signal)
      .catch(() => {})
      .finally(() => {
        stop[Symbol.dispose]();
        this.#running = undefined;
        if (!stop.signal.aborted) this.#changed();
      });
  }

  stop(): void {
    this.#stop?.abort(new Error('stopped'));
  }

  async #probe(
    probeSpec: ProbeSpec,
    identity: Identity,
    bundle: readonly Certificate[],
    signal: AbortSignal,
  ): Promise<void> {
    const { fingerprint } = leafOf(identity);
    const again = this.#asked === fingerprint;
    this.#asked = fingerprint;
    if (again) await this.#env.clock.sleep(AGAIN_MS, signal);
    const result = await probe(probeSpec, identity, bundle, { clock: this.#env.clock, signal });
    if (signal.aborted) return;
    const said = ANSWERS[result.code as keyof typeof ANSWERS] ?? this.outcome(identity);
    this.#last = { fingerprint, outcome: said, result };
    this.#env.log.info(
      { code: result.code, upstream: probeSpec.address, leaf: fingerprint.slice(0, 16) },
      result.message,
    );
  }

  #of(identity: Identity | undefined) {
    const leaf = identity?.chain[0];
    return leaf && this.#last?.fingerprint === leaf.fingerprint ? this.#last : undefined;
  }
}
