import type { LoadBalancer } from './kinds.ts';

/** What the gateway's environment and its `ambassador` Module configure about how it reads objects. */
export interface EmissaryEnv {
  /** AMBASSADOR_ID. */
  readonly ambassadorId: string;
  /** AMBASSADOR_NAMESPACE: where the gateway runs. */
  readonly namespace: string;
  /** AMBASSADOR_SINGLE_NAMESPACE: nothing outside `namespace` is seen. */
  readonly singleNamespace: boolean;
  /** AMBASSADOR_LABEL_SELECTOR; applies to Secrets and TLSContexts too. */
  readonly labelSelector?: string | undefined;
  /** AMBASSADOR_ISTIO_SECRET_DIR is set: a Secret `istio-certs` made of the files there replaces a real one. */
  readonly istioSecretDir: boolean;
  /** AMBASSADOR_EDS_BYPASS. */
  readonly edsBypass: boolean;
  /** AMBASSADOR_FORCE_SECRET_VALIDATION: Secrets that its own parser refuses are withheld. */
  readonly forceSecretValidation?: boolean | undefined;
  /** AMBASSADOR_RECONFIG_MAX_DELAY, in milliseconds: changes within it are one batch. */
  readonly batchMs: number;
  /** Of the Module named `ambassador`; absent: there is no such Module. */
  readonly module?: ModuleSettings | undefined;
  /** Resolvers by name, in addition to Emissary's built-in ones. */
  readonly resolvers?: ReadonlyMap<string, Resolver> | undefined;
  /** Such as `4.1.0`; absent: unknown. */
  readonly version?: string | undefined;
}

/** What finds the endpoints behind a host. `unknown`: there is no such object, or it was not read. */
export type Resolver = 'service' | 'endpoint' | 'consul' | 'unknown';

export interface ModuleSettings {
  /** `defaults.tls_secret_namespacing` */
  readonly tlsSecretNamespacing?: boolean | undefined;
  /** `use_ambassador_namespace_for_service_resolution` */
  readonly resolvesInOwnNamespace?: boolean | undefined;
  readonly resolver?: string | undefined;
  readonly loadBalancer?: LoadBalancer | undefined;
  readonly circuitBreakers?: unknown;
}

export const DEFAULT_ENV: EmissaryEnv = {
  ambassadorId: 'default',
  namespace: 'emissary',
  singleNamespace: false,
  istioSecretDir: false,
  edsBypass: false,
  batchMs: 1_000,
};

/** Whether an object with this `ambassador_id` is for a gateway of this id. */
export function answersTo(ids: unknown, ambassadorId: string): boolean {
  const list = Array.isArray(ids) ? ids : typeof ids === 'string' ? [ids] : [];
  if (list.length === 0) return ambassadorId === 'default';
  return list.includes('_automatic_') || list.includes(ambassadorId);
}

/** Equality, inequality and existence, joined by commas: the part of the label selector grammar that Emissary's users write. */
export function selects(selector: string | undefined, labels: Readonly<Record<string, string>> = {}): boolean {
  if (!selector) return true;
  return selector.split(',').every((term) => {
    const [, negated, key = '', operator, value = ''] = /^\s*(!?)([^=!\s]+)\s*(==?|!=)?\s*(\S*)\s*$/.exec(term) ?? [];
    if (operator === '!=') return labels[key] !== value;
    if (operator) return labels[key] === value;
    return negated ? !(key in labels) : key in labels;
  });
}
