import type { KubeObject } from '../../../core/object.ts';
import { type Container, containersOf, envOf, labelsOf, versionOf, workloadSpec } from '../../../mesh/workload.ts';
import type { ClusterLists, GatewayInstallation } from '../../onboarding.ts';
import { moduleSettings } from '../reading/context.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../reading/env.ts';

/** A gateway that runs here, and how it reads objects. */
export interface EmissaryInstallation extends GatewayInstallation {
  readonly product: 'Emissary-ingress' | 'Edge Stack';
  readonly env: EmissaryEnv;
}

const IMAGE = /(^|\/)(emissary|ambassador|aes)(:|@|$)/;
/** The conversion webhook has the same image, and does not serve requests. */
const WEBHOOK = /apiext/;

export function installationsOf({ workloads, gatewayObjects }: ClusterLists): EmissaryInstallation[] {
  const modules = gatewayObjects.filter(({ kind }) => kind === 'Module');
  return workloads.flatMap((workload) => {
    const container = containersOf(workload).find(isGateway);
    if (!container || WEBHOOK.test(workload.metadata.name)) return [];
    const env = environment(container, workload.metadata.namespace ?? '');
    return {
      object: workload,
      workload,
      product: productOf(workload, container),
      version: env.version,
      home: env.namespace,
      serviceAccount: workloadSpec(workload).template?.spec?.serviceAccountName ?? 'default',
      gapMs: 2 * env.batchMs,
      env: { ...env, module: moduleSettings(modules, env) },
    };
  });
}

function isGateway({ image = '', command = [], args = [] }: Container): boolean {
  return IMAGE.test(image) && !WEBHOOK.test([...command, ...args].join(' '));
}

function productOf(workload: KubeObject, { image = '' }: Container): EmissaryInstallation['product'] {
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
