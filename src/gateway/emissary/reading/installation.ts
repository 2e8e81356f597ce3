import type { KubeObject } from '../../../core/object.ts';
import { listOfFields, text } from '../../../mesh/kube-object.ts';
import { containerFields, versionOf } from '../../../mesh/workload.ts';
import { DEFAULT_ENV, type EmissaryEnv } from './env.ts';

/** A container of the gateway, and how it reads objects. */
export interface FoundGateway {
  readonly object: KubeObject;
  readonly image: string;
  readonly env: EmissaryEnv;
}

/** Names of images of Emissary or Ambassador, such as `ghcr.io/emissary-ingress/emissary:4.1.0`. */
const IMAGE = /(?:^|\/)(?:emissary|ambassador|aes)(?::|@|$)/;
/** The conversion webhook has the same image, and does not serve requests. */
const WEBHOOK = /apiext/;

/** The gateways among the workloads, with the settings in their environment. */
export function findGateways(objects: readonly KubeObject[]): FoundGateway[] {
  return objects.flatMap((object) => {
    if (object.kind !== 'Deployment' && object.kind !== 'DaemonSet') return [];
    if (WEBHOOK.test(object.metadata.name)) return [];
    const container = containerFields(object).find(isGateway);
    return container ? [{ object, image: text(container.image) ?? '', env: envOf(object, container) }] : [];
  });
}

function isGateway(container: Readonly<Record<string, unknown>>): boolean {
  const words = [container.command, container.args].flat().join(' ');
  return IMAGE.test(text(container.image) ?? '') && !WEBHOOK.test(words) && !isConnector(container);
}

export const isConnector = (container: Readonly<Record<string, unknown>>): boolean =>
  [container.command, container.args].flat().includes('consul_connect_integration');

function envOf(object: KubeObject, container: Readonly<Record<string, unknown>>): EmissaryEnv {
  const list = listOfFields(container.env);
  const get = (name: string) => text(list.find((one) => one.name === name)?.value) || undefined;
  const on = (name: string) => get(name)?.toLowerCase() === 'true' || get(name) === '1';
  const delay = Number(get('AMBASSADOR_RECONFIG_MAX_DELAY') ?? 1);
  return {
    ambassadorId: get('AMBASSADOR_ID') ?? DEFAULT_ENV.ambassadorId,
    namespace: get('AMBASSADOR_NAMESPACE') ?? object.metadata.namespace ?? DEFAULT_ENV.namespace,
    // Any text switches it on, "false" too: cmd/entrypoint/helpers.go of Emissary asks only whether it is empty.
    singleNamespace: get('AMBASSADOR_SINGLE_NAMESPACE') !== undefined,
    labelSelector: get('AMBASSADOR_LABEL_SELECTOR'),
    istioSecretDir: get('AMBASSADOR_ISTIO_SECRET_DIR') !== undefined,
    edsBypass: on('AMBASSADOR_EDS_BYPASS'),
    batchMs: Number.isFinite(delay) ? delay * 1_000 : DEFAULT_ENV.batchMs,
    forceSecretValidation: on('AMBASSADOR_FORCE_SECRET_VALIDATION'),
    version: versionOf(text(container.image)),
  };
}
