import type { Need } from '../../src/mesh/adapter.ts';
import type { LinkerdConfig } from './config.ts';
import { identityAddress } from './control-plane.ts';
import { AUDIENCE } from './name.ts';

/** What Linkerd's adapter reads, mints and dials. The cluster domain may be known only from Linkerd's ConfigMap. */
export function linkerdNeeds(config: LinkerdConfig, namespace: string): readonly Need[] {
  const { controlPlaneNamespace, serviceAccount, trustRoots, clusterDomain } = config;
  const needs: Need[] = [
    { kind: 'configMap', namespace: controlPlaneNamespace, name: 'linkerd-config' },
    { kind: 'configMap', namespace: controlPlaneNamespace, name: trustRoots.configMap },
  ];
  if (serviceAccount) {
    const { name, namespace: elsewhere = namespace } = serviceAccount;
    const field = 'linkerd.serviceAccount';
    needs.push({ kind: 'token', namespace: elsewhere, name, audience: AUDIENCE, field });
  }
  if (config.address !== undefined) {
    needs.push({ kind: 'address', address: config.address, field: 'linkerd.address' });
  } else if (clusterDomain !== undefined) {
    const address = identityAddress(controlPlaneNamespace, clusterDomain);
    needs.push({ kind: 'address', address, field: 'linkerd.clusterDomain' });
  }
  return needs;
}
