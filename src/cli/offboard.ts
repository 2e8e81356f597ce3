import { adapters } from '../../adapters/index.ts';
import { systemClock } from '../async/clock.ts';
import { gateways } from '../gateways.ts';
import { carryOutOff, lookAndPlanOff, refuseToLeave, showOffPlan } from '../onboard/offboard.ts';
import { bool, choice, type Values } from './flags.ts';
import { CERTIFICATE_NAMES, CLUSTER_FLAGS, clusterOf, declare, type Io } from './program.ts';
import { confirmed, sayTo } from './terminal.ts';

const flags = {
  yes: bool('-y, --yes', 'Do not ask for confirmation'),
  dryRun: choice('--dry-run <where>', 'Show the plan and stop', ['client']),
  ...CLUSTER_FLAGS,
};

export type OffboardFlags = Values<typeof flags>;

export const offboard = declare({
  name: 'offboard',
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
  run: async ({ flags, args }, io) => runOffboard(flags, args, io),
});

export async function runOffboard(flags: OffboardFlags, names: readonly string[], io: Io): Promise<number> {
  const kube = clusterOf(flags, io);
  const { namespace } = flags;
  const say = sayTo(io.stdout);
  const means = { kube, adapters, gateways, clock: systemClock, say, namespace, names, signal: io.signal };
  try {
    const plan = await lookAndPlanOff(means);
    if (plan.leaving.length === 0 && plan.grants.steps.length === 0) {
      io.stdout.write('Nothing to do: there is no MeshCertificate.\n');
      return 0;
    }
    io.stdout.write(`${showOffPlan(plan)}\n`);
    refuseToLeave(plan.leaving);
    if (flags.dryRun) return 0;
    if (!flags.yes && !(await confirmed('Apply this plan?', io))) return 1;
    await carryOutOff(plan, means);
    io.stdout.write(
      'Done. The definition of MeshCertificate stays, because deleting it deletes all MeshCertificates.\n',
    );
    return 0;
  } finally {
    kube.close();
  }
}
