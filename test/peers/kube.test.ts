import { readFile } from 'node:fs/promises';
import { kubeContract } from '../contract/kube.ts';
import { startKubeApiserver } from './servers/kube-apiserver.ts';

kubeContract('kube-apiserver', async () => {
  const server = await startKubeApiserver();
  const ca = await readFile(server.caFile);
  const cluster = { server: server.url, 'certificate-authority-data': ca.toString('base64') };
  const kubeconfig = (token: string) =>
    JSON.stringify({
      clusters: [{ name: 'real', cluster }],
      users: [{ name: 'real', user: { token } }],
      contexts: [{ name: 'real', context: { cluster: 'real', user: 'real' } }],
      'current-context': 'real',
    });
  return {
    target: { name: 'kube-apiserver', kubeconfig: (token) => kubeconfig(token ?? server.adminToken) },
    stop: () => server.stop(),
  };
});
