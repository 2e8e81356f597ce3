import { after, before } from 'node:test';
import type { Kube } from '../../../src/kube/api.ts';
import { connect } from '../../../src/kube/client.ts';
import { type KubeApiserver, startKubeApiserver } from '../servers/kube-apiserver.ts';
import { type AgentProcess, startAgentProcess } from './agent-process.ts';
import { DrillTable } from './drill-table.ts';
import { prepareCluster } from './prepare.ts';

/** A real API server for the tests of a suite, and the table of what they saw. */
export interface DrillCluster {
  readonly table: DrillTable;
  readonly apiserver: KubeApiserver;
  readonly kube: Kube;
  /** An agent for the MeshCertificates in these documents. */
  start(namespace: string, documents: string): Promise<AgentProcess>;
}

/** Starts it before the tests of the suite that calls this, and prints the table after them. */
export function drillCluster(namespaces: Readonly<Record<string, readonly string[]>>): DrillCluster {
  const table = new DrillTable();
  let apiserver: KubeApiserver;
  let kube: Kube;
  before(async () => {
    apiserver = await startKubeApiserver();
    await prepareCluster(apiserver, namespaces);
    kube = connect({ kubeconfig: apiserver.kubeconfigFile, userAgent: 'watcher' });
  });
  after(async () => {
    kube?.close();
    await apiserver?.stop();
    table.print();
  });
  return {
    table,
    get apiserver() {
      return apiserver;
    },
    get kube() {
      return kube;
    },
    start: (namespace, documents) =>
      startAgentProcess({
        kubeconfig: apiserver.kubeconfigFile,
        documents,
        args: ['--namespace', namespace, '--no-leader-elect'],
      }),
  };
}
