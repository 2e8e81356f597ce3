import type { Clock } from '../../async/clock.ts';
import type { PublicationStatus } from '../../core/status.ts';
import type { Log } from '../../mesh/log.ts';

export interface StatusEntry {
  readonly namespace: string;
  readonly name: string;
  readonly status: PublicationStatus;
}

/** The data of the HTTP server; the agent's status board implements it. */
export interface StatusSource {
  /** Sorted by namespace and name. */
  all(): readonly StatusEntry[];
  /** `listener` is called after each change; the returned function unsubscribes. */
  subscribe(listener: () => void): () => void;
}

/** A problem of the agent itself rather than of one MeshCertificate. */
export interface AgentProblem {
  readonly code: string;
  readonly message: string;
}

export interface AgentHealth {
  /** Its configuration is read and its watches have a first list. Followers are ready too. */
  readonly ready: boolean;
  /** Undefined if no Lease is used. */
  readonly leader?: boolean | undefined;
  readonly problems: readonly AgentProblem[];
}

export const keyOfEntry = ({ namespace, name }: StatusEntry): string => `${namespace}/${name}`;

export interface HttpOptions {
  /** `0.0.0.0` if the kubelet and Prometheus must reach it. */
  readonly host: string;
  /** 0 selects a free one. */
  readonly port: number;
  /** Host names in addition to addresses and names of the cluster; see `isOwnHost`. */
  readonly allowedHosts: readonly string[];
  readonly version: string;
  readonly source: StatusSource;
  health(): AgentHealth;
  readonly metrics: { expose(format?: 'prometheus' | 'openmetrics'): string };
  readonly clock: Clock;
  readonly log: Log;
}
