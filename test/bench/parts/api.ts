import { type KubeApi, startKubeApi } from '../../../src/sandbox/kube/kube-api.ts';
import { servePart } from './part.ts';

let api: KubeApi;

const methods = {
  async start({ namespaces, objects }: { namespaces: readonly string[]; objects: readonly object[] }) {
    api = await startKubeApi({ namespaces, objects });
    return api.kubeconfig();
  },
  /** `{ 'patch secrets': 3, … }` of one user agent since the last time; watches and lists count once each. */
  spent({ userAgent }: { userAgent: string }) {
    const counts: Record<string, number> = {};
    for (const entry of api.requests.entries.filter((one) => one.userAgent.startsWith(userAgent))) {
      const key = `${entry.verb} ${entry.resource}`;
      counts[key] = (counts[key] ?? 0) + 1;
    }
    api.requests.reset();
    return counts;
  },
};

export type Api = typeof methods;
servePart(methods);
