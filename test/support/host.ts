import { createHost, type HostOptions } from '../../src/agent/host.ts';
import { Informer } from '../../src/agent/informers.ts';
import { systemClock } from '../../src/async/clock.ts';
import { sharing } from '../../src/async/sharing.ts';
import { ALLOW_ANY, ANY } from '../../src/config/allow.ts';
import type { Kube } from '../../src/kube/api.ts';
import type { Host } from '../../src/mesh/adapter.ts';
import { silentLog } from '../../src/mesh/log.ts';

/** The host of an adapter as the agent makes it, where nothing is restricted. */
export function hostFor(kube: Kube, changes: Partial<HostOptions> = {}): Host {
  const shared = { clock: systemClock, random: Math.random, log: silentLog };
  return createHost({
    ...shared,
    kube,
    namespace: 'emissary',
    share: sharing(),
    sharedInformers: new Informer({ ...shared, kube }),
    report: () => {},
    reportStale: () => {},
    filesBelow: ANY,
    allow: ALLOW_ANY,
    ...changes,
  });
}
