import { parseArgs } from 'node:util';
import { systemClock } from '../mesh/clock.ts';
import { carryOutOff, lookAndPlanOff, showOffPlan } from '../onboard/offboard.ts';
import { refuseInUse } from '../onboard/offboard-plan.ts';
import { CLUSTER_OPTIONS, clusterOf } from './cluster-flags.ts';
import type { Command } from './command.ts';
import { confirmed } from './confirm.ts';
import { oneOf } from './onboard.ts';
import { sayTo } from './say-to.ts';

const USAGE = `usage: meshcert offboard [NAME…] [flags]

Takes the gateway out of the mesh again: first each Mapping is put back as it
was before, then the MeshCertificate goes, then its TLSContexts, and its Secrets
last, if its deletionPolicy is Delete. It stops before anything that a Mapping
still needs, so that nothing is sent in plaintext that was not before.

  NAME…                  MeshCertificates (default: all in the namespace)
  -y, --yes              do not ask
  --dry-run=client       show the plan and stop
  -n, --namespace NAME   default: where the gateway is
  --kubeconfig FILE      instead of KUBECONFIG
  --context NAME         context of the kubeconfig
`;

const OPTIONS = {
  ...CLUSTER_OPTIONS,
  yes: { type: 'boolean', short: 'y', default: false },
  'dry-run': { type: 'string' },
} as const;

export const offboard: Command = {
  name: 'offboard',
  summary: 'Take the gateway out of the mesh again, in the safe order',
  usage: USAGE,
  async run(argv, io) {
    const { values, positionals } = parseArgs({ args: [...argv], options: OPTIONS, allowPositionals: true });
    const dryRun = oneOf('--dry-run', values['dry-run'], ['client']);
    const kube = clusterOf(values, io);
    const { namespace } = values;
    const means = { kube, clock: systemClock, say: sayTo(io.stdout), namespace, names: positionals, signal: io.signal };
    try {
      const plan = await lookAndPlanOff(means);
      if (plan.leaving.length === 0 && plan.grants.length === 0) {
        io.stdout.write('Nothing to do: no MeshCertificate stands there.\n');
        return 0;
      }
      io.stdout.write(`${showOffPlan(plan)}\n`);
      refuseInUse(plan.leaving.flatMap(({ inUse }) => inUse));
      if (dryRun) return 0;
      if (!values.yes && !(await confirmed('Do this?', io))) return 1;
      await carryOutOff(plan, means);
      io.stdout.write('Done. The definition of MeshCertificate stays; deleting it would delete those of others.\n');
      return 0;
    } finally {
      kube.close();
    }
  },
};
