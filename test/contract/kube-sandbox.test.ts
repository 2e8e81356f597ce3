import { startKubeApi } from '../../sandbox/kube/kube-api.ts';
import { kubeContract } from './kube.ts';

kubeContract('the sandbox', async () => {
  const api = await startKubeApi({ rbac: true, ambassador: false });
  api.serveTrustBundles('v1beta1');
  return {
    target: {
      name: 'sandbox',
      trustBundles: 'v1beta1',
      kubeconfig: (token) => api.kubeconfig(token === undefined ? {} : { token }),
      compact: async () => api.compact(true),
    },
    stop: () => api.stop(),
  };
});
