import { readdir } from 'node:fs/promises';
import { adapters } from '../../../adapters/index.ts';
import { systemClock } from '../../async/clock.ts';
import { gateways } from '../../gateways.ts';
import {
  carryOut,
  checkOnServer,
  isNothing,
  leftBehind,
  lookAndPlan,
  type OnboardOptions,
} from '../../onboard/onboard.ts';
import { planAsYaml, refuseBlocked, showCost, showPlan, titleOf } from '../../onboard/plan/plan.ts';
import { showFindings } from '../../onboard/show-findings.ts';
import type { OnboardFlags } from '../commands/onboard.ts';
import { clusterOf } from '../declare/cluster-flags.ts';
import type { Io } from '../declare/command.ts';
import { confirmed, sayTo } from '../terminal/dialog.ts';

export async function runOnboard(flags: OnboardFlags, io: Io): Promise<number> {
  const kube = clusterOf(flags, io);
  const options: OnboardOptions = {
    kube,
    adapters,
    gateways,
    clock: systemClock,
    random: Math.random,
    say: sayTo(io.stdout),
    preferences: {
      gateway: flags.gateway,
      namespace: flags.namespace,
      meshes: flags.mesh,
      routes: flags.mapping.length === 0 ? undefined : flags.mapping,
      changes: flags.set,
      image: flags.agent,
    },
    directories: await namesIn(flags.files),
    probe: flags.probe,
    connectTo: new Map(flags.connectTo),
    gatewayUrl: flags.gatewayUrl,
    timeoutMs: flags.timeout,
    settleMs: flags.settle,
    signal: io.signal,
  };
  try {
    return await run(options, flags, io);
  } finally {
    kube.close();
  }
}

/** What is in each directory, if it is visible from here. */
async function namesIn(directories: readonly string[]): Promise<OnboardOptions['directories']> {
  const names = directories.map(async (directory) => {
    const path = directory.replace(/(?<!.\/)(?<=.)\/+$/, '');
    return [path, await readdir(path).catch(() => undefined)] as const;
  });
  return new Map(await Promise.all(names));
}

async function run(options: OnboardOptions, { dryRun, output, yes }: OnboardFlags, io: Io): Promise<number> {
  const plan = await lookAndPlan(options);
  const findings = showFindings(plan.findings, plan.gateway, plan.verdicts, options.adapters);
  if (output) {
    io.stderr.write(findings);
    for (const step of plan.steps) {
      if (step.action === 'blocked') io.stderr.write(`${titleOf(step)} ${step.note}: apply it there\n`);
    }
    io.stdout.write(planAsYaml(plan));
    return 0;
  }
  io.stdout.write(`${findings}\n${showPlan(plan)}${showCost(plan, options.gatewayUrl)}\n`);
  refuseBlocked(plan);
  if (dryRun === 'client') return 0;
  if (dryRun === 'server') {
    await checkOnServer(plan, options);
    return 0;
  }
  if (isNothing(plan)) {
    io.stdout.write('Nothing to do: everything is as it should be.\n');
    return 0;
  }
  if (!yes && !(await confirmed('Apply this plan?', io))) return 1;
  const left = leftBehind(await carryOut(plan, options));
  if (left) throw left;
  io.stdout.write('Done. `meshcert status` shows what is published. `meshcert offboard` reverses this.\n');
  return 0;
}
