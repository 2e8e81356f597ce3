import type { Adapter, Expectation } from '../../src/mesh/adapter.ts';
import { checks } from './cluster/checks.ts';
import { discover } from './cluster/discover.ts';
import { pods } from './cluster/pods.ts';
import { type LinkerdConfig, linkerdConfig } from './config.ts';
import { LinkerdIssuer } from './issuer.ts';
import { identityOf } from './name.ts';
import { linkerdNeeds } from './needs.ts';

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
