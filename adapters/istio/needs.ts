import type { Need } from '../../src/mesh/adapter.ts';
import type { IstioConfig } from './config.ts';
import { CRL_CONFIG_MAP } from './crls.ts';

/** What Istio's adapter reads, mints and dials. */
export function istioNeeds({ ca, sds }: IstioConfig, namespace: string, crl = false): readonly Need[] {
  const needs: Need[] = crl ? [{ kind: 'configMap', namespace, name: CRL_CONFIG_MAP }] : [];
  if (sds) needs.push({ kind: 'address', address: `unix:${sds.socket}`, field: 'istio.sds.socket' });
  if (!ca) return needs;
  needs.push({ kind: 'address', address: ca.address, field: 'istio.ca.address' });
  if (ca.serviceAccount !== undefined) {
    const { serviceAccount: name, audience } = ca;
    needs.push({ kind: 'token', namespace, name, audience, field: 'istio.ca.serviceAccount' });
  }
  if (ca.root.file === undefined && ca.root.inline === undefined) {
    const { name = 'istio-ca-root-cert', namespace: elsewhere = namespace } = ca.root.configMap ?? {};
    needs.push({ kind: 'configMap', namespace: elsewhere, name });
  }
  return needs;
}
