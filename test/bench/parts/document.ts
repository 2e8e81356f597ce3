import { adapters } from '../../../adapters/index.ts';
import type { MeshCertificate } from '../../../src/config/schema/mesh-certificate.ts';
import { validateObject } from '../../../src/config/validate.ts';
import { gateways } from '../../../src/gateways.ts';

/** A MeshCertificate with every default filled in. */
export function normaliseDocument(name: string): MeshCertificate {
  const result = validateObject(
    {
      apiVersion: 'meshcert.dev/v1alpha1',
      kind: 'MeshCertificate',
      metadata: { name, namespace: 'emissary' },
      spec: { istio: { ca: { serviceAccount: 'gateway' } } },
    },
    adapters,
    gateways,
  );
  if (!result.ok) throw new Error(JSON.stringify(result.issues));
  return result.value;
}
