import type { MeshCertificate } from '../../config/schema/mesh-certificate.ts';
import type { Adapter, Host, Issuer, Source } from '../../mesh/adapter.ts';
import { MeshError } from '../../mesh/error.ts';
import { asError } from '../../mesh/renewing.ts';

/**
 * What an adapter opens for a MeshCertificate. An adapter that throws here is a source that fails: the failure is
 * reported in the status like any other of the mesh, and tried again with the same pauses.
 */
export function opening(adapter: Adapter, mesh: MeshCertificate['spec']['mesh'], host: Host): Source | Issuer {
  try {
    return adapter.open(mesh.config, host);
  } catch (cause) {
    const why = asError(cause).message;
    const message = `spec.${mesh.name} cannot be used: ${why}; correct that field`;
    return failing(new MeshError('ERR_MESH_CONFIG', message, { cause, retry: { afterMs: 60_000 } }));
  }
}

function failing(error: MeshError): Source {
  return {
    // biome-ignore lint/correctness/useYield: the failure is all there is
    async *watch() {
      throw error;
    },
    async [Symbol.asyncDispose]() {},
  };
}
