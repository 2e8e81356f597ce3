import { Trigger } from '../../async/trigger.ts';
import { type Allowed, type AllowList, ANY, allowing } from '../../config/allow.ts';
import type { GatewayFields } from '../../config/schema/gateway-fields.ts';
import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import { validator } from '../../config/validate.ts';
import { keyOf, refOf, withoutManagers } from '../../core/object.ts';
import type { Kube } from '../../kube/api.ts';
import { reflect } from '../../kube/reflector.ts';
import { RESOURCES } from '../../kube/resources.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import type { Runtime } from '../../mesh/log.ts';
import type { Leadership } from '../election/leadership.ts';
import { AcceptedCertificates } from './accepted.ts';
import { type Refusal, Refusals } from './refusals.ts';

export interface ControllerOptions extends Runtime {
  readonly kube: Kube;
  readonly adapters: readonly Adapter[];
  readonly gateways: readonly GatewayFields[];
  /** What MeshCertificates may make the agent do. */
  readonly allow: AllowList;
  readonly namespaces: Allowed;
  readonly leadership: Pick<Leadership, 'leads' | 'onChange'>;
  readonly onError: (error: Error) => void;
}

/**
 * The cost of `take` grows with their number, and each status write triggers a call. With this pause before a call, all
 * calls together take about 5 % of the time.
 */
const MANY = 100;
const PAUSE_EACH_MS = 0.1;
const LONGEST_PAUSE_MS = 1_000;

/**
 * The MeshCertificates of the cluster now and at each change. An invalid one keeps the last valid version of its name,
 * and its status says what is wrong.
 */
export async function* customResources(
  options: ControllerOptions,
  signal: AbortSignal,
): AsyncGenerator<readonly MeshCertificate[]> {
  const inner = new AbortController();
  const changed = new Trigger();
  const stop = AbortSignal.any([signal, inner.signal]);
  const scopes = options.namespaces === ANY ? [undefined] : options.namespaces;
  const reflectors = scopes.map((namespace) =>
    reflect(options.kube, RESOURCES.meshCertificates, namespace === undefined ? {} : { namespace }, {
      clock: options.clock,
      random: options.random,
      log: options.log,
      signal: stop,
      keep: withoutManagers,
      onError: options.onError,
    }),
  );
  const pumps = reflectors.map(async (reflector) => {
    for await (const _ of reflector.changes()) changed.fire();
  });
  const gathering = new AcceptedCertificates(
    allowing(validator(options.adapters, options.gateways), options.adapters, options.allow),
    options.gateways,
  );
  const { kube, clock, random, log, leadership, adapters } = options;
  const refusals = new Refusals({
    kube,
    clock,
    random,
    log,
    meshes: adapters.map(({ mesh }) => mesh),
    leads: (key) => leadership.leads(key),
    onRetry: () => changed.fire(),
  });
  // A refusal that was known before this process led is written once it leads.
  leadership.onChange(() => changed.fire());
  try {
    while (!signal.aborted) {
      await changed.wait(stop);
      const count = reflectors.reduce((sum, reflector) => sum + reflector.items().size, 0);
      if (count >= MANY) await options.clock.sleep(Math.min(LONGEST_PAUSE_MS, count * PAUSE_EACH_MS), stop);
      if (!reflectors.every((reflector) => reflector.isSynced)) continue;
      const items = reflectors.map((reflector) => reflector.items());
      const refused = new Map<string, Refusal>();
      const accepted = gathering.take(items, (object, problem, reconciled) => {
        refused.set(keyOf(refOf(object)), { object, problem, reconciled });
      });
      refusals.report(refused, stop);
      yield accepted;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    inner.abort(new Error('no longer watched'));
    await Promise.allSettled(pumps);
  }
}
