/** Environment variables of another program, from which the agent makes a MeshCertificate. */
interface EnvironmentConfig {
  /** Name of the flag's value: `oldConnector`. */
  readonly attribute: string;
  /** Of `meshcert agent`: `--old-connector`. */
  readonly flag: string;
  /** Of the flag. */
  readonly description: string;
  /** The MeshCertificate without its `apiVersion` and `kind`. `namespace` is the pod's own. */
  document(env: Readonly<Record<string, string | undefined>>, namespace: string): Promise<object>;
  /** The error for a MeshCertificate that the schema refuses. It names the variables; a path is `spec.secretName`. */
  refused(issues: readonly { readonly path: string; readonly message: string }[]): Promise<Error>;
}

/**
 * Programs that an agent can replace by reading their environment. The code that reads it is loaded when it is needed.
 */
export const environments: readonly EnvironmentConfig[] = [
  {
    attribute: 'consulConnector',
    flag: '--consul-connector',
    description: 'Read the environment of the old Consul connector',
    document: async (env, namespace) => (await import('./consul/cluster.ts')).connectorDocument(env, namespace),
    refused: async (issues) => (await import('./consul/cluster.ts')).refusedVariables(issues),
  },
];
