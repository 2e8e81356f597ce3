import { type KubeApi, startKubeApi } from '../../../sandbox/kube/kube-api.ts';
import { Tally } from '../tally.ts';
import { servePart } from './part.ts';

/** The sandbox's log is short: entries are counted before they are dropped. */
const COUNT_EVERY_MS = 50;

let api: KubeApi;
const tally = new Tally();

function count(): void {
  for (const { userAgent, verb, resource } of api.requests.entries) tally.add(userAgent, `${verb} ${resource}`);
  api.requests.reset();
}

const methods = {
  async start({ namespaces, objects }: { namespaces: readonly string[]; objects: readonly object[] }) {
    api = await startKubeApi({ namespaces, objects });
    setInterval(count, COUNT_EVERY_MS);
    return api.kubeconfig();
  },
  async outage({ ms }: { ms: number }) {
    await api.outage(true);
    await new Promise((resolve) => setTimeout(resolve, ms));
    await api.outage(false);
  },
  look({ userAgent }: { userAgent: string }) {
    count();
    return tally.look(userAgent);
  },
  take({ userAgent }: { userAgent: string }) {
    count();
    return tally.take(userAgent);
  },
};

export type Api = typeof methods;
servePart(methods);
