import type { AgentHealth, StatusEntry } from './source.ts';
import { keyOfEntry } from './source.ts';

export interface Readiness {
  readonly ready: boolean;
  readonly leader?: boolean;
  readonly problems: readonly ReadinessProblem[];
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

/**
 * The body of /readyz. A failing mesh or cluster is reported here but does not make the agent unready: its publications
 * remain, and a restart would fix nothing.
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
