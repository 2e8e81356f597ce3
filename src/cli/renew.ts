import { parseArgs } from 'node:util';
import { API_VERSION, KIND } from '../config/mesh-certificate.ts';
import { RENEW_ANNOTATION } from '../core/object.ts';
import { systemClock } from '../mesh/clock.ts';
import { CLUSTER_OPTIONS, CLUSTER_USAGE, clusterOf, namespaceOf } from './cluster-flags.ts';
import { type Command, UsageError } from './command.ts';

const USAGE = `usage: meshcert renew NAME… [flags]

Asks the agent to fetch a new certificate now, whatever its schedule says. It
sets the annotation ${RENEW_ANNOTATION} on the MeshCertificate.

${CLUSTER_USAGE}
`;

export const renew: Command = {
  name: 'renew',
  summary: 'Ask for a new certificate now',
  usage: USAGE,
  async run(argv, io) {
    const { values, positionals } = parseArgs({ args: [...argv], options: CLUSTER_OPTIONS, allowPositionals: true });
    if (positionals.length === 0) throw new UsageError('name at least one MeshCertificate');
    const namespace = namespaceOf(values, io);
    const kube = clusterOf(values, io);
    try {
      for (const name of positionals) {
        const ref = { apiVersion: API_VERSION, kind: KIND, namespace, name };
        const annotations = { [RENEW_ANNOTATION]: new Date(systemClock.now()).toISOString() };
        await kube.merge(ref, { metadata: { annotations } }, { fieldManager: 'meshcert-cli' }, io.signal);
        io.stdout.write(`meshcertificate.meshcert.dev/${name} asked to renew\n`);
      }
      return 0;
    } finally {
      kube.close();
    }
  },
};
