import type { Adapter, Need } from '../../src/mesh/adapter.ts';
import { CaIssuer, CRL_CONFIG_MAP } from './ca.ts';
import { checks, discover, pods, ROOT_CONFIG_MAP } from './cluster.ts';
import { accountPath, expectation, type IstioConfig, istioConfig } from './config.ts';
import { SdsSource } from './sds.ts';

/** Istio: its CA API (istiod, istio-csr), or SDS (pilot-agent, SPIRE). */
export const istio: Adapter<IstioConfig> = {
  mesh: 'istio',
  title: 'Istio',
  config: istioConfig,
  expect: (config, { namespace }) => expectation(config, namespace),
  needs: (config, { namespace, crl }) => istioNeeds(config, namespace, crl),
  // Sidecars recognise mesh traffic by ALPN if mTLS is not strict, and detect HTTP by it on ports of unknown protocol.
  tls: { alpnProtocols: 'istio-http/1.1,istio,http/1.1' },
  tokenFields: [
    { path: 'ca.serviceAccount', names: 'account' },
    { path: 'ca.tokenFile', names: 'agent' },
  ],
  sds: (sds) => ({ sds }),
  revokes: true,
  discover,
  pods,
  checks,
  names: ({ uris: [uri = ''] }) => /^spiffe:\/\/[^/]+\/ns\/[^/]+\/sa\/[^/]+$/.test(uri),
  peer: ({ namespace, serviceAccount }) => ({ path: accountPath(namespace, serviceAccount) }),
  // istiod makes a DestinationRule of each BackendTLSPolicy on a Service, for all sidecars.
  takesPoliciesOf: (controllerName) => controllerName.startsWith('istio.io/'),
  expectedPeer({ trustDomain, accounts: [account, ...others] }) {
    if (trustDomain === undefined || !account || others.length > 0) return undefined;
    return `spiffe://${trustDomain}/ns/${account.namespace}/sa/${account.serviceAccount}`;
  },
  open(config, host) {
    if (config.ca) return new CaIssuer(config, config.ca, host);
    if (config.sds) return new SdsSource(config, config.sds, host);
    throw new TypeError('exactly one of ca and sds must be set');
  },
};

/** What Istio's adapter reads, mints and dials. */
function istioNeeds({ ca, sds }: IstioConfig, namespace: string, crl = false): readonly Need[] {
  const needs: Need[] = crl ? [{ kind: 'configMap', namespace, name: CRL_CONFIG_MAP }] : [];
  if (sds) needs.push({ kind: 'address', address: `unix:${sds.socket}`, field: 'istio.sds.socket' });
  if (!ca) return needs;
  needs.push({ kind: 'address', address: ca.address, field: 'istio.ca.address' });
  if (ca.serviceAccount !== undefined) {
    const { serviceAccount: name, audience } = ca;
    needs.push({ kind: 'token', namespace, name, audience, field: 'istio.ca.serviceAccount' });
  }
  if (ca.root.clusterTrustBundle) needs.push({ kind: 'clusterTrustBundle', name: ca.root.clusterTrustBundle.name });
  else if (ca.root.file === undefined && ca.root.inline === undefined) {
    const { name = ROOT_CONFIG_MAP, namespace: elsewhere = namespace } = ca.root.configMap ?? {};
    needs.push({ kind: 'configMap', namespace: elsewhere, name });
  }
  return needs;
}
