import { environments } from '../../../adapters/environments.ts';
import type { AgentFlags } from '../commands/agent.ts';

const FILES_BELOW = ['/var/run/secrets/meshcert'];

/** What the flags mean together. */
export function agentSettings(flags: AgentFlags) {
  const given: Readonly<Record<string, unknown>> = flags;
  const environment = environments.find(({ attribute }) => given[attribute] === true);
  const fromFile = flags.config !== undefined || environment !== undefined;
  const mustList = !fromFile && (flags.observe === 'labels' || flags.allNamespaces);
  const listed = (entries: readonly string[]) => (mustList || entries.length > 0 ? entries : undefined);
  return {
    ...flags,
    environment,
    allow: {
      serviceAccounts: listed(flags.allowServiceAccount),
      audiences: listed(flags.allowAudience),
      addresses: listed(flags.allowAddress),
    },
    filesBelow: fromFile ? undefined : (flags.filesBelow ?? FILES_BELOW),
    // A one-shot run is a single writer by what it is; waiting for a Lease would only delay an init container.
    leaderElect: flags.leaderElect && !flags.once && !flags.dryRun,
    gatewayDiagnostics: flags.gatewayDiagnostics ?? [],
  } as const;
}

export type AgentSettings = ReturnType<typeof agentSettings>;
