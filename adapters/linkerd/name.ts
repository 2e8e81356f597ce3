import { MeshError } from '../../src/mesh/error.ts';
import { readClaims } from '../../src/mesh/input/claims.ts';

export interface ServiceAccountName {
  readonly name: string;
  readonly namespace: string;
}

interface Domain {
  readonly namespace: string;
  readonly trustDomain: string;
}

/** The audience that Linkerd's identity service requires in a token review. */
export const AUDIENCE = 'identity.l5d.io';

/** A name with several labels would be read as another account's. */
export const isLabel = (name: string): boolean => /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/.test(name);

/** The DNS name that Linkerd gives to a ServiceAccount. */
export const identityOf = (account: ServiceAccountName, { namespace, trustDomain }: Domain): string =>
  `${account.name}.${account.namespace}.serviceaccount.identity.${namespace}.${trustDomain}`;

/** The name of the identity service's own proxy. */
export const identityServiceName = (domain: Domain): string =>
  identityOf({ name: 'linkerd-identity', namespace: domain.namespace }, domain);

export function requireLabels(account: ServiceAccountName): ServiceAccountName {
  if (isLabel(account.name) && isLabel(account.namespace)) return account;
  throw new MeshError(
    'ERR_MESH_CONFIG',
    `Linkerd gives no identity to ServiceAccount ${account.namespace}/${account.name}, since its name is not a single DNS label; use an account without dots in its name`,
    { retry: 'never' },
  );
}

/** The account in a service-account token's own claim: used to choose the name to request, not as a proof. */
export function accountOf(token: string, source: string): ServiceAccountName {
  const account = readClaims(token)?.account;
  if (account) return account;
  throw new MeshError(
    'ERR_MESH_TOKEN',
    `${source} holds no token of a Kubernetes ServiceAccount; mount a projected token of audience identity.l5d.io there`,
  );
}
