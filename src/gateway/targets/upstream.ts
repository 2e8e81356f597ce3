import type { Refusal } from '../../mesh/targeting.ts';

/** `spec.service` of a Mapping, taken apart as Emissary does. */
export interface Upstream {
  /** Absent: Emissary decides by the context, and falls back to plaintext without one. */
  readonly scheme?: string | undefined;
  readonly host: string;
  readonly port: number;
}

const SERVICE = /^(?:([a-z][a-z0-9+.-]*):\/\/)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+?)\.?(?::(\d{1,5}))?\/?$/i;

export function parseUpstream(service: string): Upstream | undefined {
  const [, scheme, host, port] = SERVICE.exec(service.trim()) ?? [];
  if (host === undefined) return undefined;
  const number = port === undefined ? (scheme?.toLowerCase() === 'https' ? 443 : 80) : Number(port);
  if (number < 1 || number > 65_535) return undefined;
  return { scheme: scheme?.toLowerCase(), host: host.toLowerCase(), port: number };
}

export interface ServiceName {
  readonly name: string;
  readonly namespace: string;
}

/** The Service that a host means: `web`, `web.shop`, `web.shop.svc` and longer; a bare name in the Mapping's namespace. */
export function serviceOf(host: string, mappingNamespace: string): ServiceName | Refusal {
  const [name = '', namespace = mappingNamespace, svc, ...rest] = host.split('.');
  const address = host.startsWith('[') || /^\d+(\.\d+){3}$/.test(host);
  const deeper = svc !== undefined && (svc !== 'svc' || rest.length === 1);
  if (!address && !deeper) return { name, namespace };
  return {
    code: 'ERR_TARGET_NOT_IN_CLUSTER',
    message: `${host} is not the name of a Service, so its certificate cannot be known; write https://NAME.NAMESPACE:PORT`,
  };
}
