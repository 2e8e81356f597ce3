import type { KubeObject } from '../../../core/object.ts';
import { fields, text } from '../../../mesh/kube-object.ts';
import { containerFields } from '../../../mesh/workload.ts';
import { DEFAULT_ENV, type EmissaryEnv } from '../reading/env.ts';

export interface FoundGateway {
  readonly object: KubeObject;
  readonly env: EmissaryEnv;
}

/** Names of images of Emissary or Ambassador, such as `ghcr.io/emissary-ingress/emissary:4.1.0`. */
const IMAGE = /(?:^|\/)(?:emissary|aes|ambassador)(?::v?(\d+\.\d+\.\d+)[^/]*|@.*)?$/;

/** The gateways among the workloads, with the settings in their environment. */
export function findGateways(objects: readonly KubeObject[]): FoundGateway[] {
  return objects.flatMap((object) => {
    if (object.kind !== 'Deployment' && object.kind !== 'DaemonSet') return [];
    const container = containerFields(object).find((one) => IMAGE.test(text(one.image) ?? '') && !isConnector(one));
    return container ? [{ object, env: envOf(object, container) }] : [];
  });
}

export const isConnector = (container: Readonly<Record<string, unknown>>): boolean =>
  [container.command, container.args].flat().includes('consul_connect_integration');

function envOf(object: KubeObject, container: Readonly<Record<string, unknown>>): EmissaryEnv {
  const list = Array.isArray(container.env) ? container.env.map(fields) : [];
  const get = (name: string) => text(list.find((one) => one.name === name)?.value);
  const on = (name: string) => get(name)?.toLowerCase() === 'true' || get(name) === '1';
  const [, version] = IMAGE.exec(text(container.image) ?? '') ?? [];
  const delay = Number(get('AMBASSADOR_RECONFIG_MAX_DELAY') ?? 1);
  return {
    ambassadorId: get('AMBASSADOR_ID') ?? DEFAULT_ENV.ambassadorId,
    namespace: get('AMBASSADOR_NAMESPACE') ?? object.metadata.namespace ?? DEFAULT_ENV.namespace,
    singleNamespace: on('AMBASSADOR_SINGLE_NAMESPACE'),
    labelSelector: get('AMBASSADOR_LABEL_SELECTOR'),
    istioSecretDir: get('AMBASSADOR_ISTIO_SECRET_DIR') !== undefined,
    edsBypass: on('AMBASSADOR_EDS_BYPASS'),
    batchMs: Number.isFinite(delay) ? delay * 1_000 : DEFAULT_ENV.batchMs,
    forceSecretValidation: on('AMBASSADOR_FORCE_SECRET_VALIDATION'),
    version,
  };
}
