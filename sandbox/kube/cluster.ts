import type { Clock } from '../../src/async/clock.ts';
import { AuditLog } from './audit.ts';
import { Faults } from './faults.ts';
import { Definitions } from './objects/definitions.ts';
import { KindRegistry } from './objects/registry.ts';
import { Store } from './objects/store.ts';
import { IssuedTokens, type User } from './tokens.ts';
import { Watches } from './watches.ts';
import { Writes } from './writes/writes.ts';

/** All parts of one API server, without the network. */
export interface Cluster {
  readonly clock: Clock;
  readonly store: Store;
  readonly registry: KindRegistry;
  readonly definitions: Definitions;
  readonly writes: Writes;
  readonly watches: Watches;
  readonly tokens: IssuedTokens;
  /** Static tokens and their users. */
  readonly users: Map<string, User>;
  readonly faults: Faults;
  readonly audit: AuditLog;
  /** Authorize by the stored roles; otherwise every authenticated user may do everything. */
  readonly rbac: boolean;
  /** Watches may begin with the state. */
  readonly watchList: boolean;
}

export function newCluster(clock: Clock, features: Pick<Cluster, 'rbac' | 'watchList'>): Cluster {
  const store = new Store();
  const registry = new KindRegistry();
  const writes = new Writes(store, clock);
  return {
    clock,
    store,
    registry,
    writes,
    definitions: new Definitions(store, registry),
    watches: new Watches(store, clock),
    tokens: new IssuedTokens(store, clock),
    users: new Map(),
    faults: new Faults(),
    audit: new AuditLog(),
    ...features,
  };
}
