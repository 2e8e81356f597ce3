import { RENEW_ANNOTATION } from '../../core/object.ts';
import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { declare } from '../declare/command.ts';
import { bool, duration, text, type Values } from '../declare/flags.ts';

const flags = {
  all: bool('--all', 'All MeshCertificates of the namespace'),
  allNamespaces: bool('-A, --all-namespaces', 'In all namespaces; with --all or --selector'),
  selector: text('-l, --selector <query>', 'Those with these labels, such as team=web'),
  wait: bool('--wait', 'Wait until the new certificates are published; fail if one is not'),
  timeout: duration('--timeout <duration>', 'How long to wait with --wait', '2m', '1s'),
  ...CLUSTER_FLAGS,
};

export type RenewFlags = Values<typeof flags>;

export const renew = declare({
  name: 'renew',
  summary: 'Request a new certificate now',
  description:
    'Requests a new certificate from the agent now, regardless of its schedule. The command sets the annotation ' +
    `${RENEW_ANNOTATION} on the MeshCertificate. With --wait it fails when no agent acts on the request.`,
  parameters: [
    {
      name: 'name',
      description: 'MeshCertificates',
      variadic: true,
      completes: 'certificates',
      replacedBy: ['all', 'selector'],
    },
  ],
  flags,
  examples: [
    { does: 'Renew one, and wait for the new certificate', line: 'meshcert renew mesh -n emissary --wait' },
    { does: 'Renew all with a label, in all namespaces', line: 'meshcert renew -A -l team=web' },
    { does: 'Renew all of a namespace', line: 'meshcert renew --all -n emissary' },
  ],
  run: async ({ flags, args }, io) => (await import('../run/renew.ts')).runRenew(flags, args, io),
});
