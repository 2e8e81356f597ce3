import type { TargetRefusal } from '../../../mesh/targeting.ts';

export interface ServiceName {
  readonly name: string;
  readonly namespace: string;
}

/**
 * The Service that a host refers to: `web`, `web.shop`, `web.shop.svc` and longer; a bare name is in the Mapping's
 * namespace.
 */
export function serviceNameOf(host: string, mappingNamespace: string): ServiceName | TargetRefusal {
  const [name = '', namespace = mappingNamespace, svc, ...rest] = host.replace(/\.$/, '').split('.');
  const address = host.includes(':') || /^\d+(\.\d+){3}$/.test(host);
  const elsewhere = svc !== undefined && (svc !== 'svc' || rest.length === 1);
  if (!address && !elsewhere) return { name, namespace };
  return {
    code: 'ERR_TARGET_NOT_IN_CLUSTER',
    message: `${host} is not the name of a Service, so its identity is unknown; write https://NAME.NAMESPACE:PORT`,
  };
}
