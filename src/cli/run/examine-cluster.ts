import { environments } from '../../../adapters/environments.ts';
import { systemClock } from '../../async/clock.ts';
import { customResourceDefinition } from '../../config/schema/crd.ts';
import { validator } from '../../config/validate.ts';
import { describe, type KubeObject, refOf } from '../../core/object.ts';
import { examine } from '../../doctor/examine.ts';
import type { LiveObjects } from '../../doctor/live.ts';
import { readCluster } from '../../doctor/live.ts';
import { lookAtApi, lookAtGatewayDefinitions } from '../../doctor/looks/api.ts';
import { type InstallationContext, lookBeforeInstallation } from '../../doctor/looks/installation.ts';
import type { Seen, Tools } from '../../doctor/looks/look.ts';
import { gateways } from '../../gateways.ts';
import type { Kube } from '../../kube/api.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { discover } from '../../onboard/plan/findings.ts';
import { takeSnapshot } from '../../onboard/plan/snapshot.ts';
import { productOf } from '../../onboard/show-findings.ts';
import { opensslPreflight } from '../../preflight/preflight.ts';
import { type ClusterFlags, clusterOf, namespaceOf } from '../declare/cluster-flags.ts';
import type { Io } from '../declare/command.ts';

export interface ExamineFlags extends ClusterFlags {
  /** Before anything is installed. */
  readonly pre: boolean;
  /** Whether certificates may be requested. */
  readonly issue: boolean;
  /** `none`: no agent runs in this cluster, and the user's own rights are checked. */
  readonly agent: 'auto' | 'none';
  /** For each check, in ms. */
  readonly timeout: number;
}

export interface ClusterExamination {
  readonly live: LiveObjects | undefined;
  readonly seen: readonly Seen[];
}

/** Examines the cluster of the kubeconfig: objects, agent and meshes, or whether meshcert can be installed. */
export async function examineCluster(
  flags: ExamineFlags,
  adapters: readonly Adapter[],
  io: Io,
): Promise<ClusterExamination> {
  let skew: number | undefined;
  // The header is cut to whole seconds: adding half a second is the best estimate.
  const dated = (serverMs: number) => {
    skew = serverMs + 500 - systemClock.now();
  };
  const kube = clusterOf(flags, io, { dated });
  const tools: Tools = { kube, clock: systemClock, signal: io.signal, limitMs: flags.timeout };
  try {
    if (flags.pre)
      return { live: undefined, seen: await beforeInstallation(tools, adapters, namespaceOf(flags, io), () => skew) };
    const validate = validator(adapters, gateways);
    return await examine(tools, {
      read: () => readCluster(kube, flags.namespace === undefined ? undefined : [flags.namespace], io.signal),
      parse: (object) => {
        const result = validate(object);
        return result.ok ? result.value : undefined;
      },
      adapters,
      definition: customResourceDefinition(adapters, gateways) as unknown as KubeObject,
      environmentFlags: environments.map(({ flag }) => flag),
      agent: flags.agent === 'auto',
      issue: flags.issue,
      here: io.env.KUBERNETES_SERVICE_HOST !== undefined,
      skewMs: () => skew,
      preflight: opensslPreflight(),
    });
  } finally {
    kube.close();
  }
}

async function beforeInstallation(
  tools: Tools,
  adapters: readonly Adapter[],
  namespace: string,
  skewMs: () => number | undefined,
): Promise<Seen[]> {
  const api = await lookAtApi(tools, skewMs);
  if (api.some(({ code, state }) => code === 'MC6001' && state === 'failed')) return api;
  const definitions = await lookAtGatewayDefinitions(tools, []);
  return [
    ...api,
    ...definitions,
    ...(await lookBeforeInstallation(tools, namespace, () => surroundings(tools.kube, adapters, tools.signal))),
  ];
}

async function surroundings(
  kube: Kube,
  adapters: readonly Adapter[],
  signal: AbortSignal,
): Promise<InstallationContext> {
  const kinds = { adapters, gateways };
  const { gateways: found, meshes, unseen } = discover(await takeSnapshot(kube, kinds, signal), kinds);
  const versioned = (name: string, version: string | undefined) =>
    version === undefined ? name : `${name} ${version}`;
  return {
    gateways: found.map(({ installation }) => `${productOf(installation)}, ${describe(refOf(installation.object))}`),
    meshes: meshes.map(({ mesh, namespace, version, problem }) => ({
      title: `${versioned(adapters.find((one) => one.mesh === mesh)?.title ?? mesh, version)} in namespace ${namespace}`,
      problem,
    })),
    known: adapters.flatMap(({ discover: finds, title }) => (finds ? [title] : [])),
    unseen: unseen.map(({ what }) => what),
  };
}
