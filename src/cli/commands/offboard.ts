import { CLUSTER_FLAGS } from '../declare/cluster-flags.ts';
import { CERTIFICATE_NAMES, declare } from '../declare/command.ts';
import { bool, choice, type Values } from '../declare/flags.ts';

const flags = {
  yes: bool('-y, --yes', 'Do not ask for confirmation'),
  dryRun: choice('--dry-run <where>', 'Show the plan and stop', ['client']),
  ...CLUSTER_FLAGS,
};

export type OffboardFlags = Values<typeof flags>;

export const offboard = declare({
  name: 'offboard',
  summary: 'Take the gateway out of the mesh again, in the safe order',
  description:
    'Takes the gateway out of the mesh again. It first restores each route, then deletes the ' +
    'MeshCertificate, then its objects of the gateway, and last its Secrets if its deletionPolicy is Delete. It stops before ' +
    'anything that a route still needs, so that nothing is sent in plaintext that was not before.',
  parameters: [CERTIFICATE_NAMES],
  flags,
  examples: [
    { does: 'Show what would be done', line: 'meshcert offboard mesh -n emissary --dry-run=client' },
    { does: 'Leave the mesh without confirmation', line: 'meshcert offboard mesh -n emissary --yes' },
  ],
  run: async ({ flags, args }, io) => (await import('../run/offboard.ts')).runOffboard(flags, args, io),
});
