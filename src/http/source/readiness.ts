import type { AgentHealth, StatusEntry } from './source.ts';
import { keyOfEntry } from './source.ts';

export interface Readiness {
  readonly ready: boolean;
  readonly leader?: boolean;
  /** The agent's own first, then those of MeshCertificates by namespace and name. */
  readonly problems: readonly ReadinessProblem[];
  /** How many are left out, and the path that lists all. */
  readonly more?: { readonly count: number; readonly see: string };
}

export interface ReadinessProblem {
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
