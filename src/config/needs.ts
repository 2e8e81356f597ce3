import type { Adapter, Need } from '../mesh/adapter.ts';
import type { MeshCertificate } from './schema/mesh-certificate.ts';

/** What one MeshCertificate makes the agent read, mint and dial. */
export function needsOf({ metadata, spec }: MeshCertificate, adapters: readonly Adapter[]): readonly Need[] {
  const adapter = adapters.find(({ mesh }) => mesh === spec.mesh.name);
  if (!adapter) throw new TypeError(`no adapter for mesh ${spec.mesh.name}`);
  const needs = adapter.needs(spec.mesh.config, {
    namespace: metadata.namespace ?? 'default',
    crl: spec.crlSecretName !== undefined,
  });
  return spec.probe ? [...needs, { kind: 'address', address: spec.probe.address, field: 'probe.address' }] : needs;
}
