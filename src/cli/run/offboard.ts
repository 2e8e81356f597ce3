import { adapters } from '../../../adapters/index.ts';
import { systemClock } from '../../async/clock.ts';
import { gateways } from '../../gateways.ts';
import { carryOutOff, lookAndPlanOff, showOffPlan } from '../../onboard/offboard.ts';
import { refuseInUse, refuseNamed } from '../../onboard/plan/offboard-plan.ts';
import type { OffboardFlags } from '../commands/offboard.ts';
import { clusterOf } from '../declare/cluster-flags.ts';
import type { Io } from '../declare/command.ts';
import { confirmed, sayTo } from '../terminal/dialog.ts';

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
    refuseInUse(plan.leaving.flatMap(({ inUse }) => inUse));
    refuseNamed(plan.leaving.flatMap(({ naming }) => naming));
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
