import type { KubeObject } from '../../../core/object.ts';
import { labelsOf, workloadSpec } from '../../../mesh/workload.ts';
import type { ClusterLists, GatewayInstallation } from '../../onboarding.ts';
import { moduleSettings } from '../reading/context.ts';
import type { EmissaryEnv } from '../reading/env.ts';
import { findGateways } from '../reading/installation.ts';

/** A gateway that runs here, and how it reads objects. */
export interface EmissaryInstallation extends GatewayInstallation {
  readonly product: 'Emissary-ingress' | 'Edge Stack';
  readonly env: EmissaryEnv;
}

export function installationsOf({ workloads, gatewayObjects }: ClusterLists): EmissaryInstallation[] {
  const modules = gatewayObjects.filter(({ kind }) => kind === 'Module');
  return findGateways(workloads).map(({ object, image, env }) => ({
    object,
    workload: object,
    product: productOf(object, image),
    version: env.version,
    home: env.namespace,
    serviceAccount: workloadSpec(object).template?.spec?.serviceAccountName ?? 'default',
    gapMs: 2 * env.batchMs,
    env: { ...env, module: moduleSettings(modules, env) },
  }));
}

/** By the image: the chart of Emissary itself sets the label `product: aes`. */
function productOf(workload: KubeObject, image: string): EmissaryInstallation['product'] {
  const labels = labelsOf(workload);
  const edge = /(^|\/)aes(:|@|$)/.test(image) || /edge-stack/.test(JSON.stringify(labels));
  return edge ? 'Edge Stack' : 'Emissary-ingress';
}
