import type { Issue } from './issue.ts';
import type { MeshCertificate } from './schema/mesh-certificate.ts';

/** Two MeshCertificates that would write the same object; `later` is the one to refuse. */
export interface Conflict extends Issue {
  readonly later: MeshCertificate;
  readonly earlier: MeshCertificate;
}

/**
 * Finds what two MeshCertificates both claim, in the order given. Names of TLSContexts are compared across
 * namespaces where their ambassadorIds overlap: Emissary resolves a Mapping's `tls` by name alone.
 */
export function conflicts(all: readonly MeshCertificate[]): Conflict[] {
  const owners = new Map<string, MeshCertificate>();
  const found: Conflict[] = [];
  for (const one of all) {
    for (const { key, path, what } of claims(one)) {
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

function* claims({ metadata, spec }: MeshCertificate): Generator<{ key: string; path: Issue['path']; what: string }> {
  const namespace = metadata.namespace ?? '';
  const self = { path: ['metadata', 'name'], what: `the name ${metadata.name}` };
  yield { key: `self ${namespace}/${metadata.name}`, ...self };
  for (const field of ['secretName', 'caSecretName'] as const) {
    yield { key: `secret ${namespace}/${spec[field]}`, path: ['spec', field], what: `Secret ${spec[field]}` };
  }
  if (spec.configMapName !== undefined) {
    const what = `ConfigMap ${spec.configMapName}`;
    yield { key: `configmap ${namespace}/${spec.configMapName}`, path: ['spec', 'configMapName'], what };
  }
  if (!spec.tlsContext.enabled) return;
  const ids = spec.tlsContext.ambassadorIds.length === 0 ? ['default'] : new Set(spec.tlsContext.ambassadorIds);
  for (const id of ids) {
    const what = `TLSContext ${spec.tlsContext.name}`;
    yield { key: `tlscontext ${id} ${spec.tlsContext.name}`, path: ['spec', 'tlsContext', 'name'], what };
  }
}
