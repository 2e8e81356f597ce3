import type { Clock } from '../async/clock.ts';
import type { PublicationStatus } from '../core/status.ts';
import type { Log } from '../mesh/log.ts';

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
interface AgentProblem {
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

export interface Readiness {
  readonly ready: boolean;
  readonly leader?: boolean;
  /** The agent's own first, then those of MeshCertificates by namespace and name. */
  readonly problems: readonly ReadinessProblem[];
  /** How many are left out, and the path that lists all. */
  readonly more?: { readonly count: number; readonly see: string };
}

interface ReadinessProblem {
  readonly code: string;
  readonly message: string;
  /** `namespace/name`; absent: the agent itself. */
  readonly certificate?: string;
  /** RFC 3339: when it began, when it last occurred, when the mesh is asked again. */
  readonly since?: string;
  readonly lastTime?: string;
  readonly nextAttemptTime?: string;
}

/** The kubelet reads no more than the first 10 KB of an answer. */
const MOST_LISTED = 20;

/**
 * A failing mesh or cluster is reported here but does not make the agent unready: its publications remain, and a
 * restart would fix nothing.
 */
export function readiness(health: AgentHealth, entries: readonly StatusEntry[]): Readiness {
  const ofCertificates = entries.flatMap((entry) => {
    const { lastError, nextAttemptTime } = entry.status;
    if (!lastError) return [];
    const { code, message, time: lastTime, firstTime: since = lastTime } = lastError;
    const next = nextAttemptTime === undefined ? {} : { nextAttemptTime };
    return [{ code, message, certificate: keyOfEntry(entry), since, lastTime, ...next }];
  });
  return {
    ready: health.ready,
    ...(health.leader === undefined ? {} : { leader: health.leader }),
    problems: [...health.problems, ...ofCertificates],
  };
}

/** Readiness as /readyz answers it: all of the agent's own problems, and the first of MeshCertificates. */
export function shortened({ problems, ...rest }: Readiness, see: string): Readiness {
  const own = problems.filter(({ certificate }) => certificate === undefined).length;
  const listed = problems.slice(0, own + MOST_LISTED);
  const count = problems.length - listed.length;
  return { ...rest, problems: listed, ...(count > 0 ? { more: { count, see } } : {}) };
}
