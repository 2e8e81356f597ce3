import type { Adapter, Expectation, Need } from '../../src/mesh/adapter.ts';
import { checks, discover, pods } from './cluster.ts';
import { AUDIENCE, identityOf, type LinkerdConfig, linkerdConfig } from './config.ts';
import { identityAddress } from './control-plane.ts';
import { LinkerdIssuer } from './issuer.ts';

/** Linkerd's identity service, as a client without a proxy. */
export const linkerd: Adapter<LinkerdConfig> = {
  mesh: 'linkerd',
  title: 'Linkerd',
  config: linkerdConfig,
  expect(config, { namespace }): Expectation {
    const { trustDomain, serviceAccount, controlPlaneNamespace } = config;
    if (trustDomain === undefined) return { form: 'dns' };
    if (!serviceAccount) return { form: 'dns', trustDomain };
    const account = { name: serviceAccount.name, namespace: serviceAccount.namespace ?? namespace };
    return { form: 'dns', trustDomain, id: identityOf(account, { namespace: controlPlaneNamespace, trustDomain }) };
  },
  needs: (config, { namespace }) => linkerdNeeds(config, namespace),
  // Envoy's own highest version for upstreams is 1.2, which Linkerd's proxies refuse.
  tls: { minTlsVersion: 'v1.3', maxTlsVersion: 'v1.3' },
  tokenFields: [
    { path: 'serviceAccount', names: 'reference' },
    { path: 'tokenFile', names: 'agent' },
  ],
  usual: {
    'linkerd-config': { data: { values: 'clusterDomain: cluster.local\n' }, means: 'the trust domain cluster.local' },
  },
  sniPerTarget: true,
  discover,
  pods,
  checks,
  names: ({ dns }) => dns.some((name) => name.includes('.serviceaccount.identity.')),
  expectedPeer: ({ sni }) => sni,
  open: (config, host) => new LinkerdIssuer(config, host),
};

/** What Linkerd's adapter reads, mints and dials. The cluster domain may be known only from Linkerd's ConfigMap. */
function linkerdNeeds(config: LinkerdConfig, namespace: string): readonly Need[] {
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
