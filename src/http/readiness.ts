import type { AgentHealth, StatusEntry } from './source.ts';
import { keyOfEntry } from './source.ts';

export interface Readiness {
  readonly ready: boolean;
  readonly leader?: boolean;
  readonly problems: readonly { readonly code: string; readonly message: string; readonly certificate?: string }[];
}

/**
 * The body of /readyz. A failing mesh or cluster is told here but does not make the agent unready: what it published
 * stands, and a restart would mend nothing.
 */
export function readiness(health: AgentHealth, entries: readonly StatusEntry[]): Readiness {
  const ofCertificates = entries.flatMap((entry) => {
    const { lastError } = entry.status;
    if (!lastError) return [];
    return [{ code: lastError.code, message: lastError.message, certificate: keyOfEntry(entry) }];
  });
  return {
    ready: health.ready,
    ...(health.leader === undefined ? {} : { leader: health.leader }),
    problems: [...health.problems, ...ofCertificates],
  };
}
