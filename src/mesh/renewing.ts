import { asError, followed } from '../async/retrying.ts';
import { Wake } from '../async/trigger.ts';
import type { Certificate } from '../pki/certificate.ts';
import { sameAnchors } from '../pki/chain.ts';
import type { Host, Issuer } from './adapter.ts';
import { MeshError } from './error.ts';
import { type Identity, leafOf, sameRoots } from './identity.ts';

/** When to issue and how often to retry; core has the numbers, this file the loop. */
export interface RenewalPolicy {
  /**
   * Epoch milliseconds at which this leaf is due: the same answer each time for the same leaf. `issuedAt` is when it
   * was issued, if known: a CA may backdate its leaves by two minutes, and one that lives for a minute would be due
   * before it arrived.
   */
  renewAt(leaf: Certificate, issuedAt?: number): number;
  /** Milliseconds to wait after the `attempt`-th failure in a row, counted from 1. */
  retryDelay(attempt: number, error: MeshError, leaf: Certificate | undefined): number;
  /** The same after a failure to follow the mesh's roots. */
  rootsRetryDelay(attempt: number, error: MeshError): number;
  /** The mesh gave a usable identity. */
  succeeded(): void;
  /** Called before each issue: milliseconds to wait first, 0 to proceed. Applies the budget on attempts. */
  admit(leaf: Certificate | undefined): number;
  /** Why this identity may not be used, judged as it would be published; such an answer counts as a failure. */
  refuse(identity: Identity): Promise<Error | undefined>;
  /**
   * A change of roots re-issues at a random moment within this time, so that a fleet does not request certificates all
   * at once.
   */
  readonly rootsSpreadMs: number;
}

export interface RenewingOptions {
  readonly policy: RenewalPolicy;
  /** The published identity: it is yielded first and renewed when due, so that a restart issues nothing. */
  readonly current?: Identity | undefined;
  /** Fired to check the clock again after a suspend or a step, or to renew now. */
  readonly wake?: Wake | undefined;
  /** The mesh's roots are followed again after a failure. */
  readonly recovered?: (() => void) | undefined;
  /** The returned handle is held while the issuer is called. */
  readonly asking?: (() => Disposable) | undefined;
}

/** Upper bound of a wait, so that a clock stepped ahead is noticed within this time even without a notification. */
const LONGEST_WAIT_MS = 5 * 60_000;

/**
 * Issuer → stream of identities: issue, wait until the leaf is due, issue again; immediately or soon after the roots
 * changed, when the issuer says that the leaf is stale. Failures are reported to the host and retried indefinitely.
 * Each value is the current identity with the newest roots. The only place that schedules renewals. Ends with the
 * signal; a consumer that stops reading earlier must abort it, since the roots are followed until then.
 */
export async function* renewing(
  issuer: Issuer,
  host: Host,
  options: RenewingOptions,
  signal: AbortSignal,
): AsyncGenerator<Identity> {
  const { policy, wake = new Wake() } = options;
  const { clock } = host;
  let pump: Promise<void> | undefined;

  let current = options.current;
  /** Roots that came with a certificate and that `roots()` has not named yet. */
  let issued: readonly Certificate[] = [];
  let named: readonly Certificate[] | undefined;
  let rootsChanged = false;
  let anchorsChanged = false;
  let due = current ? policy.renewAt(leafOf(current)) : clock.now();
  let failures = 0;
  let notBefore = 0;

  if (issuer.roots) {
    const watch = issuer.roots.bind(issuer);
    pump = followRoots(
      () => watch(signal),
      host,
      options,
      signal,
      (roots) => {
        const before = named ?? current?.roots;
        // The same roots may sign with another key: some meshes renew the certificates between root and leaf.
        const stale = current !== undefined && issuer.stale?.(current) !== undefined;
        rootsChanged ||= stale || (before !== undefined && !sameRoots(before, roots));
        // A leaf of a root that was renewed with the same key verifies under the new certificate too.
        anchorsChanged ||= stale || (before !== undefined && !sameAnchors(before, roots));
        named = roots;
        issued = without(issued, roots);
        wake.fire();
      },
    );
  }

  try {
    if (current) yield current;
    while (!signal.aborted) {
      if (wake.takeRenewal()) {
        due = clock.now();
        notBefore = 0;
      }
      if (current && named && rootsChanged) {
        const isDue = anchorsChanged;
        [rootsChanged, anchorsChanged] = [false, false];
        current = { ...current, roots: [...named, ...issued] };
        if (isDue && (!issuer.stale || issuer.stale(current) !== undefined)) {
          const spread = Math.floor(host.random() * policy.rootsSpreadMs);
          due = Math.min(due, clock.now() + spread);
        }
        yield current;
        continue;
      }
      const leaf = current && leafOf(current);
      const wait = Math.max(due - clock.now(), notBefore - clock.monotonic());
      if (wait > 0) {
        await wake.waitFor(Math.min(wait, LONGEST_WAIT_MS), clock, signal);
        continue;
      }
      const budget = policy.admit(leaf);
      if (budget > 0) {
        notBefore = clock.monotonic() + budget;
        continue;
      }
      try {
        const answer = await ask(issuer, options, signal);
        const extra = without(answer.roots, named ?? []);
        const next = { ...answer, roots: [...(named ?? []), ...extra] };
        const refused = await policy.refuse(next);
        if (refused) throw refused;
        due = policy.renewAt(leafOf(next), clock.now());
        issued = extra;
        current = next;
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        host.report(asError(error));
        notBefore = clock.monotonic() + policy.retryDelay(failures, asMeshError(error), leaf);
        continue;
      }
      failures = 0;
      notBefore = 0;
      policy.succeeded();
      yield current;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    if (signal.aborted) await pump;
  }
}

/** Outside the loop: a `using` whose block threw once throws the same error again in the next iteration of the loop. */
async function ask(issuer: Issuer, { asking }: RenewingOptions, signal: AbortSignal): Promise<Identity> {
  using _asking = asking?.();
  return await issuer.issue(signal);
}

function without(roots: readonly Certificate[], known: readonly Certificate[]): readonly Certificate[] {
  const names = new Set(known.map((root) => root.fingerprint));
  return roots.filter((root) => !names.has(root.fingerprint));
}

function followRoots(
  open: () => AsyncIterable<readonly Certificate[]>,
  host: Host,
  { policy, recovered }: RenewingOptions,
  signal: AbortSignal,
  seen: (roots: readonly Certificate[]) => void,
): Promise<void> {
  return followed(
    {
      open,
      each: (roots) => {
        if (roots.length > 0) seen(roots);
      },
      ended: () => new MeshError('ERR_MESH_UNAVAILABLE', 'the stream of trust roots ended; it is opened again'),
    },
    {
      clock: host.clock,
      delay: (failures, error) => policy.rootsRetryDelay(failures, asMeshError(error)),
      failed: (error) => host.report(asMeshError(error)),
      recovered: () => recovered?.(),
    },
    signal,
  );
}

export function asMeshError(error: unknown): MeshError {
  if (error instanceof MeshError) return error;
  const text = error instanceof Error ? error.message : String(error);
  return new MeshError('ERR_MESH_BAD_RESPONSE', `unexpected failure of the mesh adapter: ${text}`, { cause: error });
}
