import type { KubeObject } from '../../core/object.ts';
import type { Gateway } from '../../gateway/gateway.ts';
import type { ClusterLists, GatewayInstallation, Onboarding } from '../../gateway/onboarding.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import { selectsPod } from '../../mesh/workload.ts';

/** A kind of gateway that can be taken into a mesh. */
export interface OnboardableGateway extends Gateway {
  readonly onboarding: Onboarding;
}

export const onboardable = (gateways: readonly Gateway[]): OnboardableGateway[] =>
  gateways.filter((one): one is OnboardableGateway => one.onboarding !== undefined);

/** A gateway that runs here. */
export interface GatewayFinding {
  readonly gateway: OnboardableGateway;
  readonly installation: GatewayInstallation;
  /** Meshes that its pods are in already, or will be at their next start. */
  readonly sidecars: readonly string[];
}

export const findGateways = (
  lists: ClusterLists & { readonly pods: readonly KubeObject[] },
  gateways: readonly Gateway[],
  adapters: readonly Adapter[],
): GatewayFinding[] =>
  onboardable(gateways).flatMap((gateway) =>
    gateway.onboarding
      .installations(lists)
      .map((installation) => ({ gateway, installation, sidecars: sidecarsOf(installation, lists, adapters) })),
  );

const installationsIn = (lists: ClusterLists, gateways: readonly Gateway[]): readonly GatewayInstallation[] =>
  onboardable(gateways)
    .flatMap(({ onboarding }) => onboarding.installations(lists))
    .filter(({ problem }) => problem === undefined);

/** The workloads whose pods are gateways. */
export const workloadsOf = (lists: ClusterLists, gateways: readonly Gateway[]): readonly KubeObject[] =>
  installationsIn(lists, gateways).flatMap(({ workload }) => workload ?? []);

/** Namespaces of the gateways and of what belongs to them. */
export const homesOf = (lists: ClusterLists, gateways: readonly Gateway[]): string[] => {
  const all = installationsIn(lists, gateways).flatMap(({ home, object, workload }) => [
    home,
    object.metadata.namespace ?? home,
    workload?.metadata.namespace ?? home,
  ]);
  return [...new Set(all)];
};

function sidecarsOf(
  { workload }: GatewayInstallation,
  { pods, namespaces }: { readonly pods: readonly KubeObject[]; readonly namespaces: readonly KubeObject[] },
  adapters: readonly Adapter[],
): string[] {
  if (!workload) return [];
  const namespace = namespaces.find(({ metadata }) => metadata.name === workload.metadata.namespace);
  const own = pods.filter((pod) => selectsPod(workload, pod));
  const found = adapters.flatMap(({ mesh, pods: of }) => [
    ...own.flatMap((pod) => of?.membership(pod, namespace)?.name ?? []),
    ...(of?.injected(workload, namespace) ? [mesh] : []),
  ]);
  return [...new Set(found)];
}
