/** Environment variables of another program, from which the agent makes a MeshCertificate. */
export interface EnvironmentConfig {
  /** Name of the flag's value: `oldConnector`. */
  readonly attribute: string;
  /** Of `meshcert agent`: `--old-connector`. */
  readonly flag: string;
  /** Of the flag. */
  readonly description: string;
  /** The MeshCertificate without its `apiVersion` and `kind`. `namespace` is the pod's own. */
  document(env: Readonly<Record<string, string | undefined>>, namespace: string): Promise<object>;
}
