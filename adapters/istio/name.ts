import type { Expectation } from '../../src/mesh/adapter.ts';
import type { Claims } from '../../src/mesh/input/claims.ts';
import { formatSpiffeId, parseSpiffeId } from '../../src/pki/spiffe.ts';
import type { IstioConfig } from './config.ts';

const DEFAULT_TRUST_DOMAIN = 'cluster.local';

export const accountPath = (namespace: string, account: string): string => `/ns/${namespace}/sa/${account}`;

/** Istio's name of a ServiceAccount. */
export const workloadId = (trustDomain: string, namespace: string, account: string): string =>
  formatSpiffeId({ trustDomain, path: accountPath(namespace, account) });

export function expectation(config: IstioConfig, namespace: string): Expectation {
  const trustDomain = trustDomainOf(config);
  const account = config.ca?.serviceAccount;
  const id = config.id ?? (account && trustDomain ? workloadId(trustDomain, namespace, account) : undefined);
  return { form: 'spiffe', ...(id === undefined ? {} : { id }), ...(trustDomain === undefined ? {} : { trustDomain }) };
}

/** The identity that the CA gives to the bearer of this token, or undefined when it is not a ServiceAccount's. */
export function bearerId(config: IstioConfig, claims: Claims | undefined): string | undefined {
  const account = claims?.account;
  const trustDomain = trustDomainOf(config);
  return account && trustDomain ? workloadId(trustDomain, account.namespace, account.name) : undefined;
}

function trustDomainOf(config: IstioConfig): string | undefined {
  const fromId = config.id === undefined ? undefined : parseSpiffeId(config.id)?.trustDomain;
  return config.trustDomain ?? fromId ?? (config.ca ? DEFAULT_TRUST_DOMAIN : undefined);
}
