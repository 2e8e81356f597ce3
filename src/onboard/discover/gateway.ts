import type { KubeObject } from '../../core/object.ts';
import { moduleSettings } from '../../gateway/emissary/reading/context.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../../gateway/emissary/reading/env.ts';
import type { Adapter } from '../../mesh/adapter.ts';
import {
  type Container,
  containersOf,
  envOf,
  labelsOf,
  selectsPod,
  versionOf,
  workloadSpec,
} from '../../mesh/workload.ts';

/** A gateway that runs here, and how it reads objects. */
export interface GatewayFinding {
  readonly product: 'Emissary-ingress' | 'Edge Stack';
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly image: string;
  readonly serviceAccount: string;
  readonly env: EmissaryEnv;
  /** Meshes that its pods are in already, or will be at their next start. */
  readonly sidecars: readonly string[];
}

interface GatewayObjects {
  readonly workloads: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  readonly namespaces: readonly KubeObject[];
  readonly modules: readonly KubeObject[];
}

const IMAGE = /(^|\/)(emissary|ambassador|aes)(:|@|$)/;
/** The conversion webhook has the same image, and does not serve requests. */
const WEBHOOK = /apiext/;

export function findGateways(world: GatewayObjects, adapters: readonly Adapter[]): GatewayFinding[] {
  return world.workloads.flatMap((workload) => {
    const container = containersOf(workload).find(isGateway);
    if (!container || WEBHOOK.test(workload.metadata.name)) return [];
    const { name, namespace = '' } = workload.metadata;
    const env = environment(container, namespace);
    return {
      product: productOf(workload, container),
      kind: workload.kind,
      namespace,
      name,
      image: container.image ?? '',
      serviceAccount: workloadSpec(workload).template?.spec?.serviceAccountName ?? 'default',
      env: { ...env, module: moduleSettings(world.modules, env) },
      sidecars: sidecarsOf(workload, world, adapters),
    };
  });
}

function isGateway({ image = '', command = [], args = [] }: Container): boolean {
  return IMAGE.test(image) && !WEBHOOK.test([...command, ...args].join(' '));
}

function productOf(workload: KubeObject, { image = '' }: Container): GatewayFinding['product'] {
  const labels = labelsOf(workload);
  const edge = /(^|\/)aes(:|@|$)/.test(image) || labels.product === 'aes' || /edge-stack/.test(JSON.stringify(labels));
  return edge ? 'Edge Stack' : 'Emissary-ingress';
}

function environment(container: Container, namespace: string): EmissaryEnv {
  const get = (name: string) => envOf(container, name) || undefined;
  const delay = Number(get('AMBASSADOR_RECONFIG_MAX_DELAY'));
  return {
    ambassadorId: get('AMBASSADOR_ID') ?? DEFAULT_ENV.ambassadorId,
    namespace: get('AMBASSADOR_NAMESPACE') ?? namespace,
    singleNamespace: get('AMBASSADOR_SINGLE_NAMESPACE') !== undefined,
    labelSelector: get('AMBASSADOR_LABEL_SELECTOR'),
    istioSecretDir: get('AMBASSADOR_ISTIO_SECRET_DIR') !== undefined,
    edsBypass: get('AMBASSADOR_EDS_BYPASS') === 'true',
    batchMs: delay > 0 ? delay * 1000 : DEFAULT_ENV.batchMs,
    version: versionOf(container.image),
  };
}

function sidecarsOf(workload: KubeObject, world: GatewayObjects, adapters: readonly Adapter[]): string[] {
  const namespace = world.namespaces.find(({ metadata }) => metadata.name === workload.metadata.namespace);
  const own = world.pods.filter((pod) => selectsPod(workload, pod));
  const found = adapters.flatMap(({ mesh, pods }) => [
    ...own.flatMap((pod) => pods?.membership(pod, namespace)?.name ?? []),
    ...(pods?.injected(workload, namespace) ? [mesh] : []),
  ]);
  return [...new Set(found)];
}
