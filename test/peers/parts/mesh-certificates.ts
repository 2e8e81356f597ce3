import type { PublicationStatus } from '../../../src/core/status.ts';
import type { KubeApiserver } from '../servers/kube-apiserver.ts';
import { eventually } from './eventually.ts';

const DEADLINE_MS = 90_000;

/** The MeshCertificates of one namespace, and what an agent says of them; both are started later. */
export function meshCertificatesOf(namespace: string, server: () => KubeApiserver, log: () => string) {
  const statusOf = async (name: string): Promise<Partial<PublicationStatus>> => {
    const path = `/apis/meshcert.dev/v1alpha1/namespaces/${namespace}/meshcertificates/${name}`;
    return (await server().call('GET', path)).body.status ?? {};
  };
  const document = (name: string, spec: object) => ({
    apiVersion: 'meshcert.dev/v1alpha1',
    kind: 'MeshCertificate',
    metadata: { name, namespace },
    spec,
  });
  return {
    statusOf,
    document,
    create: (name: string, spec: object) =>
      server().kubectl(['apply', '-f', '-'], { input: JSON.stringify(document(name, spec)) }),
    patch: (name: string, spec: object) =>
      server().kubectl(['patch', 'mcert', '-n', namespace, name, '--type=merge', '-p', JSON.stringify({ spec })]),
    /** The message of its error, once it has this code. */
    async errorOf(name: string, code: string): Promise<string> {
      let message = '';
      const has = async () => {
        const { lastError } = await statusOf(name);
        if (lastError?.code === code) ({ message } = lastError);
        return message !== '';
      };
      await eventually(`${code} of ${name}`, has, log, DEADLINE_MS);
      return message;
    },
    /** Resolves once it is published and nothing is wrong with it. */
    async well(name: string): Promise<void> {
      const isWell = async () => {
        const { conditions, lastError } = await statusOf(name);
        const is = (type: string) => conditions?.find((one) => one.type === type)?.status;
        return is('Published') === 'True' && is('Degraded') === 'False' && lastError === undefined;
      };
      await eventually(`${name} to be published`, isWell, log, DEADLINE_MS);
    },
  };
}
