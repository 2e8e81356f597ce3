import type { Issue } from './issue.ts';
import type { Claim, GatewayFields } from './schema/gateway-fields.ts';
import type { MeshCertificate } from './schema/mesh-certificate.ts';

/** Two MeshCertificates that would write the same object; `later` is the one to refuse. */
export interface Conflict extends Issue {
  readonly later: MeshCertificate;
  readonly earlier: MeshCertificate;
}

/** Finds the names that two MeshCertificates both claim, in the order given. */
export function conflicts(all: readonly MeshCertificate[], gateways: readonly GatewayFields[]): Conflict[] {
  const owners = new Map<string, MeshCertificate>();
  const found: Conflict[] = [];
  for (const one of all) {
    for (const { key, path, what } of claims(one, gateways)) {
      const earlier = owners.get(key);
      if (earlier === undefined) owners.set(key, one);
      else if (earlier !== one)
        found.push({
          later: one,
          earlier,
          path,
          message: `${what} already belongs to MeshCertificate ${nameOf(earlier)}`,
        });
    }
  }
  return found;
}

export const nameOf = ({ metadata }: MeshCertificate): string =>
  metadata.namespace === undefined ? metadata.name : `${metadata.namespace}/${metadata.name}`;

function* claims({ metadata, spec }: MeshCertificate, gateways: readonly GatewayFields[]): Generator<Claim> {
  const namespace = metadata.namespace ?? '';
  const self = { path: ['metadata', 'name'], what: `the name ${metadata.name}` };
  yield { key: `self ${namespace}/${metadata.name}`, ...self };
  const secrets = [
    'secretName',
    'caSecretName',
    ...(spec.crlSecretName === undefined ? [] : (['crlSecretName'] as const)),
  ] as const;
  for (const field of secrets) {
    yield { key: `secret ${namespace}/${spec[field]}`, path: ['spec', field], what: `Secret ${spec[field]}` };
  }
  if (spec.configMapName !== undefined) {
    const what = `ConfigMap ${spec.configMapName}`;
    yield { key: `configmap ${namespace}/${spec.configMapName}`, path: ['spec', 'configMapName'], what };
  }
  for (const gateway of gateways) {
    const config = spec.gateways[gateway.kind];
    if (config !== undefined) yield* gateway.claims(config, metadata);
  }
}
