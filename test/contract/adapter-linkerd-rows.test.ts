import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { startLinkerd } from '../../sandbox/linkerd/linkerd.ts';
import { connect } from '../../src/kube/client.ts';
import { formatCertificates } from '../../src/pki/certificate.ts';
import { ACCOUNTS, certifyRows } from './adapter-linkerd-rows.ts';

certifyRows('the sandbox', async () => {
  const objects = ACCOUNTS.map((metadata) => ({ apiVersion: 'v1', kind: 'ServiceAccount', metadata }));
  const api = await startKubeApi({ tls: false, namespaces: ['emissary', 'linkerd'], objects });
  const kube = connect({ kubeconfigText: api.kubeconfig(), userAgent: 'linkerd' });
  const mesh = await startLinkerd();
  await mesh.install(kube);
  return {
    name: 'sandbox',
    address: mesh.plaintextAddress,
    tlsAddress: mesh.address,
    serverName: mesh.identityOf('linkerd-identity', 'linkerd'),
    roots: formatCertificates(mesh.bundle()),
    identity: (namespace, account) => mesh.identityOf(account, namespace),
    token: async (account, audience) => (await kube.token(account, audience, 600)).token,
    userToken: api.adminToken,
    replaceIssuer: () => mesh.rotateIssuer(),
    stop: async () => {
      await mesh.stop();
      kube.close();
      await api.stop();
    },
  };
});
