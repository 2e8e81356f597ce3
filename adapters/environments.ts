import type { EnvironmentConfig } from '../src/mesh/environment.ts';

/**
 * Programs that an agent can replace by reading their environment. The code that reads it is loaded when it is needed.
 */
export const environments: readonly EnvironmentConfig[] = [
  {
    attribute: 'consulConnector',
    flag: '--consul-connector',
    description: 'Read the environment of the old Consul connector',
    document: async (env, namespace) =>
      (await import('./consul/cluster/connector.ts')).connectorDocument(env, namespace),
  },
];
